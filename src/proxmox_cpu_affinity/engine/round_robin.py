"""Strategy round-robin: the selection function of the Go project, to the letter.

A counter moves on by one, modulo the number of CPUs, before each new selection; the set is that
CPU and its n - 1 nearest by latency. A guest already selected with the same n keeps its set.
Occupancy plays no part. A guest of more vCPUs than CPUs is refused. The CPUs it selects among are
the usable ones: what is reserved was not known to that project.
"""

from dataclasses import replace

from proxmox_cpu_affinity.engine import nearest
from proxmox_cpu_affinity.engine.facts import Host, Turn
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import Request
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.latency import LatencyMatrix, restricted
from proxmox_cpu_affinity.model.placement import Placement


def select(matrix: LatencyMatrix, counter: int, vcpus: int) -> tuple[tuple[Cpu, ...], int]:
    """The next set, starting CPU first, and the counter behind it. O(CPUs log CPUs)."""
    counter = (counter + 1) % len(matrix.cpus)
    start = matrix.cpus[counter]
    nearest = tuple(cpu for cpu, _ in matrix.ranking(start)[: vcpus - 1])
    return (start, *nearest), counter


def among(host: Host) -> LatencyMatrix:
    """The latencies between the CPUs that are selected among. O(CPUs squared) where some are not
    usable: ask once for many placements."""
    whole = host.usable == host.topology.online
    return host.matrix if whole else restricted(host.matrix, host.usable)


def place(
    host: Host, turn: Turn, request: Request, *, matrix: LatencyMatrix | None = None
) -> tuple[Decision, Turn]:
    """The Go project's answer as a placement. UnplaceableError for more vCPUs than CPUs.

    `matrix` is what `among` says of this host, if it is known already.
    """
    if request.vcpus > len(host.usable):
        fits = nearest.vcpus_would_fit(len(host.usable))
        raise UnplaceableError(
            f"{request.vcpus} vCPUs are more than the {len(host.usable)} usable CPUs; "
            f"strategy round-robin leaves such a guest alone; {fits}",
            hint="PCA_STRATEGY=balanced gives it all CPUs",
        )
    old = request.previous
    if old is not None and len(old) == request.vcpus and old <= host.usable:
        return Decision(
            _placement(request, tuple(old)), (), "selected before: it keeps its set"
        ), turn
    chosen, counter = select(matrix or among(host), turn.counter, request.vcpus)
    reason = f"CPU {chosen[0]} is next in turn, with its nearest neighbours"
    return Decision(_placement(request, chosen), (), reason), replace(turn, counter=counter)


def _placement(request: Request, chosen: tuple[Cpu, ...]) -> Placement:
    home = CpuSet.of(chosen)
    return Placement(
        vmid=request.vmid,
        home=home,
        applied=home,
        order=tuple(home),
        start=chosen[0],
        parts=(home,),
        warnings=request.warnings,
    )
