"""What a step of the brain is told as: events of guests, from the states before and after it.

Pure. Every line of the log about a guest is in one of them; what has no line gets its own words.
"""

from collections.abc import Iterator, Sequence

from proxmox_cpu_affinity.engine.report import named
from proxmox_cpu_affinity.formats.wire_events import GuestEvent, What
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.reconcile import State, Tracked
from proxmox_cpu_affinity.reconcile.actions import Action, Level, Tell
from proxmox_cpu_affinity.service.views import outcome


def happened(
    before: State, after: State, actions: Sequence[Action], *, time: str
) -> Iterator[GuestEvent]:
    """One event for each guest of which something changed or was said, by VMID."""
    told: dict[Vmid, list[Tell]] = {}
    for action in actions:
        if isinstance(action, Tell) and action.vmid is not None:
            told.setdefault(action.vmid, []).append(action)
    vmids = before.tracked.keys() | after.tracked.keys() | told.keys()
    for vmid in sorted(vmids):
        lines = told.get(vmid, [])
        what = _what(before, after, vmid)
        if what is None and not lines:
            continue
        tracked = after.tracked.get(vmid)
        text = "; ".join(tell.text for tell in lines)
        warns = any(tell.level is Level.WARN for tell in lines)
        yield GuestEvent(
            time=time,
            vmid=vmid,
            what=what or What.NOTE,
            text=text or _words(before, after, vmid),
            level=Level.WARN if warns else Level.INFO,
            cpus="" if tracked is None else str(tracked.placement.home),
            outcome=outcome(tracked),
        )


def _what(before: State, after: State, vmid: Vmid) -> What | None:
    old, new = before.tracked.get(vmid), after.tracked.get(vmid)
    if new is None:
        return _left(before, after, vmid, was=old is not None)
    if old is None:
        return What.PLACED
    return _changed(old, new)


def _left(before: State, after: State, vmid: Vmid, *, was: bool) -> What | None:
    if after.refused.get(vmid) not in (None, before.refused.get(vmid)):
        return What.REFUSED
    if not was:
        return None
    held = vmid in after.released or after.excluded(vmid)
    return What.RELEASED if held else What.GONE


def _changed(old: Tracked, new: Tracked) -> What | None:
    if new.placement.home != old.placement.home and old.running:
        return What.MOVED
    if new.decision is not old.decision:
        return What.PLACED
    if new.drift > old.drift:
        return What.REPAIRED
    if new.confined is not None and (
        old.confined is None or old.confined.outcome is not new.confined.outcome
    ):
        return What.CONFINED
    return None


def _words(before: State, after: State, vmid: Vmid) -> str:
    """What to say of a change that the log has no line of."""
    tracked = after.tracked.get(vmid) or before.tracked[vmid]
    there = "on" if vmid in after.tracked else "no longer on"
    return f"{there} {named(tracked.placement.home)}"
