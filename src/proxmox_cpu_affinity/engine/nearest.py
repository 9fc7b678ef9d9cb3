"""What would fit instead, in words: the nearest to what a guest asked for and cannot have.

Pure. Out of scope: why it does not fit (policy, place, nodes).
"""

from collections.abc import Sequence

from proxmox_cpu_affinity.engine.facts import Host, Occupancy
from proxmox_cpu_affinity.engine.report import named
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import Policy, Request
from proxmox_cpu_affinity.model.placement import Fallback, Placement, Strategy


def vcpus_would_fit(count: int, kind: str = "") -> str:
    """`3 dedicated vCPUs would fit`."""
    return f"{count} {kind}{' ' if kind else ''}vCPU{'' if count == 1 else 's'} would fit"


def dedicated(vcpus: int, left: int, *, shared: bool) -> str:
    """For a dedicated guest of more vCPUs than CPUs are left. `shared`: some CPU may be shared."""
    whole = "it would fit shared" if not left else f"or all {vcpus} shared"
    words = [vcpus_would_fit(left, "dedicated")] if left else []
    words += [whole] if shared else []
    return ", ".join(words) or "nothing fits beside the dedicated guests that are there"


def of_kind(left: int, policy: Policy) -> str:
    """For a guest of more vCPUs than CPUs of the kind of core that it wants; `left`: those that are
    no dedicated guest's."""
    return f"{vcpus_would_fit(left)} on {policy} cores"


def unreserved(host: Host, request: Request) -> str:
    """Where no CPU may be used: what could be given back, or else who could use what is there."""
    rules, words = host.rules, list[str]()
    by_turns = rules.strategy is Strategy.ROUND_ROBIN
    alone = request.policy is Policy.DEDICATED and not by_turns
    back = (rules.reserved & host.allowed) - host.topology.isolated
    few = CpuSet.of(list(back)[: request.vcpus])
    if back:
        shares = len(few) < request.vcpus
        refused = shares and (by_turns or (alone and rules.dedicated_fallback is Fallback.REFUSE))
        what = "it would fit"
        if refused:
            what = vcpus_would_fit(len(few), "dedicated" if alone else "")
        share = " (its vCPUs share)" if shares and not refused else ""
        words.append(f"{what} with {named(few)} not reserved{share}")
    isolated = int(host.is_isolated.sum())
    if isolated and not by_turns:
        words.append(f"{vcpus_would_fit(isolated, 'dedicated')} on isolated CPUs")
    return ", or ".join(words)


def without_one(host: Host, occupancy: Occupancy, vcpus: int) -> str:
    """Where all CPUs are dedicated guests': the smallest of them that would have to go, as far as
    one is enough, else the largest."""
    found = [p for p in occupancy.placements if p.exclusive and p.home.overlaps(host.usable)]
    if not found:
        return ""

    def room(placement: Placement) -> int:
        return len(placement.home & host.usable)

    enough = [placement for placement in found if room(placement) >= vcpus]
    least = min(enough, key=lambda p: (room(p), p.vmid)) if enough else max(found, key=room)
    return f"it would fit without VM {least.vmid}"


def guest_nodes(count: int, room: Sequence[int]) -> str:
    """For a guest with so many nodes of which some fits on no host node; `room`: CPUs that it may
    have on each of these."""
    for vcpus in range(max(room, default=0), 0, -1):
        if sum(cpus // vcpus for cpus in room) >= count:
            size = "1 vCPU" if vcpus == 1 else f"{vcpus} vCPUs"
            one = f"a guest node of {size}"
            return f"{one if count == 1 else f'{count} guest nodes of {size} each'} would fit"
    return ""
