"""How a guest leaves: it ended, is no longer to be managed, or was let go by hand.

Letting go may fail, as when systemd does not answer: each scan tries again until it is read back.
"""

from collections.abc import Mapping
from dataclasses import replace

from proxmox_cpu_affinity.engine.report import named
from proxmox_cpu_affinity.model.cpuset import EMPTY
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Outcome
from proxmox_cpu_affinity.reconcile.actions import Action, Enclose, Level, Save, Tell, Undo
from proxmox_cpu_affinity.reconcile.events import SetFree
from proxmox_cpu_affinity.reconcile.state import Leaving, Result, State, Tracked
from proxmox_cpu_affinity.reconcile.telling import told_free


def ended(state: State, process: GuestProcess) -> Result:
    """A run is over: its CPUs are free, and nothing is to be let go any more. Of another run than
    the one that is known it says nothing."""
    if _is_leaving(state, process):
        state = state.without_leaving(process.vmid)
    if state.released_runs.get(process.vmid) == process:
        return state.without_released(process.vmid), (Save(),)
    tracked = state.tracked.get(process.vmid)
    if tracked is None or tracked.process != process:
        return state, ()
    text = f"stopped: {named(tracked.placement.home)} free again"
    return state.without_tracked(process.vmid), (Tell(Level.INFO, process.vmid, text), Save())


def let_go_unmanaged(state: State) -> Result:
    """Let go of the guests that are known not to be ours (any more)."""
    actions: tuple[Action, ...] = ()
    for vmid, tracked in sorted(state.tracked.items()):
        if state.excluded(vmid):
            told = Tell(Level.INFO, vmid, "not to be managed any more")
            actions += (told, *undone(state, tracked))
            state = state.without_tracked(vmid)
    return state, (*actions, Save()) if actions else ()


def undone(state: State, tracked: Tracked) -> tuple[Action, ...]:
    """Give a guest's threads back what they had; those of which nobody knows get all CPUs."""
    if tracked.process is None and tracked.held is not None:
        return (Enclose(tracked.placement.vmid, EMPTY),)  # only its scope is known, and held
    if tracked.process is None:
        return ()
    return (Undo(tracked.process, tracked.found or (), state.host.topology.online),)


def followed(state: State, actions: tuple[Action, ...]) -> State:
    """With whom these actions let go, until that is read back. A run that is taken up again gets
    to know what its masks were at first; when there is another, the earlier one is over."""
    begun = {
        action.process.vmid: Leaving(action.process, action.found)
        for action in actions
        if isinstance(action, Undo) and not _is_leaving(state, action.process)
    }
    for vmid, leaving in {**state.leaving, **begun}.items():
        tracked = state.tracked.get(vmid)
        if tracked is not None and tracked.process == leaving.process:
            state = state.without_leaving(vmid)
            state = state.with_tracked(vmid, replace(tracked, found=tracked.found or leaving.found))
        elif tracked is not None and tracked.running:
            state = state.without_leaving(vmid)
        elif vmid in begun:
            state = replace(state, leaving={**state.leaving, vmid: leaving})
    return state


def _is_leaving(state: State, process: GuestProcess) -> bool:
    known = state.leaving.get(process.vmid)
    return known is not None and known.process == process


def set_free(state: State, event: SetFree) -> Result:
    """What was read back when a guest was let go; a failure is told once."""
    confined = event.confined
    vmid = confined.process.vmid
    if not _is_leaving(state, confined.process):
        return state, ()
    known = state.leaving[vmid]
    if confined.outcome is Outcome.FULL:
        return state.without_leaving(vmid), (told_free(event), Save())
    if known.told:
        return state, ()
    told = {vmid: replace(known, told=True)}
    return replace(state, leaving={**state.leaving, **told}), (told_free(event),)


def still_leaving(state: State, processes: Mapping[Vmid, GuestProcess]) -> Result:
    """Try again with those who run; the others have left."""
    state = replace(
        state,
        leaving={v: one for v, one in state.leaving.items() if processes.get(v) == one.process},
    )
    return state, once_more(state)


def once_more(state: State) -> tuple[Undo, ...]:
    """What lets go of those that could not be let go until now."""
    free = state.host.topology.online
    return tuple(Undo(one.process, one.found, free) for one in state.leaving.values())
