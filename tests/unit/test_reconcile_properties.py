"""The brain by property: random histories of a node, with everything that may go wrong in them."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.engine.place import place
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import Request
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.reconcile import State, step
from proxmox_cpu_affinity.reconcile.actions import Action, Confine, Inspect
from proxmox_cpu_affinity.reconcile.events import Event, Inspected
from tests.faults.memory import GUESTS, HOOKS, HOST, OTHER_HOSTS, SERVICE
from tests.scenarios.invariants import check_drop_ins, check_node, check_step, plain, unanswered
from tests.scenarios.scenario import Scenario
from tests.scenarios.story import Story

CHANGES = (
    "affinity: 0-1",
    "tags: cpu-affinity-off",
    "tags: cpu-affinity",
    "tags: none",
    "template: 1",
    "template: 0",
    "cores: 2",
    "cores: 5",
    "hotplug: cpu",
    "vcpus: 1",
    "vcpus: 6",
    "tags: cpu-affinity;cpu-dedicated",
)
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
            check_drop_ins(story)
            if words == "scan":
                check_node(story)


@quick
@given(history=anything)
def test_invariants_hold_through_any_history(history: list[Happening]) -> None:
    story = _begun()
    story.each_step = check_step
    _play(story, history)


@quick
@given(history=anything)
def test_step_is_pure(history: list[Happening]) -> None:
    """The same input twice gives equal output, and the input is what it was."""

    def check(before: State, event: Event, after: State, actions: tuple[Action, ...]) -> None:
        was, happened = plain(before), repr(event)
        again, more = step(before, event)
        assert plain(again) == plain(after)
        assert again.host is after.host
        assert more == actions
        assert (plain(before), repr(event)) == (was, happened)

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
    assert plain(state) == plain(story.state)
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
    assert plain(unanswered(story.state)) == plain(unanswered(before))


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
