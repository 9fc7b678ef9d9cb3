"""Predicted matrices: monotone in the levels, and gaps filled from what was measured."""

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.latency.predict import Level, carried, filled, predicted, step_ns
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.latency import PairSample, Verdict, with_samples
from tests.unit.engine_hosts import topology_of as host

STEPS = st.tuples(st.sampled_from(Level), st.integers(10, 255))


def measured(first: int, second: int, ns: float) -> PairSample:
    return PairSample(Cpu(first), Cpu(second), (ns, ns, ns), Verdict.TRUSTED)


@given(near=STEPS, far=STEPS)
def test_a_nearer_step_never_costs_more(near: tuple[Level, int], far: tuple[Level, int]) -> None:
    if near > far:
        near, far = far, near
    assert 0 < step_ns(near) <= step_ns(far)


@pytest.mark.parametrize("spec", ["1x1x1x1", "2x2x2x2+nodes=2", "1x2x2x2+4e+2lp", "2x1x2x1+vm"])
def test_a_prediction_covers_the_online_cpus_and_measured_nothing(spec: str) -> None:
    here = host(spec)
    matrix = predicted(here)
    assert matrix.cpus == tuple(here.online)
    assert matrix.verdict is Verdict.PREDICTED
    assert not any(matrix.measured)
    assert any("nothing measured" in condition for condition in matrix.conditions)
    for first, second in combinations(matrix.cpus, 2):
        assert matrix.between(first, second) == matrix.between(second, first) > 0
    assert all(matrix.between(cpu, cpu) == 0 for cpu in matrix.cpus)


def test_each_level_is_told_from_the_next() -> None:
    # Two packages of two cache groups of two cores: CPU n + 8 is the sibling of CPU n.
    matrix = predicted(host("2x2x2x2"))
    sibling, group, package, other = (matrix.between(0, cpu) for cpu in (8, 1, 2, 4))
    assert 2 * sibling < group < package / 2
    assert package < other


def test_cores_that_share_an_l2_are_nearer_than_the_rest_of_their_cache_group() -> None:
    here = host("1x1x2x2+8e")
    cluster = [group for group in here.l2_groups if len(group) == 4]
    first, second = (tuple(group) for group in cluster)
    matrix = predicted(here)
    assert matrix.between(first[0], first[1]) < matrix.between(first[0], second[0])


def test_an_l2_that_is_the_last_level_is_no_nearer_level() -> None:
    matrix = predicted(host("1x1x4x1+nocache"))
    assert set(matrix.row(0)) == {0.0, step_ns((Level.CACHE_GROUP, 10))}


def test_a_farther_node_of_another_package_costs_more() -> None:
    assert step_ns((Level.NOTHING, 32)) > step_ns((Level.NOTHING, 21)) > step_ns((Level.DIE, 12))


def test_gaps_get_the_median_of_their_block() -> None:
    here = host("1x2x4x1")  # cache groups 0-3 and 4-7
    samples = [measured(0, 1, 20.0), measured(1, 2, 30.0), measured(4, 5, 22.0)]
    samples.append(measured(0, 4, 90.0))
    matrix = filled(with_samples(predicted(here), samples, verdict=Verdict.TRUSTED), here)
    assert matrix.between(2, 3) == matrix.between(3, 2) == 25.0
    assert matrix.between(6, 7) == 22.0
    assert matrix.between(3, 7) == 90.0
    assert matrix.between(1, 2) == 30.0
    assert sum(matrix.measured) == 2 * len(samples)


def test_on_a_slow_host_what_was_not_measured_does_not_look_near() -> None:
    here = host("2x1x4x2")
    base = predicted(here)
    matrix = filled(
        with_samples(base, [measured(0, 1, 4000.0)], verdict=Verdict.TRUSTED),
        here,
    )
    assert matrix.between(0, 4) >= 4000.0  # the other package
    assert matrix.between(0, 8) == base.between(0, 8)  # a sibling may be that near


def test_on_a_fast_host_what_was_not_measured_does_not_look_far() -> None:
    here = host("1x2x2x1")
    matrix = filled(
        with_samples(predicted(here), [measured(0, 2, 12.0)], verdict=Verdict.TRUSTED), here
    )
    assert matrix.between(0, 1) <= 12.0


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.floats(1, 1e6)), max_size=9))
def test_filling_touches_no_measured_pair(cells: list[tuple[int, int, float]]) -> None:
    here = host("2x1x2x2")
    samples = {frozenset((i, j)): measured(i, j, ns) for i, j, ns in cells if i != j}
    before = with_samples(predicted(here), samples.values(), verdict=Verdict.TRUSTED)
    after = filled(before, here)
    for first, second in combinations(before.cpus, 2):
        assert after.between(first, second) == after.between(second, first)
        if frozenset((first, second)) in samples:
            assert after.between(first, second) == before.between(first, second)
    assert after.measured == before.measured


def test_unmeasured_pairs_take_the_median_of_their_block_before_that_of_their_step() -> None:
    here = host("1x3x2x1")  # cache groups 0-1, 2-3, 4-5
    samples = [measured(0, 2, 50.0), measured(0, 4, 90.0)]
    matrix = filled(with_samples(predicted(here), samples, verdict=Verdict.TRUSTED), here)
    assert matrix.between(1, 3) == 50.0
    assert matrix.between(1, 5) == 90.0
    assert matrix.between(3, 5) == 70.0  # nothing of this block: the step's median


def test_what_is_known_of_cpus_that_stay_is_carried_over() -> None:
    before, after = host("1x1x4x1+offline=1"), host("1x1x4x1+offline=3")
    samples = [measured(0, 2, 21.0), measured(2, 3, 22.0), measured(0, 3, 23.0)]
    base = replace(predicted(before), conditions=("as it was",))
    matrix = carried(with_samples(base, samples, verdict=Verdict.TRUSTED), after)
    assert matrix.cpus == (0, 1, 2)
    assert matrix.between(0, 2) == 21.0
    assert matrix.between(0, 1) == 21.0  # not measured, like the pair that is
    assert matrix.share_measured() == pytest.approx(1 / 3)
    assert (matrix.verdict, matrix.conditions) == (Verdict.TRUSTED, ("as it was",))


def test_nothing_known_of_any_cpu_that_stays_is_a_prediction() -> None:
    before, after = host("1x1x4x1+offline=2,3"), host("1x1x4x1+offline=1")
    known = with_samples(predicted(before), [measured(0, 1, 21.0)], verdict=Verdict.TRUSTED)
    assert carried(known, after).verdict is Verdict.PREDICTED
