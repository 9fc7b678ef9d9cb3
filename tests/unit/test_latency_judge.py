"""What a run is worth: its verdict, its conditions, and what goes into the matrix."""

import pytest

from proxmox_cpu_affinity.latency.judge import Run, disturbed, judged
from proxmox_cpu_affinity.latency.predict import carried
from proxmox_cpu_affinity.latency.protocol import (
    ADAPTIVE,
    Failed,
    Home,
    Parameters,
    fixed_or_adaptive,
)
from proxmox_cpu_affinity.latency.schedule import Pair, rounds
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Cpu, NodeId
from proxmox_cpu_affinity.model.latency import LatencyMatrix, PairSample, Verdict
from proxmox_cpu_affinity.model.topology import Topology
from tests.unit.engine_hosts import topology_of as host

HOST = host("1x1x6x1")


def pairs_of(here: Topology) -> tuple[Pair, ...]:
    plan = rounds(here.online, here, cores=len(here.cores))
    return tuple(pair for each in plan for pair in each.pairs)


PAIRS = pairs_of(HOST)


def samples(unstable: int = 0, ns: float = 30.0) -> tuple[PairSample, ...]:
    return tuple(
        PairSample(a, b, (900.0,) * 3, Verdict.UNSTABLE)
        if i < unstable
        else PairSample(a, b, (ns, ns, ns), Verdict.TRUSTED)
        for i, (a, b) in enumerate(PAIRS)
    )


def said(matrix: LatencyMatrix) -> str:
    return "; ".join(matrix.conditions)


def test_a_quiet_run_is_trusted_and_has_nothing_to_say() -> None:
    matrix = judged(HOST, Run(15, samples()), ADAPTIVE, pressure_before=0.01, pressure_after=0.02)
    assert matrix.verdict is Verdict.TRUSTED
    assert matrix.conditions == ()
    assert matrix.share_measured() == 1.0


def test_a_virtual_machine_is_named() -> None:
    matrix = judged(host("1x1x6x1+vm"), Run(15, samples()), ADAPTIVE)
    assert "virtual machine: latencies move with the hypervisor" in matrix.conditions
    assert matrix.verdict is Verdict.TRUSTED


def test_a_busy_host_makes_the_run_unstable() -> None:
    matrix = judged(HOST, Run(15, samples()), ADAPTIVE, pressure_before=0.4)
    assert matrix.verdict is Verdict.UNSTABLE
    assert "unstable: host busy (pressure 40 %)" in matrix.conditions
    assert matrix.share_measured() == 1.0


def test_pressure_that_came_with_the_run_is_only_told() -> None:
    matrix = judged(HOST, Run(15, samples()), ADAPTIVE, pressure_before=0.0, pressure_after=0.43)
    assert matrix.verdict is Verdict.TRUSTED
    assert "host busy at the end (pressure 43 %)" in matrix.conditions


def test_a_few_unstable_pairs_give_way_to_the_median_of_their_level() -> None:
    matrix = judged(HOST, Run(15, samples(1)), ADAPTIVE)
    assert matrix.verdict is Verdict.TRUSTED
    assert matrix.between(*PAIRS[0]) == 30.0
    assert matrix.share_measured() == pytest.approx(14 / 15)
    assert "1 of 15 pairs unstable" in matrix.conditions


def test_many_unstable_pairs_make_the_run_unstable_and_are_shown() -> None:
    matrix = judged(HOST, Run(15, samples(5)), ADAPTIVE)
    assert matrix.verdict is Verdict.UNSTABLE
    assert matrix.between(*PAIRS[0]) == 900.0


def test_nothing_measured_is_a_prediction_with_its_reason() -> None:
    failed = tuple(Failed(pair, "EINVAL") for pair in PAIRS)
    matrix = judged(HOST, Run(15, failed=failed), ADAPTIVE)
    assert matrix.verdict is Verdict.PREDICTED
    assert "nothing measured" in said(matrix)
    assert f"not measured: 15 EINVAL, the first is {PAIRS[0][0]}-{PAIRS[0][1]}" in matrix.conditions


def test_a_cut_run_keeps_what_it_has_and_says_so() -> None:
    run = Run(15, samples()[:4], cut="time limit of 120 s reached")
    matrix = judged(HOST, run, ADAPTIVE)
    assert matrix.verdict is Verdict.TRUSTED
    assert matrix.share_measured() == pytest.approx(4 / 15)
    assert "time limit of 120 s reached: 4 of 15 pairs measured" in matrix.conditions


def test_cpus_outside_are_named_and_predicted() -> None:
    inside = tuple(s for s in samples() if s.first < 4 and s.second < 4)
    matrix = judged(HOST, Run(6, inside), ADAPTIVE, outside=CpuSet.parse("4-5"))
    assert matrix.verdict is Verdict.TRUSTED
    assert matrix.cpus == tuple(map(Cpu, range(6)))
    assert matrix.between(0, 5) == 30.0
    assert "not measurable here, predicted: CPUs 4-5" in matrix.conditions


