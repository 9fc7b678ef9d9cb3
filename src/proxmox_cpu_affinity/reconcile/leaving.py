"""How a guest leaves: it ended, is no longer to be managed, or was let go by hand."""

from proxmox_cpu_affinity.model.cpuset import EMPTY
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.reconcile.actions import Action, Enclose, Level, Save, Tell, Undo, named
from proxmox_cpu_affinity.reconcile.state import Result, State, Tracked


def ended(state: State, process: GuestProcess) -> Result:
    if state.released_runs.get(process.vmid) == process:
        return state.without_released(process.vmid), (Save(),)
    tracked = state.tracked.get(process.vmid)
    if tracked is None or tracked.process != process:
        return state, ()
    text = f"stopped: {named(tracked.placement.home)} free again"
    return state.without_tracked(process.vmid), (Tell(Level.INFO, process.vmid, text), Save())


def let_go_unmanaged(state: State) -> Result:
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
