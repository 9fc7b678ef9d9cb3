"""What acting came to: the answers to hooks, and to placing guests anew. Pure, like views."""

from dataclasses import replace

from proxmox_cpu_affinity.engine.rebalance import Move
from proxmox_cpu_affinity.engine.report import named
from proxmox_cpu_affinity.formats import wire
from proxmox_cpu_affinity.model.guest import Exclusion
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Confined, Outcome
from proxmox_cpu_affinity.reconcile import State
from proxmox_cpu_affinity.reconcile.rebalancing import words
from proxmox_cpu_affinity.render import lines
from proxmox_cpu_affinity.service.views import UNREAD, outcome


def hook_started(state: State, vmid: Vmid, *, announced: bool) -> wire.HookAnswer:
    """What pre-start (announced) and post-start say."""
    tracked = state.tracked.get(vmid)
    if tracked is None:
        return wire.HookAnswer(vmid, _left_alone(state, vmid))
    host, width = state.host.topology, state.reporter().width(tracked.placement)
    if announced or tracked.process is None:
        line = lines.reserved(host, tracked.placement, width)
    else:
        line = lines.running(host, tracked, width)
    return wire.HookAnswer(vmid, line, str(tracked.placement.home), outcome(tracked))


def _left_alone(state: State, vmid: Vmid) -> str:
    config = state.configs.get(vmid)
    if config is None:
        return f"left alone: {UNREAD}"
    reason = config.exclusion(state.manage)
    if reason is not None:
        return f"left alone: {lines.excluded(reason)}"
    if vmid in state.refused:
        return f"not placed: {state.refused[vmid]}"
    return "left alone: see the log of the service for the reason"


def hook_stopped(state: State, vmid: Vmid) -> wire.HookAnswer:
    """What post-stop says: which CPUs are free, nothing for a guest that had none."""
    last = state.last_places.get(vmid)
    if vmid in state.tracked or last is None or not state.managed(vmid):
        return wire.HookAnswer(vmid, "")
    verb = "is" if len(last) == 1 else "are"
    return wire.HookAnswer(vmid, f"{named(last)} {verb} free again")


def let_go(vmid: Vmid, freed: Confined | None, *, before: str, leaving: bool) -> wire.ReassignRow:
    """What undoing came to, by what was read back; None: there was nothing to undo, or (`leaving`)
    it could not be begun."""
    if freed is None and leaving:
        return wire.ReassignRow(vmid, "failed", "not let go yet: each scan tries again")
    if freed is None:
        return wire.ReassignRow(vmid, "skipped", "nothing to undo")
    full = freed.outcome is Outcome.FULL
    notes = "let go until its next start" if full else lines.freed(freed)
    return wire.ReassignRow(
        vmid,
        "success" if full else "failed",
        notes,
        before=before,
        changed=bool(before),
        told=lines.freed(freed),
    )


def reassigned(
    state: State, vmid: Vmid, *, running: bool, before: str, freed: Confined | None
) -> wire.ReassignRow:
    """What placing a running guest anew came to; `freed` is of one that was let go instead."""
    tracked = state.tracked.get(vmid)
    cpus = "" if tracked is None else str(tracked.placement.home)
    status, notes = _reassigned(state, vmid, running=running)
    if freed is not None:
        told = lines.freed(freed)
        if freed.outcome is not Outcome.FULL:
            status, notes = "failed", told
    elif tracked is not None and tracked.running:
        told = lines.running(state.host.topology, tracked)
    else:
        told = state.refused.get(vmid, "") if running else ""
    return wire.ReassignRow(vmid, status, notes, cpus, before, cpus != before, told)


def eased(state: State, row: wire.ReassignRow, move: Move) -> wire.ReassignRow:
    """The row of a guest for which a move pays after all were placed anew: made, or advised."""
    after = reassigned(state, move.after.vmid, running=True, before=row.before, freed=None)
    return replace(after, notes="; ".join(filter(None, (after.notes, words(state, move)))))


def _reassigned(state: State, vmid: Vmid, *, running: bool) -> tuple[str, str]:
    """Status and notes."""
    tracked = state.tracked.get(vmid)
    config = state.configs.get(vmid)
    reason = None if config is None else config.exclusion(state.manage)
    if reason is not None:
        disabled = reason is Exclusion.NOT_CHOSEN
        notes = "proxmox-cpu-affinity hook not enabled" if disabled else lines.excluded(reason)
        return "skipped", notes
    if tracked is None and running:
        return "failed", state.refused.get(vmid, "the next scan will look again")
    if tracked is None or tracked.process is None:
        return "skipped", "VM is not running"
    if tracked.confined is not None and tracked.confined.outcome is Outcome.FULL:
        return "success", ""
    return "failed", lines.running(state.host.topology, tracked)
