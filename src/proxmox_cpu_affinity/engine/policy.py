"""Which CPUs a guest may have at all, by its policy.

shared, pinned: the usable ones that are no dedicated guest's. dedicated: those that nobody holds
and on whose siblings nobody is; CPUs isolated by the kernel are theirs alone. performance and
efficiency: cores of the kind where the host has enough of them, else those first.
"""

from dataclasses import dataclass

import numpy as np

from proxmox_cpu_affinity.engine import nearest
from proxmox_cpu_affinity.engine.facts import Bools, Host
from proxmox_cpu_affinity.engine.occupancy import Load
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import Policy, Request
from proxmox_cpu_affinity.model.placement import Fallback


@dataclass(frozen=True, slots=True, eq=False)
class Admission:
    """The CPUs a guest may have, and the policy it has in fact."""

    may_use: Bools
    policy: Policy
    warnings: tuple[str, ...] = ()

    @property
    def exclusive(self) -> bool:
        return self.policy is Policy.DEDICATED


def admission(host: Host, load: Load, request: Request) -> Admission:
    """What a request may have beside the others. UnplaceableError for a dedicated guest that does
    not fit, where the rules have no fallback for it."""
    usable = host.is_usable & ~load.exclusive
    match request.policy:
        case Policy.DEDICATED:
            return _dedicated(host, load, request, usable)
        case Policy.PERFORMANCE | Policy.EFFICIENCY:
            return _of_kind(host, request, usable)
        case _:
            return Admission(usable, request.policy)


def alone(host: Host, load: Load) -> Bools:
    """CPUs on which, and on whose siblings, no guest is."""
    beside = np.append(load.held, np.False_)[host.siblings].any(axis=1)
    free: Bools = (host.is_usable | host.is_isolated) & ~load.exclusive & ~load.held & ~beside
    return free


def _dedicated(host: Host, load: Load, request: Request, usable: Bools) -> Admission:
    free = alone(host, load)
    left = int(free.sum())
    if left >= request.vcpus:
        return Admission(free, Policy.DEDICATED)
    wanted = "1 CPU" if request.vcpus == 1 else f"{request.vcpus} CPUs"
    reason = f"{wanted} of its own wanted, {left} left"
    if host.rules.dedicated_fallback is Fallback.REFUSE:
        fits = nearest.dedicated(request.vcpus, left, shared=bool(usable.any()))
        raise UnplaceableError(f"{reason}; {fits}", hint="see PCA_DEDICATED_FALLBACK")
    return Admission(usable, Policy.SHARED, (f"{reason}: shared",))


def _of_kind(host: Host, request: Request, usable: Bools) -> Admission:
    wanted = host.efficiency == (request.policy is Policy.EFFICIENCY)
    there, left = int((wanted & host.is_usable).sum()), int((wanted & usable).sum())
    if there >= request.vcpus and left:
        return Admission(usable & wanted, request.policy)
    if not there:
        return Admission(usable, request.policy, (f"no {request.policy} cores here: any",))
    if not left:
        text = f"all {request.policy} cores are dedicated guests': any"
        return Admission(usable, request.policy, (text,))
    fits = nearest.of_kind(left, request.policy)
    warning = f"{request.vcpus} vCPUs and {there} CPUs of {request.policy} cores: others too"
    return Admission(usable, request.policy, (f"{warning}; {fits}",))
