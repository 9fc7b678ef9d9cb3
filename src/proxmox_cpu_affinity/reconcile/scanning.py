"""The truth, read again and again: what a scan found, compared with what the state says."""

from dataclasses import replace

from proxmox_cpu_affinity.engine.report import named
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Held
from proxmox_cpu_affinity.reconcile.actions import (
    Action,
    Confine,
    Inspect,
    Level,
    Save,
    Tell,
    Watch,
)
from proxmox_cpu_affinity.reconcile.events import Inspected, Scanned
from proxmox_cpu_affinity.reconcile.leaving import ended, let_go_unmanaged, still_leaving, undone
from proxmox_cpu_affinity.reconcile.placing import adopted, housed, moved, refitted
from proxmox_cpu_affinity.reconcile.state import RESERVED_FOR, Result, State, Tracked


def scanned(state: State, event: Scanned) -> Result:
    """Make the actual equal the desired: the one place that does not depend on hints."""
    # What was heard of while the scan read is newer than what the scan says.
    newer = {v for v, t in state.tracked.items() if t.since > event.time}
    ours = {v: c for v, c in state.configs.items() if v in newer}
    configs = {**state.configs, **event.configs, **ours}
    state = replace(state, configs=configs, outside=event.outside)
    state, actions = let_go_unmanaged(_released_seen(state, event))
    for vmid, tracked in tuple(state.tracked.items()):
        if vmid in newer:
            continue
        if tracked.process is not None and event.processes.get(vmid) != tracked.process:
            state, more = ended(state, tracked.process)
            actions += more
        elif tracked.process is None and vmid not in event.processes:
            state, more = _expired(state, vmid, event.time)
            actions += more
    state, more = still_leaving(state, event.processes)
    actions += more
    state, more = _gone_forgotten(state, event)
    actions += more
    unknown: tuple[GuestProcess, ...] = ()
    for vmid, process in sorted(event.processes.items()):
        if vmid in newer or vmid in state.released or not state.managed(vmid):
            continue
        if vmid in state.tracked:
            state, more = seen(state, process, event.time)
            actions += more
        else:
            unknown += (process,)
    if unknown:
        return state, (*actions, Inspect(unknown))
    return replace(state, adopt=False), actions


def _released_seen(state: State, event: Scanned) -> State:
    """Let go until the next start: another process is one, and none is the end of the run."""
    seen = {v: p for v, p in event.processes.items() if v in state.released}
    runs = {v: p for v, p in seen.items() if state.released_runs.get(v, p) == p}
    return replace(state, released=frozenset(runs), released_runs=runs)


def _gone_forgotten(state: State, event: Scanned) -> Result:
    """Without what speaks of guests that this node has no more.

    A migration's target is tracked while its file still lies in the source node's folder.
    """
    there = event.configs.keys() | event.unreadable | state.tracked.keys()
    places = {v: cpus for v, cpus in state.last_places.items() if v in there}
    actions = (Save(),) if len(places) != len(state.last_places) else ()
    state = replace(
        state,
        configs={v: c for v, c in state.configs.items() if v in there},
        last_places=places,
        refused={v: t for v, t in state.refused.items() if v in event.processes.keys() & there},
    )
    return state, actions


def _expired(state: State, vmid: Vmid, now: float) -> Result:
    """An announced start of which no process comes; of its scope nobody is held any more."""
    tracked = state.tracked[vmid]
    if now - tracked.since < RESERVED_FOR:
        return state, ()
    home = named(tracked.placement.home)
    text = f"announced {RESERVED_FOR:.0f} s ago and not started: {home} free again"
    told = Tell(Level.WARN, vmid, text)
    return state.without_tracked(vmid), (told, *undone(state, tracked), Save())


def seen(state: State, process: GuestProcess, now: float) -> Result:
    """A guest with a placement runs: confine it, at every scan, for masks drift."""
    tracked = state.tracked[process.vmid]
    if tracked.process == process:
        config = state.configs.get(process.vmid)
        if process.vmid in state.astray():
            return moved(state, process.vmid, tracked)
        if config is not None and config.policy is not tracked.policy:
            return moved(state, process.vmid, tracked)
        if config is not None and _plugged(config, tracked):
            return refitted(state, process.vmid, tracked)
        return state, (Confine(process, tracked.placement),)
    tracked = replace(tracked, process=process, since=now, held=tracked.held or Held.LATER)
    # Saved first: a placement that was applied must survive the end of the service.
    actions = (Watch(process), Save(), Confine(process, tracked.placement))
    return state.with_tracked(process.vmid, tracked), actions


def _plugged(config: GuestConfig, tracked: Tracked) -> bool:
    """Whether a vCPU was plugged into a running guest, or pulled. Without `hotplug: cpu` another
    size takes effect at the next start (qemu-server, vmconfig_hotplug_pending)."""
    return config.hotplug_cpu and config.vcpu_count != len(tracked.placement.order)


def inspected(state: State, event: Inspected) -> Result:
    """Guests found running: adopt what the kernel says after a loss of state, place the rest."""
    homeless = tuple(
        (process, threads)
        for process, threads in event.guests
        # No thread: it ended after the scan had seen it.
        if threads
        and process.vmid not in state.tracked
        and process.vmid not in state.released
        and state.managed(process.vmid)
    )
    actions: tuple[Action, ...] = ()
    if state.adopt:
        state, actions = adopted(state, homeless, event.time)
    rest = tuple(process for process, _ in homeless if process.vmid not in state.tracked)
    state, more = housed(state, rest, event.time)
    return replace(state, adopt=False), actions + more
