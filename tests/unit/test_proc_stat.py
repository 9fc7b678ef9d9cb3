"""The load of the CPUs, from two readings of /proc/stat."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats.procfs import busy_between, cpu_times

TEXT = """cpu  100 0 100 800 0 0 0 0 0 0
cpu0 50 0 50 400 0 0 0 0 7 0
cpu10 10 5 20 300 60 1 2 3 9 9
intr 1234 5 6
ctxt 99
cpufreq 1 2 3 4
"""


def test_each_cpu_has_its_busy_and_all_its_ticks() -> None:
    """Guests' ticks (the last two) are in user's and nice's already (proc(5))."""
    assert cpu_times(TEXT) == {0: (100, 500), 10: (41, 401)}


def test_old_kernels_have_fewer_columns() -> None:
    assert cpu_times("cpu3 1 2 3 4\n") == {3: (6, 10)}


@given(text=st.text())
def test_no_text_is_too_strange(text: str) -> None:
    assert all(0 <= busy <= every for busy, every in cpu_times(text).values())


@pytest.mark.parametrize(
    ("before", "after", "busy"),
    [
        ({0: (10, 100)}, {0: (60, 200)}, {0: 0.5}),
        ({0: (10, 100)}, {0: (10, 100)}, {0: 0.0}),  # tickless, or asked twice at once
        ({0: (10, 100), 1: (0, 0)}, {0: (110, 200), 2: (5, 5)}, {0: 1.0}),  # 1 went, 2 came
        ({0: (90, 100)}, {0: (5, 110)}, {0: 0.0}),  # counters that went back
        ({}, {0: (1, 2)}, {}),
    ],
)
def test_busy_is_the_share_of_what_passed(
    before: dict[int, tuple[int, int]],
    after: dict[int, tuple[int, int]],
    busy: dict[int, float],
) -> None:
    assert busy_between(before, after) == busy
