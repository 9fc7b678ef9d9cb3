"""The CPU set: the algebra of Python's sets, the kernel's list form, its limits."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.model.cpuset import CPU_LIMIT, EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault

cpus = st.sets(st.integers(0, 300), max_size=40) | st.sets(st.integers(0, CPU_LIMIT - 1))
Operation = Callable[[CpuSet, CpuSet], CpuSet]
PythonOperation = Callable[[set[int], set[int]], set[int]]


@pytest.mark.parametrize(
    ("ours", "pythons"),
    [
        (CpuSet.__or__, set[int].__or__),
        (CpuSet.__and__, set[int].__and__),
        (CpuSet.__sub__, set[int].__sub__),
    ],
    ids=["union", "intersection", "difference"],
)
@given(first=cpus, second=cpus)
def test_operations_are_those_of_sets(
    ours: Operation, pythons: PythonOperation, first: set[int], second: set[int]
) -> None:
    result = ours(CpuSet.of(first), CpuSet.of(second))
    assert list(result) == sorted(pythons(first, second))
    assert result == CpuSet.of(pythons(first, second))
    assert hash(result) == hash(CpuSet.of(pythons(first, second)))


@given(first=cpus, second=cpus)
def test_comparisons_are_those_of_sets(first: set[int], second: set[int]) -> None:
    one, other = CpuSet.of(first), CpuSet.of(second)
    assert (one <= other) == (first <= second)
    assert (one == other) == (first == second)
    assert one.overlaps(other) == (not first.isdisjoint(second))
    assert one & other <= one <= one | other


@given(members=cpus, asked=st.integers(-3, 400))
def test_a_set_knows_its_members(members: set[int], asked: int) -> None:
    found = CpuSet.of(members)
    assert list(found) == sorted(members)
    assert len(found) == len(members)
    assert bool(found) == bool(members)
    assert (asked in found) == (asked in members)


@given(members=cpus.filter(bool))
def test_first_is_the_lowest(members: set[int]) -> None:
    assert CpuSet.of(members).first() == min(members)


def test_the_empty_set_has_no_first_cpu() -> None:
    with pytest.raises(ValueError, match="no first CPU"):
        EMPTY.first()


def test_no_set_has_a_negative_cpu() -> None:
    with pytest.raises(ValueError, match="negative"):
        CpuSet(-1)
    with pytest.raises(ValueError, match="negative"):
        CpuSet.of([-1])


@given(members=cpus)
def test_text_and_back(members: set[int]) -> None:
    assert CpuSet.parse(str(CpuSet.of(members))) == CpuSet.of(members)


@given(members=cpus)
def test_text_is_the_shortest_form_in_ascending_order(members: set[int]) -> None:
    parts = [part.split("-") for part in str(CpuSet.of(members)).split(",")] if members else []
    ends = [(int(part[0]), int(part[-1])) for part in parts]
    assert all(low <= high for low, high in ends)
    assert all(len(part) == 1 or part[0] != part[1] for part in parts)
    assert all(high + 1 < low for (_, high), (low, _) in pairwise(ends))


@given(parts=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 20)), min_size=1))
def test_parts_may_overlap_repeat_and_have_blanks_around(parts: list[tuple[int, int]]) -> None:
    text = " , ".join(f"{low}-{low + more}" if more else f"{low:03}" for low, more in parts)
    expected = {cpu for low, more in parts for cpu in range(low, low + more + 1)}
    assert CpuSet.parse(f" {text}\n") == CpuSet.of(expected)


@pytest.mark.parametrize("text", ["", " ", "\n", "\t\n"])
def test_blank_text_is_the_empty_set(text: str) -> None:
    assert CpuSet.parse(text) == EMPTY


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("1,,2", "''"),
        (",", "''"),
        ("0-3,", "''"),
        ("-3", "'-3'"),
        ("3-", "'3-'"),
        ("0-3-5", "'0-3-5'"),
        ("0,7-4,9", "'7-4'"),
        ("0-31:2/8", "'0-31:2/8'"),
        ("0, 4 - 6", "'4 - 6'"),
        ("0 1", "'0 1'"),
        ("0,all", "'all'"),
        ("1,+2", "'+2'"),
        ("0x3", "'0x3'"),
        ("1.5", "'1.5'"),
        ("1_0", "'1_0'"),
        ("²", "'²'"),  # a digit to Python, none to a kernel
        ("٣", "'٣'"),
        ("1\x002", r"'1\x002'"),
        ("(null)", "'(null)'"),
    ],
)
def test_malformed_text_names_its_part(text: str, part: str) -> None:
    with pytest.raises(SyntaxFault) as caught:
        CpuSet.parse(text)
    assert part in caught.value.text


@pytest.mark.parametrize("text", [str(CPU_LIMIT), f"0-{CPU_LIMIT}", "999999999", "9" * 5000])
def test_numbers_beyond_any_machine_are_refused(text: str) -> None:
    with pytest.raises(SyntaxFault):
        CpuSet.parse(text)


def test_the_largest_number_is_taken() -> None:
    assert list(CpuSet.parse(str(CPU_LIMIT - 1))) == [CPU_LIMIT - 1]
    assert len(CpuSet.parse(f"0-{CPU_LIMIT - 1}")) == CPU_LIMIT


@given(text=st.text(max_size=30) | st.text(alphabet="0123456789-, \n", max_size=30))
def test_any_text_is_a_set_or_a_fault(text: str) -> None:
    try:
        found = CpuSet.parse(text)
    except SyntaxFault:
        return
    assert CpuSet.parse(str(found)) == found


def test_what_this_kernel_writes_is_read() -> None:
    text = Path("/sys/devices/system/cpu/online").read_text()
    assert str(CpuSet.parse(text)) == text.strip()
