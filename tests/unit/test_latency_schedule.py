"""The rounds: each pair exactly once, nobody twice, siblings at rest, the coarse picture first."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.latency.schedule import (
    COARSE,
    Pair,
    Round,
    Stage,
    cores_at_once,
    rounds,
    split,
    tournament,
)
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.topology import Topology
from tests.unit.engine_hosts import topology_of as host

SPECS = (
    "1x1x1x1",
    "1x1x2x1",
    "1x1x3x1",
    "1x1x1x8",
    "1x1x7x4",
    "1x1x3x8",
    "1x2x2x2",
    "3x1x5x1",
    "2x2x2x2+numbering=adjacent",
    "2x1x3x2+offline=3",
    "1x2x2x2+4e+2lp",
    "1x1x4x2+gaps=2-3",
    "2x2x3x2+gaps=1,5,7-20",
    "1x1x4x1+nocache+vm",
    "2x3x5x2+nodes=3",
)


HOSTS = {spec: host(spec) for spec in SPECS}


def all_pairs(plan: tuple[Round, ...]) -> list[Pair]:
    return [pair for each in plan for pair in each.pairs]


def assert_fair(plan: tuple[Round, ...], here: Topology, cores: int) -> None:
    """No CPU and no core twice in a round, and no more cores than allowed."""
    for each in plan:
        assert each.pairs
        busy = [frozenset(here.place(cpu).core for cpu in pair) for pair in each.pairs]
        touched = Counter(core for pair in busy for core in pair)
        assert max(touched.values()) == 1, each
        assert len(touched) <= cores or len(each.pairs) == 1


@given(
    spec=st.sampled_from(SPECS),
    mask=st.integers(0, 2**128 - 1),
    cores=st.integers(1, 64),
)
def test_every_pair_of_any_cpus_comes_exactly_once_in_fair_rounds(
    spec: str, mask: int, cores: int
) -> None:
    here = HOSTS[spec]
    cpus = CpuSet(mask) & here.online
    plan = rounds(cpus, here, cores=cores)
    assert all(first < second for first, second in all_pairs(plan))
    assert sorted(all_pairs(plan)) == list(combinations(cpus, 2))
    assert_fair(plan, here, cores)


@pytest.mark.parametrize(
    "spec", ["1x1x1024x1", "2x8x16x4", "1x1x1023x1", "4x8x4x8", "2x16x8x2+offline=0,511"]
)
def test_the_largest_hosts(spec: str) -> None:
    here = host(spec)
    cores = cores_at_once(here, 0.25)
    plan = rounds(here.online, here, cores=cores)
    count = len(here.online)
    pairs = all_pairs(plan)
    assert len(pairs) == len(set(pairs)) == count * (count - 1) // 2
    assert_fair(plan, here, cores)


@given(spec=st.sampled_from(SPECS), mask=st.integers(0, 2**128 - 1))
def test_only_pairs_of_new_cpus_are_asked_for(spec: str, mask: int) -> None:
    here = HOSTS[spec]
    new = CpuSet(mask) & here.online
    plan = rounds(here.online, here, cores=8, touching=new)
    expected = [p for p in combinations(here.online, 2) if p[0] in new or p[1] in new]
    assert sorted(all_pairs(plan)) == expected


@given(st.integers(0, 40))
def test_in_a_tournament_each_meets_each_once(players: int) -> None:
    turns = list(tournament(players))
    met = [frozenset(pair) for turn in turns for pair in turn]
    assert sorted(map(sorted, met)) == [list(p) for p in combinations(range(players), 2)]
    for turn in turns:
        assert len({player for pair in turn for player in pair}) == 2 * len(turn)
    assert len(turns) == max(0, players + players % 2 - 1)


@given(st.integers(0, 60), st.integers(1, 70))
def test_parts_are_of_about_the_same_size(count: int, most: int) -> None:
    pairs = list(combinations(range(12), 2))[:count]
    parts = list(split(pairs, most))  # type: ignore[arg-type]
    assert sorted(pair for part in parts for pair in part) == pairs
    sizes = [len(part) for part in parts]
    assert all(0 < size <= most for size in sizes)
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


def test_the_number_of_rounds_is_what_the_bound_allows() -> None:
    here = host("2x8x8x2")  # 128 cores, 256 CPUs
    cores = cores_at_once(here, 0.25)
    assert cores == 32
    plan = rounds(here.online, here, cores=cores)
    least = (256 * 255 // 2 - 128) / (cores // 2) + 128 / cores
    assert least <= len(plan) <= 1.05 * least
    coarse = [each for each in plan if each.stage <= COARSE]
    assert len(coarse) <= 64


@pytest.mark.parametrize(("share", "cores"), [(0.01, 2), (0.25, 3), (0.5, 6), (1.0, 12)])
def test_a_share_of_the_cores_is_at_least_one_pair(share: float, cores: int) -> None:
    assert cores_at_once(host("1x2x6x2"), share) == cores


def test_stages_come_in_order_and_the_coarse_ones_see_every_block() -> None:
    here = host("2x4x4x2")
    plan = rounds(here.online, here, cores=8)
    stages = [each.stage for each in plan]
    assert stages == sorted(stages)
    assert set(stages) == set(Stage)
    coarse = [pair for each in plan if each.stage <= COARSE for pair in each.pairs]
    assert CpuSet.of(cpu for pair in coarse for cpu in pair) == here.online
    seen = {frozenset(here.place(cpu).llc for cpu in pair) for pair in coarse}
    assert seen >= {frozenset(pair) for pair in combinations(range(8), 2)}
    siblings = [pair for each in plan if each.stage is Stage.SIBLINGS for pair in each.pairs]
    assert sorted(CpuSet.of(pair).mask for pair in siblings) == sorted(c.mask for c in here.cores)


def test_no_cpus_and_one_cpu_make_no_rounds() -> None:
    here = host("1x1x4x1")
    assert rounds(EMPTY, here, cores=2) == ()
    assert rounds(CpuSet.of([2]), here, cores=2) == ()


def test_a_cpu_that_is_not_online_is_an_error() -> None:
    with pytest.raises(KeyError):
        rounds(CpuSet.of([0, 9]), host("1x1x4x1"), cores=2)
