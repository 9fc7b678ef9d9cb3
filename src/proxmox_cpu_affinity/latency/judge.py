"""PURE: what a run of measurements is worth, as a matrix with a verdict and conditions in words.

Out of scope: the verdict on one pair (protocol.py) and which of two matrices to keep (cache.py).
"""

from collections import Counter
from dataclasses import dataclass, replace

from proxmox_cpu_affinity.latency.predict import filled, predicted
from proxmox_cpu_affinity.latency.protocol import Failed, Parameters
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.latency import LatencyMatrix, PairSample, Verdict, with_samples
from proxmox_cpu_affinity.model.topology import Topology

BUSY = 0.2
"""Share of time in which some task waited for a CPU, from which on a host is busy."""

FEW = 0.1
"""Share of unstable pairs up to which the others still make a run."""


@dataclass(frozen=True, slots=True)
class Run:
    """What measuring a list of pairs gave, also where it ended early."""

    wanted: int  # pairs asked for
    samples: tuple[PairSample, ...] = ()
    failed: tuple[Failed, ...] = ()
    cut: str = ""  # why it ended before the last pair; empty: it did not


def judged(
    topology: Topology,
    run: Run,
    parameters: Parameters,
    *,
    pressure_before: float | None = None,
    pressure_after: float | None = None,
    outside: CpuSet = EMPTY,
) -> LatencyMatrix:
    """The matrix of all online CPUs that this run supports.

    Pressure is the share of time (0 to 1) that tasks waited for a CPU, None where the kernel does
    not say: only that before the run decides, since on a host of few CPUs the run itself makes
    others wait. `outside`: online CPUs that this process may not use. In a trusted run the values
    of unstable pairs are left out, like those that could not be measured: the median of their
    level stands for them. An unstable run shows all it has.
    """
    steady = tuple(sample for sample in run.samples if sample.verdict is Verdict.TRUSTED)
    unstable = len(run.samples) - len(steady)
    if not run.samples:
        verdict = Verdict.PREDICTED
    elif _busy(pressure_before) or unstable > FEW * len(run.samples):
        verdict = Verdict.UNSTABLE
    else:
        verdict = Verdict.TRUSTED
    base = predicted(topology)
    conditions = [
        *(() if run.samples else base.conditions),
        "virtual machine: latencies move with the hypervisor" if topology.virtual else "",
        _pressure(pressure_before, pressure_after),
        f"{unstable} of {len(run.samples)} pairs unstable" if unstable else "",
        _fixed(parameters),
        f"{run.cut}: {len(run.samples)} of {run.wanted} pairs measured" if run.cut else "",
        f"not measurable here, predicted: CPUs {outside}" if outside else "",
        _failures(run.failed),
    ]
    matrix = with_samples(
        replace(base, conditions=()),
        steady if verdict is Verdict.TRUSTED else run.samples,
        verdict=verdict,
        conditions=tuple(filter(None, conditions)),
    )
    return filled(matrix, topology)


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