def test_fixed_batches_are_said() -> None:
    matrix = judged(HOST, Run(15, samples()), fixed_or_adaptive(3, 500))
    assert matrix.conditions == ("fixed batches: 3 of 500 round trips a pair",)


def test_bursts_and_lowered_parallelism_are_said() -> None:
    matrix = judged(HOST, Run(15, samples(), lowered=2, beside=7), ADAPTIVE)
    assert "pairs disturb each other: 2 at once" in matrix.conditions
    assert "7 pairs measured in short bursts, beside guests" in matrix.conditions
    matrix = judged(HOST, Run(1, samples()[:1], beside=1, cut="ended"), ADAPTIVE)
    assert "1 pair measured in short bursts, beside guests" in matrix.conditions
    assert "ended: 1 of 1 pair measured" in matrix.conditions


def sample_of(ns: float, pair: Pair = PAIRS[0], verdict: Verdict = Verdict.TRUSTED) -> PairSample:
    return PairSample(*pair, (ns, ns, ns), verdict)


@pytest.mark.parametrize(
    ("together", "alone", "expected"),
    [
        ([30, 31, 30], [30, 30, 30], False),
        ([40, 41, 39], [30, 30, 30], True),
        ([25, 25, 25], [30, 30, 30], True),
        ([30, 31, 300], [30, 30, 30], False),  # one outlier is no rule
        ([], [], False),
    ],
)
def test_pairs_that_differ_alone_disturb_each_other(
    *, together: list[float], alone: list[float], expected: bool
) -> None:
    pairs = PAIRS[:3]
    both = [
        [sample_of(ns, pair) for ns, pair in zip(values, pairs, strict=False)]
        for values in (together, alone)
    ]
    assert disturbed(*both) is expected


def test_unstable_pairs_say_nothing_of_disturbance() -> None:
    wild = [sample_of(90, verdict=Verdict.UNSTABLE)]
    assert not disturbed(wild, [sample_of(30)])
    assert not disturbed([sample_of(30)], wild)
    assert not disturbed([sample_of(90, PAIRS[0])], [sample_of(30, PAIRS[1])])


NODES = host("2x1x2x1+nodes=1")


def on_node(node: int | None, first: int, second: int) -> PairSample:
    home = None if node is None else NodeId(node)
    return PairSample(Cpu(first), Cpu(second), (50.0,) * 3, Verdict.TRUSTED, home)


@pytest.mark.parametrize(
    ("home", "node", "left_out"),
    [(Home.FIRST, 0, 0), (Home.FIRST, 1, 1), (Home.SECOND, 1, 0), (Home.FIRST, None, 0)],
)
def test_lines_on_another_node_than_the_homes_are_left_out(
    home: Home, node: int | None, left_out: int
) -> None:
    run = Run(1, (on_node(node, 0, 3),))
    matrix = judged(NODES, run, Parameters(home=home))
    assert ("left out" in said(matrix)) is bool(left_out)
    assert (matrix.verdict is Verdict.PREDICTED) is bool(left_out)


def test_a_node_without_memory_borrows_another_ones() -> None:
    bare = host("2x1x2x1+memoryless=0")
    matrix = judged(bare, Run(1, (on_node(1, 0, 3),)), ADAPTIVE)
    assert matrix.verdict is Verdict.TRUSTED


def test_what_is_known_is_added_to() -> None:
    small, large = host("1x1x4x1+offline=3"), host("1x1x4x1")
    three = tuple(PairSample(*p, (20.0,) * 3, Verdict.TRUSTED) for p in pairs_of(small))
    known = carried(judged(small, Run(3, three), ADAPTIVE), large)
    new = (PairSample(Cpu(0), Cpu(3), (44.0,) * 3, Verdict.TRUSTED),)
    matrix = judged(large, Run(1, new), ADAPTIVE, known=known)
    assert matrix.verdict is Verdict.TRUSTED
    assert (matrix.between(0, 1), matrix.between(0, 3)) == (20.0, 44.0)
    assert matrix.share_measured() == pytest.approx(4 / 6)


def test_nothing_new_leaves_what_is_known() -> None:
    known = judged(HOST, Run(15, samples()), fixed_or_adaptive(3, 500))
    again = judged(HOST, Run(0), ADAPTIVE, known=known)
    assert (again.ns, again.verdict, again.conditions) == (
        known.ns,
        Verdict.TRUSTED,
        known.conditions,
    )


def test_a_trusted_matrix_that_contradicts_sysfs_says_so() -> None:
    smt = host("1x1x2x2")  # CPU 0 and 2 are siblings
    far = {(0, 2): 90.0, (1, 3): 90.0}
    got = tuple(sample_of(far.get(pair, 30.0), pair) for pair in pairs_of(smt))
    matrix = judged(smt, Run(6, got), ADAPTIVE)
    assert "sysfs contradicted: CPUs 0,2 and 1 more core: SMT siblings" in said(matrix)
