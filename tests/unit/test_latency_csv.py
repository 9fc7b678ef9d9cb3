"""The CSV that core-to-core-latency prints: written as it is, read in any half, or refused."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats import latency_csv
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.latency import LatencyMatrix, Verdict

FULL = ((0.0, 50.0, 60.5), (50.0, 0.0, 70.0), (60.5, 70.0, 0.0))


def matrix(rows: tuple[tuple[float, ...], ...]) -> LatencyMatrix:
    count = len(rows)
    cells = array("d", (ns for row in rows for ns in row))
    none = array("d", bytes(8 * count * count))
    return LatencyMatrix(
        tuple(map(Cpu, range(count))), cells, none, bytes(count * count), Verdict.TRUSTED
    )


def test_the_lower_triangle_is_written() -> None:
    assert latency_csv.to_text(matrix(FULL)) == ",,\n50.000,,\n60.500,70.000,\n"


@pytest.mark.parametrize(
    "text",
    [
        ",,\n50,,\n60.5,70,\n",
        ",,\r\n50,,\r\n60.5,70,\r\n",
        "\n50\n60.5,70\n",  # rows without the cells that say nothing
        ",50,60.5\n,,70\n,,\n",  # the upper half
        "0,50,60.5\n50,0,70\n60.5,70,0\n",
        "0,49,60\n51,0,69\n61,71,0\n",  # both halves: their mean
        "nan,NaN,\n 50 ,,nan\n6.05e1,70.0,\n\n\n",
    ],
)
def test_any_half_is_read(text: str) -> None:
    assert latency_csv.parse(text) == FULL


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "two rows"),
        ("5", "two rows"),
        (",,\n50,,\n60.5,,\n", "no latency between CPUs 1 and 2"),
        (",\n50,1,2\n", "row 2: 3 cells in 2 rows"),
        (",\nfast,\n", "row 2: 'fast' is no latency"),
        (",\n-5,\n", "no latency"),
        (",\ninf,\n", "no latency"),
        (",\n1_0,\n", "no latency"),
        (",\n٣,\n", "no latency"),
        ("\n" * 9000 + "1", "more than 8192 CPUs"),
        ("CPU,0,1\n0,,\n", "row 1: 3 cells in 2 rows"),
    ],
)
def test_anything_else_is_a_located_fault(text: str, why: str) -> None:
    with pytest.raises(SyntaxFault) as fault:
        latency_csv.parse(text, where="x.csv")
    assert why in fault.value.text
    assert str(fault.value).startswith("x.csv: ")


@given(
    st.integers(2, 9).flatmap(lambda n: st.lists(st.floats(0, 1e5), min_size=n * n, max_size=n * n))
)
def test_what_is_written_is_read_back(values: list[float]) -> None:
    count = int(len(values) ** 0.5)
    rows = tuple(
        tuple(
            0.0 if i == j else round(values[max(i, j) * count + min(i, j)], 3) for j in range(count)
        )
        for i in range(count)
    )
    read = latency_csv.parse(latency_csv.to_text(matrix(rows)))
    assert all(
        a == pytest.approx(b, abs=1e-3)
        for ours, theirs in zip(rows, read, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )


@given(st.text(alphabet="0123456789,.\n -naif", max_size=60))
def test_any_text_is_a_matrix_or_a_fault(text: str) -> None:
    try:
        rows = latency_csv.parse(text)
    except SyntaxFault:
        return
    assert all(rows[i][j] == rows[j][i] >= 0 for i in range(len(rows)) for j in range(len(rows)))
