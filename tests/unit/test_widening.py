"""PCA_WIDEN: who gets its nodes, for how long, and what it never gets."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.engine.facts import Occupancy
from proxmox_cpu_affinity.engine.width import widened
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Placement, Widen, Widening
from proxmox_cpu_affinity.reconcile import State
from proxmox_cpu_affinity.reconcile.actions import Action
from proxmox_cpu_affinity.reconcile.events import Event
from proxmox_cpu_affinity.reconcile.strain import LONGEST, Strain, felt
from proxmox_cpu_affinity.service import persist
from tests.scenarios.invariants import check_node, check_step
from tests.scenarios.scenario import Scenario
from tests.scenarios.story import BOOT, Story
from tests.unit.engine_hosts import holding, host_of
from tests.unit.test_brain_histories import HOOK, played

RULES = Widening(Widen.PRESSURE)
LOOK = 30.0  # seconds
HIGH, CALM, BETWEEN = 0.05, 0.0, 0.01
DAY = 24 * 3600.0
shares = st.sampled_from([HIGH, CALM, BETWEEN, RULES.above, RULES.below, None])
looks = st.lists(st.tuples(st.sampled_from([0.1, LOOK, 31.0, 500.0]), shares), max_size=80)


def changes(history: list[tuple[float, float | None]]) -> list[tuple[float, bool]]:
    """When a guest got its nodes, or lost them."""
    strain, now, found = Strain(), 0.0, []
    for gap, share in history:
        now += gap
        before, strain = strain, felt(strain, share, now, RULES)
        if strain.wide != before.wide:
            found.append((now, strain.wide))
    return found


@given(history=looks)
def test_nothing_changes_before_it_stayed_so(history: list[tuple[float, float | None]]) -> None:
    found = changes(history)
    assert [wide for _, wide in found] == [i % 2 == 0 for i in range(len(found))]
    for (before, _), (after, _) in pairwise(found):
        assert after - before >= RULES.stay


@given(history=looks, calm=st.integers(0, 3))
def test_what_it_was_given_comes_back(history: list[tuple[float, float | None]], calm: int) -> None:
    """Whatever was before: calm for the longest stay, nothing is left of it in the end."""
    end = 3 * LONGEST * RULES.stay + calm * LOOK
    strain, now = Strain(), 0.0
    for gap, share in [*history, *[(LOOK, CALM)] * int(end / LOOK)]:
        now += gap
        strain = felt(strain, share, now, RULES)
    assert strain.idle


def flapping(pressed: float, calm: float) -> int:
    """How often a guest is widened in a day that waits for so many seconds whenever it is in its
    cache groups, and is calm for so many in its nodes."""
    strain, now, began, count = Strain(), 0.0, 0.0, 0
    while now < DAY:
        now += LOOK
        high = not strain.wide or now - began < pressed - calm
        before, strain = strain, felt(strain, HIGH if high else CALM, now, RULES)
        if strain.wide and not before.wide:
            count, began = count + 1, now
    return count


def test_a_guest_that_always_waits_in_its_groups_comes_and_goes_ever_less() -> None:
    """With a minute each way it were 720 times a day."""
    assert 10 < flapping(60.0, 60.0) <= 40


def test_the_calm_that_is_asked_for_has_an_end() -> None:
    longest = LONGEST * RULES.stay
    waits = Strain(since=0.0, left=0.0, calm=longest)
    assert felt(waits, HIGH, RULES.stay, RULES) == Strain(wide=True, calm=longest)


def test_it_starts_anew_when_it_did_well_for_long_enough() -> None:
    strain = Strain(left=0.0, calm=960.0)
    assert felt(strain, BETWEEN, 1919.0, RULES) == strain
    assert felt(strain, BETWEEN, 1920.0, RULES).idle


def test_what_is_not_known_is_neither_high_nor_calm() -> None:
    assert changes([(LOOK, HIGH), (LOOK, HIGH), (LOOK, None), (LOOK, HIGH), (LOOK, HIGH)]) == []
    wide = Strain(wide=True, since=0.0, calm=60.0)
    assert felt(wide, None, 100.0, RULES) == replace(wide, since=None)


def reach(spec: str, *placements: Placement, reserved: str = "", wide: str = "") -> str:
    """What the first of these guests may use when it waited."""
    host = host_of(spec, reserved=reserved)
    groups = {g for g in host.topology.cache_groups if g.overlaps(CpuSet.parse(wide))}
    first = placements[0].vmid
    return str(widened(host, Occupancy(placements), groups, {first})[first].applied)


def test_it_gets_its_node_and_no_other() -> None:
    assert reach("2x2x4x1", holding(100, "0-1"), wide="0-15") == "0-7"
    assert reach("2x2x4x1", holding(100, "0,8"), wide="0-15") == "0-15"
    assert reach("1x4x2x1+nodes=2", holding(100, "4"), wide="0-7") == "4-7"


def test_reserved_isolated_and_slow_cpus_are_not_added() -> None:
    assert reach("1x2x4x1", holding(100, "0-1"), wide="0-7", reserved="5-6") == "0-4,7"
    assert reach("1x2x4x1+isolated=4-5", holding(100, "0-1"), wide="0-7") == "0-3,6-7"
    assert reach("1x1x4x2+4e", holding(100, "0"), wide="0-11") == "0-7"


def test_who_does_not_float_keeps_its_cpus_to_itself() -> None:
    pinned = replace(holding(102, "6"), pinned=True)
    beside = (holding(101, "4-5"), pinned)
    assert reach("1x2x4x1", holding(100, "0-1"), *beside, wide="0-3") == "0-3,7"
    assert reach("1x2x4x1", holding(100, "0-1"), *beside, wide="0-7") == "0-5,7"
    dedicated = holding(101, "4", exclusive=True)  # its sibling is 12
    assert reach("1x2x4x2", holding(100, "0"), dedicated, wide="0-15") == "0-3,5-11,13-15"


@pytest.mark.parametrize("wide", ["", "4-7"])
def test_waiting_says_nothing_of_an_exact_guest(wide: str) -> None:
    assert reach("1x2x4x1", holding(100, "0-1"), wide=wide) == "0-1"


def test_parts_of_a_guest_with_nodes_stay_on_theirs() -> None:
    keys = ("cores: 1", "sockets: 2", "numa: 1", HOOK)
    events = ("0 start 100", *(f"{t} waited 100=9" for t in (30, 60, 90)))
    on = {"PCA_WIDTH": "domain", "PCA_WIDEN": "pressure"}
    story = played("2x2x2x1", {100: keys}, *events, settings=on)
    placement = story.state.tracked[Vmid(100)].placement
    assert sorted(map(str, placement.spans)) == ["0-3", "4-7"]


GUESTS = {
    Vmid(100): ("cores: 2", HOOK),
    Vmid(101): ("cores: 3", HOOK),
    Vmid(102): ("cores: 1", HOOK, "tags: cpu-dedicated"),
    Vmid(103): ("cores: 2", HOOK, "tags: cpu-pinned"),
    Vmid(104): ("cores: 4", HOOK),
}
TAGS = ("none", "cpu-dedicated", "cpu-pinned", "cpu-affinity-off")
WIDTHS = ("exact", "domain", "auto")
happenings = st.lists(
    st.one_of(
        st.builds("waited {}={}".format, st.sampled_from(list(GUESTS)), st.sampled_from([0, 1, 9])),
        st.just("waited 100=9,101=9,102=9,103=9,104=9"),
        st.builds("start {}".format, st.sampled_from(list(GUESTS))),
        st.builds("stop {}".format, st.sampled_from(list(GUESTS))),
        st.builds("set {} tags: {}".format, st.sampled_from(list(GUESTS)), st.sampled_from(TAGS)),
        st.builds("set-service PCA_WIDTH {}".format, st.sampled_from(WIDTHS)),
        st.sampled_from(["scan", "restart", "set-service PCA_WIDEN off"]),
        st.just("set-service PCA_WIDEN pressure"),
    ),
    max_size=40,
)


def possible(story: Story, words: str) -> bool:
    kind, _, rest = words.partition(" ")
    if kind not in ("start", "stop"):
        return True
    return (story.world.process(Vmid(int(rest))) is not None) == (kind == "stop")


def check_sets(before: State, event: Event, after: State, actions: tuple[Action, ...]) -> None:
    """Own CPUs always, CPUs of the own nodes alone, never those of a pinned or dedicated guest."""
    check_step(before, event, after, actions)
    placements = [t.placement for t in after.tracked.values()]
    for placement in placements:
        nodes = after.host.topology.nodes_of(placement.home)
        inside = EMPTY
        for node in after.host.topology.nodes:
            inside |= node.cpus if node.node in nodes else EMPTY
        assert placement.home <= placement.applied <= inside
        assert placement.applied - placement.home <= after.host.usable
        for other in placements:
            if other is not placement and (other.exclusive or other.pinned):
                assert not (placement.applied - placement.home).overlaps(other.home)
    for vmid in after.strained:
        placement = after.tracked[vmid].placement
        assert not placement.exclusive
        assert not placement.pinned
        assert after.reporter().reach(placement) == "node"


@settings(max_examples=100, deadline=None)
@given(history=happenings)
def test_widened_sets_hold_through_any_history(history: list[str]) -> None:
    """And in the end, when nobody waits any more, all are as if nobody ever had."""
    on = {"PCA_WIDEN": "pressure", "PCA_DEDICATED_FALLBACK": "shared"}
    story = Story(Scenario("2x2x2x2", on, GUESTS, ()))
    story.each_step = check_sets
    now = 0.0
    for words in history:
        now += LOOK
        if possible(story, words):
            story.play(f"{now} {words}")
    story.play(f"{now + LOOK} scan")
    check_node(story)
    for i in range(2, 5 + int(LONGEST * RULES.stay / LOOK)):
        story.play(f"{now + i * LOOK} waited 100=0,101=0,102=0,103=0,104=0")
    state = story.state
    assert not state.strained
    bare = widened(state.host, state.occupancy(), state.wide.keys())
    assert {v: t.placement for v, t in state.tracked.items()} == bare


def test_what_a_guest_was_given_is_kept_over_a_restart_and_not_over_a_boot() -> None:
    events = ("0 start 100", *(f"{t} waited 100=9" for t in (30, 60, 90)))
    on = {"PCA_WIDTH": "domain", "PCA_WIDEN": "pressure"}
    story = played("1x2x4x1", {100: ("cores: 2", HOOK)}, *events, settings=on)
    kept = json.loads(story.saved)
    assert persist.from_json(kept, boot_id=BOOT).strain == {Vmid(100): Strain(wide=True, calm=60.0)}
    assert not persist.from_json(kept, boot_id="another").strain
    del kept["strained"]  # a file of an earlier version
    assert not persist.from_json(kept, boot_id=BOOT).strain
