"""The arithmetic of LatencyMatrix: putting samples in, taking parts, ranking, figures."""

from array import array
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.latency import (
    LatencyMatrix,
    PairSample,
    Verdict,
    restricted,
    with_samples,
)


def flat(cpus: tuple[int, ...], ns: float = 50.0) -> LatencyMatrix:
    count = len(cpus)
    cells = array("d", (0.0 if i == j else ns for i in range(count) for j in range(count)))
    return LatencyMatrix(
        tuple(map(Cpu, cpus)),
        cells,
        array("d", bytes(8 * count * count)),
        bytes(count * count),
        Verdict.PREDICTED,
        conditions=("predicted",),
    )


def pair(first: int, second: int, *batches: float) -> PairSample:
    return PairSample(Cpu(first), Cpu(second), batches, Verdict.TRUSTED)


def test_restricted_to_all_of_its_cpus_it_is_itself() -> None:
    """A matrix of 512 CPUs is 4 MB: the service keeps one, not two."""
    whole = flat((0, 2, 5))
    assert restricted(whole, CpuSet.parse("0-7")) is whole


def test_a_sample_goes_into_both_cells_and_nowhere_else() -> None:
    before = flat((0, 2, 5))
    after = with_samples(before, [pair(5, 2, 10.0, 11.0, 30.0)], verdict=Verdict.TRUSTED)
    assert after.between(2, 5) == after.between(5, 2) == 11.0
    assert after.between(0, 2) == after.between(0, 5) == 50.0
    assert after.share_measured() == pytest.approx(1 / 3)
    assert after.verdict is Verdict.TRUSTED
    assert before.between(2, 5) == 50.0
    assert not any(before.measured)


def test_samples_leave_the_conditions_alone() -> None:
    assert with_samples(flat((0, 1)), [], verdict=Verdict.TRUSTED).conditions == ("predicted",)


def test_a_sample_of_a_cpu_that_the_matrix_lacks_is_an_error() -> None:
    with pytest.raises(KeyError):
        with_samples(flat((0, 1)), [pair(0, 7, 10.0)], verdict=Verdict.TRUSTED)


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=40))
def test_value_lies_within_the_batches_and_spread_within_their_range(batches: list[float]) -> None:
    sample = pair(0, 1, *batches)
    assert min(batches) <= sample.value <= max(batches)
    assert 0 <= sample.spread <= max(batches) - min(batches)


def test_spread_ignores_a_single_outlier() -> None:
    assert pair(0, 1, 10.0, 10.0, 10.0, 10.0, 900.0).spread == 0.0


def test_ranking_orders_by_latency_then_by_number() -> None:
    matrix = with_samples(flat((0, 1, 2, 3)), [pair(0, 3, 9.0)], verdict=Verdict.TRUSTED)
    assert matrix.ranking(0) == ((3, 9.0), (1, 50.0), (2, 50.0))


@given(st.sets(st.integers(0, 30), min_size=2, max_size=8), st.integers(0, 2**31 - 1))
def test_a_part_says_what_the_whole_says(cpus: set[int], mask: int) -> None:
    ordered = tuple(sorted(cpus))
    samples = [pair(a, b, 10.0 * a + b) for a in ordered for b in ordered if a < b]
    whole = with_samples(flat(ordered), samples, verdict=Verdict.TRUSTED)
    part = restricted(whole, CpuSet(mask))
    assert set(part.cpus) == cpus & set(CpuSet(mask))
    for a in part.cpus:
        for b in part.cpus:
            assert part.between(a, b) == whole.between(a, b)


def test_summary_counts_each_pair_once() -> None:
    matrix = with_samples(
        flat((0, 1, 2)), [pair(0, 1, 10.0), pair(0, 2, 20.0)], verdict=Verdict.TRUSTED
    )
    figures = matrix.summary()
    assert (figures.low, figures.high, figures.median) == (10.0, 50.0, median([10, 20, 50]))
    assert figures.mean == pytest.approx(80 / 3)
    assert flat((0,)).summary().high == 0.0
    assert flat((0,)).share_measured() == 1.0
