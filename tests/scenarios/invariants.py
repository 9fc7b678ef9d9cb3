"""What must hold of the brain and of a node through any history."""

from dataclasses import fields, replace

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.reconcile import State
from proxmox_cpu_affinity.reconcile.actions import Action, Confine, Inspect, Undo, Watch
from proxmox_cpu_affinity.reconcile.events import Event, Scanned
from proxmox_cpu_affinity.reconcile.state import RESERVED_FOR
from tests.scenarios.story import Story
from tests.scenarios.world import mask_of


def check_step(before: State, event: Event, after: State, actions: tuple[Action, ...]) -> None:
    _check_consistent(after)
    _check_actions(before, after, actions)
    if isinstance(event, Scanned):
        _check_scanned(before, event, after)


def _check_consistent(state: State) -> None:
    online = state.host.topology.online
    for vmid, tracked in state.tracked.items():
        placement = tracked.placement
        assert placement.vmid == vmid
        assert placement.home
        assert placement.home <= online
        assert placement.start in placement.home
        assert CpuSet.of(placement.order) == placement.home
        assert len(placement.part_of) in (0, len(placement.order))
        assert all(cpu in placement.mask_of(vcpu) for vcpu, cpu in enumerate(placement.order))
        assert tracked.process is None or tracked.process.vmid == vmid
        assert tracked.confined is None or tracked.confined.process == tracked.process
        assert not state.excluded(vmid)
    assert not state.released & state.tracked.keys()
    assert not state.refused.keys() & state.tracked.keys()
    assert all(
        state.tracked.get(vmid) is None or state.tracked[vmid].process != leaving.process
        for vmid, leaving in state.leaving.items()
    )
    assert state.released_runs.keys() <= state.released
    assert state.turn.last_start is None or state.turn.last_start >= 0


def _check_actions(before: State, after: State, actions: tuple[Action, ...]) -> None:
    for action in actions:
        if isinstance(action, Confine):
            vmid = action.process.vmid
            assert after.tracked[vmid].process == action.process
            assert after.tracked[vmid].placement == action.placement
            assert after.managed(vmid) or vmid not in after.configs
        elif isinstance(action, Watch):
            assert after.tracked[action.process.vmid].process == action.process
        elif isinstance(action, Undo):
            vmid = action.process.vmid
            held = before.leaving.get(vmid) or before.tracked[vmid]
            assert held.process == action.process
            assert after.tracked.get(vmid) is None
            assert action.found == (held.found or ())
        elif isinstance(action, Inspect):
            assert all(after.managed(process.vmid) for process in action.processes)


def _check_scanned(before: State, scan: Scanned, after: State) -> None:
    """Nothing is recorded of guests that are gone; a scan knows nothing of what is newer."""
    there = scan.configs.keys() | scan.unreadable | after.tracked.keys()
    assert after.configs.keys() <= there
    assert after.last_places.keys() <= there
    assert after.released <= scan.processes.keys()
    assert after.refused.keys() <= scan.processes.keys()
    for vmid, tracked in after.tracked.items():
        if tracked.since > scan.time:
            known = before.tracked[vmid]
            assert (tracked.process, tracked.since) == (known.process, known.since)
            # Its CPUs are its own; how wide it floats depends on who shares them.
            assert tracked.placement.home == known.placement.home
        elif tracked.process is None:
            assert scan.time - tracked.since < RESERVED_FOR
        else:
            assert scan.processes[vmid] == tracked.process


def check_node(story: Story) -> None:
    """After a scan and all answers: who is ours is held, who is not is free.

    With the state, the knowledge is lost that masks of a guest which is not ours are.
    """
    state, last = story.state, [e for e in story.fed if isinstance(e, Scanned)][-1]
    for vmid, process in story.world.processes().items():
        tracked = state.tracked.get(vmid)
        ours = state.managed(vmid) and not state.left_alone(process)
        seen = last.processes.get(vmid) == process
        if ours and seen and vmid not in state.refused:
            assert tracked is not None
            assert tracked.process == process
        for thread, task in zip(
            story.world.threads(process), story.world.tasks[process], strict=True
        ):
            # Of one whose configuration was never read nobody knows that it is ours.
            known = vmid in state.configs and not task.refuses
            if tracked is not None and tracked.process == process and known:
                wanted = mask_of(thread, tracked.placement)
                assert thread.affinity == wanted & state.host.topology.online
            if tracked is None and not task.refuses and not story.forgot:
                # The CPU that was never offline: nobody can be given back one that is.
                assert CpuSet.parse("2") & state.host.topology.online <= thread.affinity


def _busy(story: Story) -> set[Vmid]:
    state = story.state
    runs = {v for v, t in state.tracked.items() if t.running or t.held is not None}
    return runs | {vmid for vmid in state.configs if state.excluded(vmid)}


def check_drop_ins(story: Story) -> None:
    """The files are those that the state wants, and those of no guest that runs or is not ours."""
    assert story.world.drop_ins == story.state.drop_ins()
    assert not story.world.drop_ins.keys() & _busy(story)


def plain(state: State) -> str:
    """Everything but the host, whose arrays are compared by identity."""
    names = [field.name for field in fields(State) if field.name != "host"]
    return repr([(name, getattr(state, name)) for name in names])


def unanswered(state: State) -> State:
    """Without what was read back last, which holds every thread's mask, and the time at which
    CPUs were last seen shared."""
    tracked = {v: replace(t, confined=None) for v, t in state.tracked.items()}
    return replace(state, tracked=tracked, wide=dict.fromkeys(state.wide, 0.0))
