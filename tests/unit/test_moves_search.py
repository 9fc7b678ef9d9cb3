"""Looking for moves beside everything else: in short steps, and never for a state that is past."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.engine.bound import least_alone
from proxmox_cpu_affinity.engine.excess import excesses
from proxmox_cpu_affinity.engine.facts import Occupancy, Turn
from proxmox_cpu_affinity.engine.occupancy import load_of
from proxmox_cpu_affinity.engine.place import place
from proxmox_cpu_affinity.engine.rebalance import MOVE, Question, Ration, rebalanced, search
from proxmox_cpu_affinity.engine.score import total
from proxmox_cpu_affinity.formats import wire
from proxmox_cpu_affinity.model.guest import Request
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.reconcile import State, rebalancing, step
from proxmox_cpu_affinity.reconcile.actions import Confine, LookForMoves
from proxmox_cpu_affinity.reconcile.events import Event, MovesFound
from proxmox_cpu_affinity.service import outcomes
from proxmox_cpu_affinity.service.moves import MoveSearch
from tests.unit.engine_hosts import holding, host_of
from tests.unit.test_brain_histories import HOOK, played

GUESTS = {100: ("cores: 3", HOOK), 101: ("cores: 3", HOOK), 102: ("cores: 2", HOOK)}
LATE = 1000.0  # seconds: by then no guest has just started


def _movable(rebalance: str = "on") -> State:
    """102 lies in two cache groups, and CPUs of one have just become free."""
    starts = ("0 start 100", "10 start 101", "20 start 102")
    story = played("1x2x4x1", GUESTS, *starts, settings={"PCA_REBALANCE": rebalance})
    return replace(story.state.without_tracked(Vmid(100)), ration=Ration(MOVE))


class _Fed:
    """A state, and what was fed to the brain."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.events: list[MovesFound] = []

    async def feed(self, event: Event) -> None:
        assert isinstance(event, MovesFound)
        self.events.append(event)
        self.state, _ = step(self.state, event)

    def search(self) -> MoveSearch:
        return MoveSearch(lambda: self.state, self.feed)


def test_an_answer_is_carried_out() -> None:
    fed = _Fed(_movable())
    moves = asyncio.run(fed.search().look(asked=True))
    assert [move.after.vmid for move in moves] == [102]
    assert fed.state.tracked[Vmid(102)].placement == moves[0].after


def test_others_have_their_turn_between_two_guests_that_are_looked_at() -> None:
    async def story() -> int:
        fed, turns = _Fed(_movable()), 0
        looking = asyncio.create_task(fed.search().look(asked=True))
        while not looking.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    steps = sum(1 for _ in search(rebalancing.question(_movable(), LATE, asked=False)))
    assert steps > 1
    assert asyncio.run(story()) >= steps


def test_a_search_begins_anew_when_the_state_has_changed_meanwhile() -> None:
    async def story() -> _Fed:
        fed = _Fed(_movable())
        looking = asyncio.create_task(fed.search().look(asked=True))
        await asyncio.sleep(0)
        fed.state = fed.state.without_tracked(Vmid(101))
        await looking
        return fed

    fed = asyncio.run(story())
    [event] = fed.events
    assert [p.vmid for p in event.question.occupancy.placements] == [102]


def test_two_who_ask_while_a_search_runs_share_the_next() -> None:
    async def story() -> _Fed:
        fed = _Fed(_movable())
        search = fed.search()
        await asyncio.gather(*(search.look(asked=True) for _ in range(3)))
        return fed

    assert len(asyncio.run(story()).events) == 2


def test_an_answer_to_a_past_state_moves_nobody_and_is_asked_for_again() -> None:
    state = _movable()
    question = rebalancing.question(state, LATE, asked=False)
    late = MovesFound(LATE, question, rebalanced(question))
    assert late.moves
    changed = state.without_tracked(Vmid(101))
    after, actions = step(changed, late)
    assert after.tracked == changed.tracked
    assert actions == (LookForMoves(),)
    _, actions = step(state, late)
    assert [a.process.vmid for a in actions if isinstance(a, Confine)] == [102]


