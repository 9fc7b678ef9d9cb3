"""Latencies as text: the square with spreads, the growing triangle, figures with their pairs."""

from array import array

import pytest

from proxmox_cpu_affinity.cli import latencies
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.latency import LatencyMatrix, PairSample, Verdict
from proxmox_cpu_affinity.render.trust import to_do
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

HOST = topology(generate(parse_spec("1x1x3x1")))
CPUS = tuple(map(Cpu, range(3)))


def matrix(*, measured: bytes = b"\0\1\0\1\0\1\0\1\0") -> LatencyMatrix:
    ns = array("d", [0, 30, 80, 30, 0, 50.4, 80, 50.4, 0])
    spread = array("d", [0, 2, 0, 2, 0, 0, 0, 0, 0])
    return LatencyMatrix(CPUS, ns, spread, measured, Verdict.TRUSTED)


def test_cells_have_their_spread_and_what_was_not_measured_a_question_mark() -> None:
    headers, rows = latencies.square(matrix(), latencies.with_spread(matrix()))
    assert headers == ["CPU", "0", "1", "2"]
    assert rows == [(0, ".", "30±2", "80?"), (1, "30±2", ".", "50"), (2, "80?", "50", ".")]
    assert latencies.square(matrix(), latencies.without_spread(matrix()))[1][0] == (
        *(0, ".", "30", "80"),
    )


def test_figures_of_one_pair_name_it() -> None:
    lines = dict(latencies.figures(HOST, matrix()))
    assert lines["Min (Best)"] == "30.00 ns  (CPUs 0 and 1, ±2.00)"
    assert lines["Max (Worst)"] == "80.00 ns  (CPUs 0 and 2, predicted)"
    assert lines["Median"] == "50.40 ns  (CPUs 1 and 2)"
    assert lines["Mean"] == "53.47 ns"


def test_a_single_cpu_has_no_pair_to_name() -> None:
    alone = topology(generate(parse_spec("1x1x1x1")))
    one = LatencyMatrix((Cpu(0),), array("d", [0]), array("d", [0]), b"\0", Verdict.PREDICTED)
    assert "CPUs" not in str(latencies.figures(alone, one)[2:])


def test_the_triangle_grows_with_what_is_known() -> None:
    found = {
        (Cpu(0), Cpu(1)): PairSample(Cpu(0), Cpu(1), (30.0, 31.0, 32.0), Verdict.TRUSTED),
        (Cpu(1), Cpu(2)): None,
    }
    assert latencies.growing(CPUS, found) == [
        "       0   1   2",
        "   0",
        "   1  31",
        "   2       -",
    ]


@pytest.mark.parametrize(
    ("verdict", "conditions", "advice"),
    [
        (Verdict.TRUSTED, [], ""),
        (Verdict.TRUSTED, ["virtual machine: latencies move with the hypervisor"], ""),
        (Verdict.PREDICTED, ["predicted from the topology"], ""),
        (Verdict.UNSTABLE, ["unstable: host busy (pressure 40 %)"], "again"),
        (Verdict.TRUSTED, ["sysfs contradicted: CPUs 0-1: ..."], "lscpu"),
        (Verdict.TRUSTED, ["3 pairs left out: lines lay on a third NUMA node"], "memory"),
    ],
)
def test_what_to_do(verdict: Verdict, conditions: list[str], advice: str) -> None:
    said = to_do(verdict, conditions, again="measure again")
    assert advice in said
    assert bool(advice) == bool(said)
