"""PCA_WIDEN in the brain: whether a guest that floats waits for CPUs, without flapping.

It is given its nodes when it stayed above one threshold, and comes back to its cache groups when
it stayed below the other; in between nothing changes. A guest that waits again soon after it came
back must be calm for twice as long the next time. Out of scope: which CPUs that means
(engine.width), and who floats (reconcile.widths).
"""

from dataclasses import dataclass, replace

from proxmox_cpu_affinity.model.placement import Widening

LONGEST = 64
"""How often the stay of the settings a guest must be calm at most, however often it came and
went: about an hour."""


@dataclass(frozen=True, slots=True)
class Strain:
    """How a guest stands. Times are those of events."""

    wide: bool = False  # it has its nodes
    since: float | None = None  # when it first was beyond what would change that; None: it is not
    left: float | None = None  # when it last came back to its cache groups
    calm: float = 0.0  # seconds for which it must be calm before it does

    @property
    def idle(self) -> bool:
        """Nothing is to be remembered."""
        return self == Strain()


def felt(strain: Strain, share: float | None, now: float, rules: Widening) -> Strain:
    """After another look: `share` of the time it waited, None where that is not known."""
    strain = _forgiven(strain, now)
    beyond = share is not None and (share < rules.below if strain.wide else share > rules.above)
    if not beyond:
        return replace(strain, since=None)
    since = now if strain.since is None else strain.since
    if now - since < (strain.calm if strain.wide else rules.stay):
        return replace(strain, since=since)
    if strain.wide:
        return replace(strain, wide=False, since=None, left=now)
    again = strain.left is not None
    calm = min(2 * strain.calm, LONGEST * rules.stay) if again else rules.stay
    return Strain(wide=True, calm=calm)


def _forgiven(strain: Strain, now: float) -> Strain:
    """Who did well in its cache groups for long enough starts anew."""
    if strain.wide or strain.left is None or strain.since is not None:
        return strain
    return Strain() if now - strain.left >= 2 * strain.calm else strain
