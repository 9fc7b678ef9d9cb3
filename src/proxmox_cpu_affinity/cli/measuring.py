"""Measures this host for a command, showing how far it is: a growing matrix, or a line.

Out of scope: what becomes of the result (latencies, commands.cpuinfo).
"""

from dataclasses import dataclass

from proxmox_cpu_affinity.cli import latencies, ui
from proxmox_cpu_affinity.cli.command import CPULIST_HINT
from proxmox_cpu_affinity.cli.hosts import topology_here
from proxmox_cpu_affinity.cli.words import cpus_named
from proxmox_cpu_affinity.latency import probe
from proxmox_cpu_affinity.latency.program import find_program
from proxmox_cpu_affinity.latency.protocol import Parameters
from proxmox_cpu_affinity.linux import workers
from proxmox_cpu_affinity.linux.threads import own_cpus
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import AffinityError, MeasureError, UsageError
from proxmox_cpu_affinity.model.latency import LatencyMatrix, PairSample, restricted
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.pve.guests import NodeGuests
from proxmox_cpu_affinity.service.measuring import used_by


@dataclass(frozen=True, slots=True)
class Measured:
    """A host's latencies, and what became of each pair."""

    topology: Topology
    matrix: LatencyMatrix
    outcomes: tuple[probe.Progress, ...] = ()


def measured(
    tree: Tree, parameters: Parameters, *, cpus: CpuSet | None, share: float, quiet: bool
) -> Measured:
    """Measure every pair that this process may use, or those of `cpus` alone.

    MeasureError where none could be; UsageError where there is no host, and for CPUs that cannot be
    measured here.
    """
    topology = topology_here(tree, hint="show a saved one: --from FILE")
    mine = own_cpus()
    if cpus is not None:
        _check(cpus, topology, mine)
        mine &= cpus
    outcomes: list[probe.Progress] = []
    found: dict[latencies.Pair, PairSample | None] = {}
    used = _used_by_guests(tree)
    with ui.progress(f"measuring pair ({parameters.method})", quiet=quiet) as shown:
        rows = tuple(topology.online & mine)

        def progress(now: probe.Progress) -> None:
            outcomes.append(now)
            sample = now.outcome if isinstance(now.outcome, PairSample) else None
            found[now.outcome.pair] = sample
            shown.show(now.done, now.total, lambda: latencies.growing(rows, found))

        matrix = workers.run(
            probe.measure_host(
                topology,
                tree=tree,
                program=find_program(),
                parameters=parameters,
                manners=probe.Manners(share, lambda: used),
                usable=mine,
                on_progress=progress,
            )
        )
    if len(matrix.cpus) > 1 and matrix.share_measured() == 0:
        raise MeasureError(
            "no pair of CPUs could be measured: " + "; ".join(matrix.conditions),
            hint="a host that is too busy? try again",
        )
    kept = matrix if cpus is None else restricted(matrix, cpus)
    return Measured(topology, kept, tuple(outcomes))


def _used_by_guests(tree: Tree) -> CpuSet:
    """CPUs that the guests of this node use, if it is one: a command is to disturb none either."""
    try:
        return used_by(tree, NodeGuests(tree).processes(), ())
    except AffinityError:
        return EMPTY


def _check(cpus: CpuSet, topology: Topology, mine: CpuSet) -> None:
    for wrong, why in (
        (cpus - topology.online, "not online"),
        (cpus - mine, "not allowed to this process"),
    ):
        if wrong:
            raise UsageError(
                f"--cpus {cpus}: {cpus_named(wrong)} {'are' if len(wrong) > 1 else 'is'} {why}",
                hint=f"there are {cpus_named(topology.online & mine)}",
            )
    if len(cpus) < 2:
        raise UsageError(f"--cpus {cpus}: a pair needs two CPUs", hint=CPULIST_HINT)
