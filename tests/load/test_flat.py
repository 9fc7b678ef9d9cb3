"""The judging of what stays flat."""

from dataclasses import replace

import pytest

from tests.load import flat
from tests.load.flat import Sample

REST = Sample(0, 60_000_000, 20_000_000, 300_000, 12)
LIFE = [replace(REST, events=1000 * n) for n in range(20)]


def test_the_same_all_the_time_is_flat() -> None:
    assert flat.wrong(LIFE) == []


def test_what_is_taken_while_warming_up_counts_for_nothing() -> None:
    cold = [replace(s, rss=s.rss // 2, descriptors=3) for s in LIFE[:10]]
    assert flat.wrong([*cold, *LIFE[10:]]) == []


@pytest.mark.parametrize(("name", "each"), [("rss", 300_000), ("traced", 40_000)])
def test_a_leak_is_found(name: str, each: int) -> None:
    leaking = [replace(s, **{name: getattr(s, name) + each * n}) for n, s in enumerate(LIFE)]
    (said,) = flat.wrong(leaking)
    assert said.startswith(f"{name} grows by")


def test_a_descriptor_that_is_not_closed_is_found() -> None:
    (said,) = flat.wrong([*LIFE[:-1], replace(LIFE[-1], descriptors=13)])
    assert said == "open descriptors differ: [12, 13]"


def test_growth_is_of_the_line_through_all_points() -> None:
    assert flat.growth([(0, 1.0), (1, 3.0), (2, 5.0)]) == pytest.approx(4.0)
    assert flat.growth([(0, 1.0), (1, 9.0), (2, 1.0)]) == pytest.approx(0.0)
    assert flat.growth([(5, 1.0)]) == 0.0
