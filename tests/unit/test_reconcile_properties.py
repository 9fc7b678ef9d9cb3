"""The brain by property: random histories of a node, with everything that may go wrong in them."""

from dataclasses import dataclass, fields, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.engine.place import place
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import Request
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.reconcile import State, step
from proxmox_cpu_affinity.reconcile.actions import Action, Confine, Inspect, Undo, Watch
from proxmox_cpu_affinity.reconcile.events import Event, Inspected, Scanned
from proxmox_cpu_affinity.reconcile.state import RESERVED_FOR
from tests.scenarios.scenario import Scenario
from tests.scenarios.story import Story
from tests.scenarios.world import mask_of

HOST = "1x2x2x2"
OTHER_HOSTS = (HOST, "1x2x2x2+offline=3", "1x2x2x2+offline=0,4", "1x2x2x2+offline=0-1,3-7")
HOOK = "hookscript: local:snippets/proxmox-cpu-affinity-hook"
GUESTS = {
    Vmid(100): ("cores: 2", HOOK),
    Vmid(101): ("cores: 1", "tags: cpu-affinity"),
    Vmid(102): ("cores: 4", "sockets: 2", HOOK),
    Vmid(103): ("cores: 3",),
    Vmid(104): ("cores: 16", "tags: cpu-affinity;cpu-pinned"),
}
CHANGES = (
    "affinity: 0-1",
    "tags: cpu-affinity-off",
    "tags: cpu-affinity",
    "tags: none",
    "template: 1",
    "template: 0",
    "cores: 2",
    "cores: 5",
)
SERVICE = (
    "MANAGE hook",
    "MANAGE tag",
    "MANAGE all",
    "RESERVED_CPUS 0-3",
    "RESERVED_CPUS 0-7",
    "RESERVED_CPUS",
    "STRATEGY round-robin",
    "STRATEGY balanced",
)

HOOKS = ("pre-start", "post-start", "pre-stop", "post-stop")
ALWAYS = (*HOOKS, "reassign", "undo")
IF_RUNNING = ("die", "vanish", "stop", "refuse", "spawn")
IF_STOPPED = ("start", "run", "boot", "scope")
STARTS = ("start", "boot")


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that may happen; what it means where it cannot is nothing."""

    after: float  # seconds since the last one
    kind: str
    vmid: Vmid
    which: int  # which of the kind's variants


def _happenings(kinds: tuple[str, ...]) -> st.SearchStrategy[list[Happening]]:
    one = st.builds(
        Happening,
        st.sampled_from([0.5, 10.0, 31.0, 121.0]),
        st.sampled_from(kinds),
        st.sampled_from(list(GUESTS)),
        st.integers(0, 99),
    )
    return st.lists(one, max_size=40)


NODE = (*ALWAYS, *IF_RUNNING, *IF_STOPPED, "scan", "scan", "scan", "look", "set", "unset", "file")
SYSTEMD = ("systemd", "systemd", "lose-systemd", "scope-gone")
SERVICE_KINDS = (*SYSTEMD, "service", "host", "measured", "restart", "restart lost")
anything = _happenings((*NODE, *SERVICE_KINDS))
without_restarts = _happenings(tuple(k for k in (*NODE, "service", "host") if k != "reassign"))
quick = settings(max_examples=120, deadline=None)


def _words(story: Story, event: Happening) -> str | None:
    """The story's words for it, None where it cannot happen now."""
    vmid, kind = event.vmid, event.kind
    running = story.world.process(vmid) is not None
    readable = story.world.config(vmid) is not None
    match kind:
        case "scan" | "look" | "measured" | "restart" | "restart lost":
            return kind
        case "systemd" | "lose-systemd":
            reached = story.state.scopes
            return kind if reached == (kind == "lose-systemd") else None
        case "scope-gone":
            return f"{kind} {vmid}" if vmid in story.world.scopes and not running else None
        case "service":
            return f"set-service PCA_{SERVICE[event.which % len(SERVICE)]}"
        case "host":
            return f"host {OTHER_HOSTS[event.which % len(OTHER_HOSTS)]}"
        case "set":
            return f"set {vmid} {CHANGES[event.which % len(CHANGES)]}"
        case "unset":
            keys = sorted(story.world.guests[vmid].keys)
            return f"unset {vmid} {keys[event.which % len(keys)]}" if keys else None
        case "file":
            words = ("unreadable", "readable", "to elsewhere", "to here")[event.which % 4]
            verb, _, node = words.partition(" ")
            return f"{verb} {vmid} {node}".strip()
        case "refuse":
            return f"refuse {vmid} call_rcu" if running else None
        case "spawn":
            return f"spawn {vmid} worker" if running else None
        case _:
            possible = kind in ALWAYS or running == (kind in IF_RUNNING)
            # No start without a configuration: PVE cannot read it either.
            return f"{kind} {vmid}" if possible and (readable or kind not in STARTS) else None


