"""What a run is worth: its verdict, its conditions, and what goes into the matrix."""

import pytest

from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.latency.judge import Run, judged
from proxmox_cpu_affinity.latency.protocol import ADAPTIVE, Failed, fixed_or_adaptive
from proxmox_cpu_affinity.latency.schedule import ordered_pairs
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.latency import LatencyMatrix, PairSample, Verdict
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec


def host(spec: str) -> Topology:
    return topology(generate(parse_spec(spec)))


HOST = host("1x1x6x1")
PAIRS = ordered_pairs(HOST.online, HOST)


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
    assert "not measured: 15 EINVAL, the first is 0-1" in matrix.conditions


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
