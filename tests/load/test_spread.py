"""The figures of a few starts, and of a benchmark's few rounds."""

from bench.report import tenths

from tests.load.starts import spread


def test_no_figure_lies_outside_of_what_was_measured() -> None:
    """Of few values the 99th percentile lay above the most: it was extrapolated."""
    values = [0.01 * n for n in range(3, 43, 4)]
    assert spread(values) == "0.21 s (0.35, 0.39, most 0.39)"
    low, high = tenths(values)
    assert (round(low, 3), round(high, 3)) == (0.066, 0.354)
    assert min(values) <= low <= high <= max(values)