def _begun() -> Story:
    return Story(Scenario(HOST, {}, GUESTS, ()))


def _play(story: Story, history: list[Happening]) -> None:
    now = 0.0
    for event in history:
        now += event.after
        words = _words(story, event)
        if words is not None:
            story.play(f"{now} {words}")
            # Whatever happened: the files are those that the state wants, and those of no guest
            # that runs or is not ours.
            assert story.world.drop_ins == story.state.drop_ins()
            assert not story.world.drop_ins.keys() & _busy(story)
            if words == "scan":
                _check_node(story)


def _busy(story: Story) -> set[Vmid]:
    state = story.state
    runs = {v for v, t in state.tracked.items() if t.running or t.held is not None}
    return runs | {vmid for vmid in state.configs if state.excluded(vmid)}


def _plain(state: State) -> str:
    """Everything but the host, whose arrays are compared by identity."""
    names = [field.name for field in fields(State) if field.name != "host"]
    return repr([(name, getattr(state, name)) for name in names])


# -- invariants ------------------------------------------------------------------------------------


def _check_step(before: State, event: Event, after: State, actions: tuple[Action, ...]) -> None:
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
        assert tracked.process is None or tracked.process.vmid == vmid
        assert tracked.confined is None or tracked.confined.process == tracked.process
        assert not state.excluded(vmid)
    assert not state.released & state.tracked.keys()
    assert not state.refused.keys() & state.tracked.keys()
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
            held = before.tracked[action.process.vmid]
            assert held.process == action.process
            assert after.tracked.get(action.process.vmid) is None
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
            assert tracked == before.tracked[vmid]
        elif tracked.process is None:
            assert scan.time - tracked.since < RESERVED_FOR
        else:
            assert scan.processes[vmid] == tracked.process


def _check_node(story: Story) -> None:
    """After a scan and all answers: who is ours is held, who is not is free.

    With the state, the knowledge is lost that masks of a guest which is not ours are.
    """
    lost = any(line.endswith("restart lost") for line in story.lines)
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
            if tracked is not None and tracked.process == process and not task.refuses:
                wanted = mask_of(thread, tracked.placement)
                assert thread.affinity == wanted & state.host.topology.online
            if tracked is None and not task.refuses and not lost:
                # The CPU that was never offline: nobody can be given back one that is.
                assert CpuSet.parse("2") & state.host.topology.online <= thread.affinity


@quick
@given(history=anything)
def test_invariants_hold_through_any_history(history: list[Happening]) -> None:
    story = _begun()
    story.each_step = _check_step
    _play(story, history)


@quick
@given(history=anything)
def test_step_is_pure(history: list[Happening]) -> None:
    """The same input twice gives equal output, and the input is what it was."""

    def check(before: State, event: Event, after: State, actions: tuple[Action, ...]) -> None:
        was, happened = _plain(before), repr(event)
        again, more = step(before, event)
        assert _plain(again) == _plain(after)
        assert again.host is after.host
        assert more == actions
        assert (_plain(before), repr(event)) == (was, happened)

    story = _begun()
    story.each_step = check
    _play(story, history)


