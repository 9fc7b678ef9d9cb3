"""Trials and previews on hosts larger than this one: pure, so any host will do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.engine.score import guest_scores
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import Policy
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.reconcile import State, step
from proxmox_cpu_affinity.reconcile.events import ProcessEnded, ReassignAsked
from proxmox_cpu_affinity.service import trial
from tests.unit.test_happenings import History

SIZES = st.lists(st.integers(1, 6), max_size=8)
SPECS = st.sampled_from(("1x1x4x2", "1x2x4x1", "2x2x4x2"))


def stage(spec: str, sizes: list[int]) -> History:
    history = History(spec)
    for i, size in enumerate(sizes):
        history.started(100 + i, cores=size)
    return history


def lost(state: State) -> float:
    """What all guests lose, summed over their vCPUs."""
    placements = [tracked.placement for tracked in state.tracked.values()]
    scores = guest_scores(state.host, placements)
    return sum(scores[p.vmid][0] * len(p.order) for p in placements)


@settings(deadline=None, max_examples=40)
@given(spec=SPECS, sizes=SIZES, vcpus=st.integers(1, 8))
def test_the_next_start_is_where_the_trial_said(spec: str, sizes: list[int], vcpus: int) -> None:
    history = stage(spec, sizes)
    before = history.state
    request = trial.asked_for({"vcpus": str(vcpus)}, before.configs)
    told = trial.tried(before, request)
    assert history.state is before
    history.started(request.vmid, cores=vcpus)
    tracked = history.state.tracked[request.vmid]
    assert told.cpus == str(tracked.placement.home)
    assert told.after == trial.host_score(
        history.state.host, [t.placement for t in history.state.tracked.values()]
    )
    assert told.score is not None
    whole = lost(history.state) - lost(before)
    assert told.cost + told.score * vcpus == pytest.approx(whole, abs=1e-3 * (1 + vcpus))
    for other in told.others:
        assert other.after > other.before
        assert other.vmid in before.tracked


@settings(deadline=None, max_examples=40)
@given(spec=SPECS, sizes=SIZES, gone=st.sets(st.integers(0, 7)))
def test_a_preview_is_what_a_reassign_of_all_comes_to(
    spec: str, sizes: list[int], gone: set[int]
) -> None:
    history = stage(spec, sizes)
    for index in sorted(gone & set(range(len(sizes)))):
        history.feed(ProcessEnded(1000.0, history.process(100 + index)))
    before = history.state
    told = trial.reassigning(before, now=1000.0)
    assert history.state is before
    after = before
    for vmid in sorted(before.tracked):
        after, _ = step(after, ReassignAsked(1000.0, vmid))
    moved = {
        int(vmid): str(tracked.placement.home)
        for vmid, tracked in after.tracked.items()
        if tracked.placement.home != before.tracked[vmid].placement.home
    }
    assert {move.vmid: move.after for move in told.moves} == moved
    assert sorted((*moved, *told.staying)) == sorted(before.tracked)
    saved = lost(before) - lost(after)
    assert sum(move.gain for move in told.moves) == pytest.approx(saved, abs=1e-3)
    assert told.after == trial.host_score(
        after.host, [tracked.placement for tracked in after.tracked.values()]
    )


def test_an_advised_move_pays() -> None:
    """Two guests of four on one group of four: both fit once the neighbour's has emptied."""
    history = stage("1x2x4x1", [4, 4, 4])
    shared = [
        vmid
        for vmid, tracked in history.state.tracked.items()
        if sum(
            tracked.placement.home.overlaps(other.placement.home)
            for other in history.state.tracked.values()
        )
        == 1
    ]
    history.feed(ProcessEnded(1000.0, history.process(shared[0])))
    told = trial.rebalancing(history.state)
    assert len(told.moves) == 1
    move = told.moves[0]
    assert move.gain > move.cost > 0
    assert told.before is not None
    assert told.after is not None
    assert told.after.slowdown < told.before.slowdown
    assert str(CpuSet.parse(move.after)) in move.reason


def test_a_trial_with_virtual_numa_has_a_host_node_for_each_socket() -> None:
    """Once the sockets of the query came to nothing."""
    state = stage("2x1x4x2", []).state
    query = {"vcpus": "4", "sockets": "2", "numa": "1"}
    request = trial.asked_for(query, state.configs)
    assert [node.vcpus for node in request.guest_nodes] == [(0, 1), (2, 3)]
    assert trial.tried(state, request).nodes == [0, 1]
    alike = trial.asked_for({**query, "numa": "0"}, state.configs)
    assert alike.guest_nodes == ()
    assert len(trial.tried(state, alike).nodes) == 1


@pytest.mark.parametrize(
    ("query", "vcpus", "policy"),
    [
        ({"vcpus": "3"}, 3, Policy.SHARED),
        ({"vcpus": "3", "sockets": "2", "numa": "1", "policy": "pinned"}, 3, Policy.PINNED),
        ({"vcpus": "2", "sockets": "64", "policy": "dedicated"}, 2, Policy.DEDICATED),
    ],
)
def test_a_query_is_a_guest(query: dict[str, str], vcpus: int, policy: Policy) -> None:
    request = trial.asked_for(query, {Vmid(999_999_999), Vmid(999_999_998)})
    assert (request.vmid, request.vcpus, request.policy) == (999_999_997, vcpus, policy)
    assert request.warnings == ()
