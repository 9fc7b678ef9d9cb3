"""The order of pairs: each exactly once, the coarse picture first."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.latency.schedule import ordered_pairs
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

SPECS = (
    "1x1x1x1",
    "1x1x4x1",
    "1x2x2x2",
    "2x2x2x2+numbering=adjacent",
    "2x1x3x2+offline=3",
    "1x2x2x2+4e+2lp",
    "1x1x4x2+gaps=2-3",
    "1x1x4x1+nocache+vm",
)


def host(spec: str) -> Topology:
    return topology(generate(parse_spec(spec)))


@pytest.mark.parametrize("spec", SPECS)
def test_every_pair_comes_exactly_once(spec: str) -> None:
    here = host(spec)
    pairs = ordered_pairs(here.online, here)
    assert all(first < second for first, second in pairs)
    assert sorted(pairs) == list(combinations(here.online, 2))


@given(spec=st.sampled_from(SPECS), mask=st.integers(0, 2**24 - 1))
def test_every_pair_of_a_part_comes_exactly_once(spec: str, mask: int) -> None:
    here = host(spec)
    cpus = CpuSet(mask) & here.online
    assert sorted(ordered_pairs(cpus, here)) == list(combinations(cpus, 2))


def test_siblings_then_neighbours_then_across_then_all_cores_then_the_rest() -> None:
    # Cores 0-2 and 3-5 share a cache each; CPU n + 6 is the sibling of CPU n.
    pairs = ordered_pairs(CpuSet.parse("0-11"), host("1x2x3x2"))
    assert pairs[:6] == ((0, 6), (1, 7), (2, 8), (3, 9), (4, 10), (5, 11))
    assert pairs[6:10] == ((0, 1), (1, 2), (3, 4), (4, 5))
    assert pairs[10:11] == ((0, 3),)
    assert set(pairs[11:21]) == set(combinations(range(6), 2)) - set(pairs[6:11])
    assert all(second >= 6 for _, second in pairs[21:])


def test_a_cut_schedule_has_touched_every_cpu_early() -> None:
    here = host("2x4x4x2")
    pairs = ordered_pairs(here.online, here)
    touched = CpuSet.of(cpu for pair in pairs[: len(here.online)] for cpu in pair)
    assert touched == here.online
    groups = {
        frozenset(here.place(cpu).llc for cpu in pair) for pair in pairs[: 2 * len(here.online)]
    }
    assert groups >= {frozenset(pair) for pair in combinations(range(8), 2)}


def test_no_cpus_and_one_cpu_make_no_pairs() -> None:
    here = host("1x1x4x1")
    assert ordered_pairs(EMPTY, here) == ()
    assert ordered_pairs(CpuSet.of([2]), here) == ()


def test_a_cpu_that_is_not_online_is_an_error() -> None:
    with pytest.raises(KeyError):
        ordered_pairs(CpuSet.of([0, 9]), host("1x1x4x1"))