@quick
@given(history=without_restarts)
def test_a_replay_gives_the_same_placements(history: list[Happening]) -> None:
    story = _begun()
    state = story.state
    _play(story, history)
    replayed: list[Action] = []
    pending = list(story.fed)
    for event in pending:
        state, actions = step(state, event)
        replayed += actions
    assert _plain(state) == _plain(story.state)
    assert sorted(map(repr, replayed)) == sorted(map(repr, story.acted))


@quick
@given(history=anything)
def test_scans_settle(history: list[Happening]) -> None:
    """Two scans after any history, a third finds nothing to decide, to say or to save."""
    story = _begun()
    _play(story, history)
    end = 1000 + sum(event.after for event in history)
    story.play(f"{end} scan")
    story.play(f"{end + 1} scan")
    before, acted = story.state, len(story.acted)
    story.play(f"{end + 2} scan")
    assert all(isinstance(action, Confine | Inspect) for action in story.acted[acted:])
    assert _plain(_unanswered(story.state)) == _plain(_unanswered(before))


def _unanswered(state: State) -> State:
    """Without what was read back last, which holds every thread's mask, and the time at which
    CPUs were last seen shared."""
    tracked = {v: replace(t, confined=None) for v, t in state.tracked.items()}
    return replace(state, tracked=tracked, wide=dict.fromkeys(state.wide, 0.0))


@quick
@given(history=anything)
def test_a_restart_of_the_service_moves_nobody(history: list[Happening]) -> None:
    """Whenever it comes, and also when the state is lost, as far as masks can tell."""
    story = _begun()
    _play(story, history)
    end = 1000 + sum(event.after for event in history)
    story.play(f"{end} scan")  # may be one that began to read long ago
    story.play(f"{end} scan")
    before = {v: t.placement.home for v, t in story.state.tracked.items() if t.running}
    story.play(f"{end + 1} restart")
    story.play(f"{end + 2} scan")
    after = {v: t.placement.home for v, t in story.state.tracked.items() if t.running}
    assert after == before


@quick
@given(history=anything)
def test_a_restarted_service_decides_as_one_that_went_on(history: list[Happening]) -> None:
    """What the engine rests on is the same when it is made from the saved state and a scan."""
    story = _begun()
    _play(story, history)
    end = 1000 + sum(event.after for event in history)
    story.play(f"{end} scan")
    story.play(f"{end} scan")
    before = _decision(story.state)
    story.play(f"{end + 1} restart")
    story.play(f"{end + 2} scan")
    assert _decision(story.state) == before


def _decision(state: State) -> Decision | str:
    try:
        return place(state.host, state.occupancy(), state.turn, Request(Vmid(999), 2))[0]
    except UnplaceableError as error:
        return error.text


@quick
@given(stopped=st.permutations(list(GUESTS)), count=st.integers(0, len(GUESTS)))
def test_the_order_of_stops_is_irrelevant(stopped: list[Vmid], count: int) -> None:
    """Of guests that stop with nothing between them, where none is moved."""

    def left(order: list[Vmid]) -> State:
        story = Story(Scenario(HOST, {"PCA_REBALANCE": "off", "PCA_MANAGE": "all"}, GUESTS, ()))
        for vmid in GUESTS:
            story.play(f"0 start {vmid}")
        for vmid in order:
            story.play(f"10 stop {vmid}")
        return story.state

    one, other = left(stopped[:count]), left(sorted(stopped[:count]))
    assert _by_guest(one) == _by_guest(other)
    assert _decision(one) == _decision(other)
    assert (one.turn, one.ration) == (other.turn, other.ration)


def _by_guest(state: State) -> list[object]:
    return [
        sorted(state.tracked.items(), key=lambda one: one[0]),
        sorted(state.last_places.items()),
    ]


def test_a_late_inspection_places_nobody_who_was_let_go_meanwhile() -> None:
    story = _begun()
    story.play("0 start 100")
    story.play("1 undo 100")
    process = story.world.processes()[Vmid(100)]
    late = Inspected(2.0, ((process, story.world.threads(process)),))
    state, actions = step(story.state, late)
    assert not state.tracked
    assert actions == ()