def test_guests_that_have_just_started_move_only_when_somebody_asks() -> None:
    state = _movable()
    assert rebalanced(rebalancing.question(state, 30.0, asked=False)) == ()
    assert rebalanced(rebalancing.question(state, 30.0, asked=True))


@pytest.mark.parametrize(("setting", "said"), [("on", "moves"), ("advise", "would move")])
def test_the_row_of_a_reassign_names_the_move(setting: str, said: str) -> None:
    """With what it gains, and what would be enough."""
    state = _movable(setting)
    fed = _Fed(state)
    [move] = asyncio.run(fed.search().look(asked=True))
    before = str(state.tracked[Vmid(102)].placement.home)
    row = outcomes.eased(fed.state, wire.ReassignRow(102, "success", "", before, before), move)
    assert (row.before, row.changed) == (before, setting == "on")
    assert f"{said} from {move.before.home} to {move.after.home}" in row.notes
    assert "would be enough" in row.notes


def test_moves_are_rationed_unless_somebody_asks() -> None:
    """One that is made uses up what starts and stops have earned."""
    state = replace(_movable(), ration=Ration(MOVE - 1))
    assert rebalanced(rebalancing.question(state, LATE, asked=False)) == ()
    assert rebalanced(rebalancing.question(state, LATE, asked=True))
    state = _movable()
    question = rebalancing.question(state, LATE, asked=False)
    after, _ = step(state, MovesFound(LATE, question, rebalanced(question)))
    assert (state.ration.moves, after.ration.moves) == (1, 0)


def test_starts_and_stops_earn_moves_three_for_ten() -> None:
    story = played("1x2x4x1", GUESTS, "0 start 100", "1 start 101", "2 stop 101", "3 stop 100")
    assert story.state.ration == Ration().earned(4)
    assert Ration().earned(10).moves == 3
    assert Ration().earned(1000).moves == Ration().earned(2000).moves


def test_a_cpu_that_is_shared_needlessly_is_left_whatever_the_ration() -> None:
    host = host_of("1x1x4x1")
    together = Occupancy((holding(1, "0"), holding(2, "0")))
    assert len(rebalanced(Question(host, together, 0))) == 1
    split = Occupancy((holding(1, "0-2"), holding(2, "3-4")))
    assert rebalanced(Question(host_of("1x2x4x1"), split, 0)) == ()


def test_nothing_is_looked_for_where_nobody_may_move() -> None:
    state = _movable()
    assert rebalancing.wanted(state, asked=True)
    assert rebalancing.wanted(replace(state, tracked={}), asked=True) == ()
    off = played("1x2x4x1", GUESTS, "0 start 100", settings={"PCA_REBALANCE": "off"})
    assert rebalancing.wanted(off.state, asked=True) == ()


@settings(max_examples=60, deadline=None)
@given(
    spec=st.sampled_from(["1x2x4x2", "1x1x4x4", "2x1x4x1", "1x1x2x2+4e"]),
    sizes=st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=10),
)
def test_what_a_guest_costs_is_what_the_score_would_lose_with_it(
    spec: str, sizes: list[int]
) -> None:
    host, turn, occupancy = host_of(spec), Turn(), Occupancy(())
    for i, size in enumerate(sizes):
        decision, turn = place(host, occupancy, turn, Request(Vmid(100 + i), size))
        occupancy = Occupancy((*occupancy.placements, decision.placement))
    held = occupancy.placements
    load = load_of(host, occupancy)
    found = {p.vmid: excess for excess, p in excesses(host, load, held)}
    assert found.keys() == {p.vmid for p in held}
    whole = total(host, [(len(p.order), p.home) for p in held])
    for placement in held:
        rest = total(host, [(len(p.order), p.home) for p in held if p is not placement])
        alone = least_alone(host, len(placement.order))
        assert abs(found[placement.vmid] + alone - (whole - rest)) < 1e-4
