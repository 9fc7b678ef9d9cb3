"""PURE: what a run of measurements is worth, as a matrix with a verdict and conditions in words.

Out of scope: the verdict on one pair (protocol.py) and which of two matrices to keep (cache.py).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from proxmox_cpu_affinity.latency.contradict import contradictions
from proxmox_cpu_affinity.latency.predict import filled, predicted
from proxmox_cpu_affinity.latency.protocol import Failed, Home, Parameters
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.latency import LatencyMatrix, PairSample, Verdict, with_samples
from proxmox_cpu_affinity.model.topology import Topology

BUSY = 0.2
"""Share of time in which some task waited for a CPU, from which on a host is busy."""

FEW = 0.1
"""Share of unstable pairs up to which the others still make a run."""

ALIKE = 0.1
"""Share by which a pair measured beside others may differ from the same pair alone."""


@dataclass(frozen=True, slots=True)
class Run:
    """What measuring a list of pairs gave, also where it ended early."""

    wanted: int  # pairs asked for
    samples: tuple[PairSample, ...] = ()
    failed: tuple[Failed, ...] = ()
    cut: str = ""  # why it ended before the last pair; empty: it did not
    lowered: int = 0  # pairs measured at once in the end, where more would disturb; 0: as planned
    beside: int = 0  # pairs measured in bursts, beside guests


def disturbed(together: Sequence[PairSample], alone: Sequence[PairSample]) -> bool:
    """Whether pairs measured at the same time differ from the same pairs measured alone.

    Only pairs that are trusted both times count; the median of their ratios decides.
    """
    before = {sample.pair: sample.value for sample in together if sample.verdict is Verdict.TRUSTED}
    ratios = [
        before[sample.pair] / sample.value
        for sample in alone
        if sample.verdict is Verdict.TRUSTED and sample.pair in before
    ]
    return bool(ratios) and not 1 / (1 + ALIKE) <= median(ratios) <= 1 + ALIKE


def judged(
    topology: Topology,
    run: Run,
    parameters: Parameters,
    *,
    pressure_before: float | None = None,
    pressure_after: float | None = None,
    outside: CpuSet = EMPTY,
    known: LatencyMatrix | None = None,
) -> LatencyMatrix:
    """The matrix of all online CPUs that this run supports.

    Pressure is the share of time (0 to 1) that tasks waited for a CPU, None where the kernel does
    not say: only that before the run decides, since on a host of few CPUs the run itself makes
    others wait. `outside`: online CPUs that this process may not use. `known`: a matrix of the
    same CPUs that the run adds to. In a trusted run the values of unstable pairs are left out,
    like those that could not be measured: the median of their block stands for them. An unstable
    run shows all it has.
    """
    samples, astray = _at_home(topology, run.samples, parameters.home)
    steady = tuple(sample for sample in samples if sample.verdict is Verdict.TRUSTED)
    unstable = len(samples) - len(steady)
    if not samples:
        verdict = Verdict.PREDICTED if known is None else known.verdict
    elif _busy(pressure_before) or unstable > FEW * len(samples):
        verdict = Verdict.UNSTABLE
    else:
        verdict = Verdict.TRUSTED
    base = replace(predicted(topology) if known is None else known, method=parameters.method)
    matrix = with_samples(base, steady if verdict is Verdict.TRUSTED else samples, verdict=verdict)
    conditions = [
        *(base.conditions if not samples or known else ()),
        "virtual machine: latencies move with the hypervisor" if topology.virtual else "",
        _pressure(pressure_before, pressure_after),
        f"{unstable} of {_pairs(len(samples))} unstable" if unstable else "",
        f"{_pairs(astray)} left out: lines lay on a third NUMA node" if astray else "",
        f"pairs disturb each other: {run.lowered} at once" if run.lowered else "",
        f"{_pairs(run.beside)} measured in short bursts, beside guests" if run.beside else "",
        _fixed(parameters),
        f"{run.cut}: {len(run.samples)} of {_pairs(run.wanted)} measured" if run.cut else "",
        f"not measurable here, predicted: CPUs {outside}" if outside else "",
        _failures(run.failed),
        *(contradictions(matrix, topology) if verdict is Verdict.TRUSTED else ()),
    ]
    said = tuple(dict.fromkeys(filter(None, conditions)))
    return filled(replace(matrix, conditions=said), topology)


def _pairs(count: int) -> str:
    return f"{count} pair{'' if count == 1 else 's'}"


def _at_home(
    topology: Topology, samples: Iterable[PairSample], home: Home
) -> tuple[tuple[PairSample, ...], int]:
    """The samples whose lines were where they should be, and how many others there were.

    A node without memory lends its CPUs another one's, and a node that is not known is believed.
    """
    kept: list[PairSample] = []
    astray = 0
    bare = {node.node for node in topology.nodes if node.memory_mib == 0}
    for sample in samples:
        node = topology.place(sample.first if home is Home.FIRST else sample.second).node
        if sample.node in (None, node) or node in bare or len(topology.nodes) < 2:
            kept.append(sample)
        else:
            astray += 1
    return tuple(kept), astray


def _busy(pressure: float | None) -> bool:
    return pressure is not None and pressure >= BUSY


def _pressure(before: float | None, after: float | None) -> str:
    if _busy(before):
        return f"unstable: host busy (pressure {_per_cent(before)})"
    return f"host busy at the end (pressure {_per_cent(after)})" if _busy(after) else ""


def _per_cent(share: float | None) -> str:
    return f"{100 * (share or 0):.0f} %"


def _fixed(parameters: Parameters) -> str:
    if not parameters.fixed:
        return ""
    return f"fixed batches: {parameters.batches_max} of {parameters.trips} round trips a pair"


def _failures(failed: tuple[Failed, ...]) -> str:
    if not failed:
        return ""
    reasons = Counter(failure.reason for failure in failed)
    named = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    first, second = failed[0].pair
    return f"not measured: {named}, the first is {first}-{second}"
