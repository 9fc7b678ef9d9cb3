"""Measuring a host as a whole: known latencies come out, guests are left alone, hotplug is cheap.

Latencies come from a simulated program with noise and outliers; only the manners towards guests
are looked at with the real one.
"""

import asyncio
import errno
import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Never

import pytest
from bench import remeasure
from bench.latency import full_load

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.formats.settings import Settings
from proxmox_cpu_affinity.latency import probe, talk
from proxmox_cpu_affinity.latency.judge import Run, judged
from proxmox_cpu_affinity.latency.predict import predicted, steps
from proxmox_cpu_affinity.latency.probe import measure, measure_host
from proxmox_cpu_affinity.latency.program import find_program
from proxmox_cpu_affinity.latency.protocol import ADAPTIVE, BURST_US, Parameters, fixed_or_adaptive
from proxmox_cpu_affinity.latency.schedule import COARSE, Round, Stage, cores_at_once, rounds
from proxmox_cpu_affinity.linux.threads import own_cpus
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.latency import LatencyMatrix, Verdict
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.ports import Loaded
from proxmox_cpu_affinity.service.host import HostWatch
from proxmox_cpu_affinity.service.measuring import Attempt
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.store import JsonFile
from tests.integration.measuring import Recorded, Rows, recorded
from tests.integration.running import Running, add_guest
from tests.unit.engine_hosts import topology_of as host


def machine(here: Topology, seed: int) -> Rows:
    """Latencies of a made-up machine: each block has its own level, each pair differs a little."""
    chance = random.Random(seed)
    count = len(here.online)
    rows = [[0.0] * count for _ in range(count)]
    levels: dict[object, float] = {}
    base = predicted(here)
    for i, j, step in steps(here, here.places):
        groups = sorted((here.places[i].llc, here.places[j].llc))
        block = (step, *groups)
        factor = levels.setdefault(block, chance.uniform(0.85, 1.3))
        rows[i][j] = rows[j][i] = base.ns[i * count + j] * factor * chance.uniform(0.95, 1.05)
    return rows


# Known latencies


@pytest.mark.parametrize(
    ("spec", "noise"),
    [
        ("1x1x6x2", 0.02),
        ("1x4x4x2", 0.02),
        ("2x2x6x2+nodes=2", 0.02),
        ("1x2x4x2+8e", 0.03),
        ("2x4x4x1+gaps=4-9", 0.03),
        ("4x1x6x4", 0.02),
    ],
)
def test_a_machine_measured_again_has_the_same_blocks(
    spec: str, noise: float, tmp_path: Path
) -> None:
    here = host(spec)
    got = remeasure.compared(here, machine(here, 7), tmp_path, seed=3, noise=noise)
    assert got.verdict == Verdict.TRUSTED
    assert got.coarse < 0.25
    assert got.whole < 0.05
    assert got.swapped == 0


def run_of(made: Recorded, here: Topology, **how: float) -> Run:
    plan = rounds(here.online, here, cores=cores_at_once(here, how.get("share", 0.5)))
    return asyncio.run(measure(plan, ADAPTIVE, program=made.program))


def test_pairs_that_disturb_each_other_are_measured_fewer_at_once(tmp_path: Path) -> None:
    here = host("1x1x16x1")
    rows = machine(here, 1)
    made = recorded(tmp_path, rows, disturbed=1.5)
    run = run_of(made, here)
    assert run.lowered == 1
    assert len(run.samples) == run.wanted == 120
    assert len({sample.pair for sample in run.samples}) == 120
    for sample in run.samples:
        assert sample.value == pytest.approx(rows[sample.first][sample.second], rel=0.1)
    assert "pairs disturb each other: 1 at once" in judged(here, run, ADAPTIVE).conditions


def test_pairs_that_leave_each_other_be_go_on_at_once(tmp_path: Path) -> None:
    here = host("1x1x16x1")
    made = recorded(tmp_path, machine(here, 1))
    run = run_of(made, here)
    assert run.lowered == 0
    assert max(len(pairs) for order in made.orders() for pairs in order.rounds) == 4
    alone = [order for order in made.orders() if all(len(pairs) == 1 for pairs in order.rounds)]
    assert alone, "no pair was measured again alone"


@pytest.mark.parametrize(("share", "pairs"), [(0.1, 1), (0.5, 4), (1.0, 8)])
def test_the_share_of_cores_bounds_the_pairs_at_once(
    share: float, pairs: int, tmp_path: Path
) -> None:
    here = host("1x1x16x1")
    made = recorded(tmp_path, machine(here, 1))
    run_of(made, here, share=share)
    assert max(len(each) for order in made.orders() for each in order.rounds) == pairs


def test_the_coarse_picture_comes_first(tmp_path: Path) -> None:
    here = host("2x2x4x2")
    made = recorded(tmp_path, machine(here, 1))
    run_of(made, here)
    plan = rounds(here.online, here, cores=cores_at_once(here, 0.5))
    coarse = {pair for each in plan if each.stage <= COARSE for pair in each.pairs}
    first_fine = next(i for i, order in enumerate(made.orders()) if not set(order.pairs) <= coarse)
    seen = {pair for order in made.orders()[:first_fine] for pair in order.pairs}
    assert seen == coarse


# Manners


def test_pairs_that_guests_hold_come_last_alone_and_in_bursts(tmp_path: Path) -> None:
    here = host("1x2x4x1")
    held = CpuSet.parse("0-1,6")
    made = recorded(tmp_path, machine(here, 1))
    plan = rounds(here.online, here, cores=8)
    run = asyncio.run(measure(plan, ADAPTIVE, program=made.program, held=lambda: held))
    assert len(run.samples) == run.wanted == 28
    touching = {s.pair for s in run.samples if s.first in held or s.second in held}
    assert run.beside == len(touching)
    for order in made.orders():
        burst = order.limit_us == BURST_US
        assert all((pair in touching) == burst for pair in order.pairs)
        assert not burst or len(order.rounds) == 1  # each followed by a rest


def test_guests_that_come_meanwhile_are_noticed(tmp_path: Path) -> None:
    here = host("1x1x24x1")
    made = recorded(tmp_path, machine(here, 1))
    asked = 0

    def held() -> CpuSet:
        nonlocal asked
        asked += 1
        return CpuSet.parse("3") if asked > 2 else EMPTY

    plan = rounds(here.online, here, cores=2)
    run = asyncio.run(measure(plan, ADAPTIVE, program=made.program, held=held))
    assert len(run.samples) == run.wanted
    assert 0 < run.beside < 23
    late = [
        pair for order in made.orders()[2:] if order.limit_us != BURST_US for pair in order.pairs
    ]
    assert late
    assert not any(3 in pair for pair in late)


needs_two_cpus = pytest.mark.skipif(len(own_cpus()) < 2, reason="needs two CPUs")


@needs_two_cpus
def test_bursts_take_a_tenth_of_a_cpu_s_time_at_most() -> None:
    """By the kernel's account of the real program; other load only makes the share smaller."""
    a, b = tuple(own_cpus())[:2]
    plan = [Round(Stage.CORES, ((a, b),))] * 60
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    run = asyncio.run(measure(plan, ADAPTIVE, program=find_program(), held=own_cpus))
    elapsed = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert run.beside == 60
    assert used / 2 < 0.13 * elapsed + 0.02, (used, elapsed)  # 0.02 s: its start


@needs_two_cpus
def test_a_burst_is_short() -> None:
    """Even of a pair that cannot come to an end: its two threads use 1 ms each at most."""
    a, b = tuple(own_cpus())[:2]
    endless = Parameters(trips=100_000_000, time_limit=60)
    plan = [Round(Stage.CORES, ((a, b),))] * 20
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = asyncio.run(measure(plan, endless, program=find_program(), held=own_cpus))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert {failed.reason for failed in run.failed} == {"ETIMEDOUT"}
    assert len(run.failed) == run.beside == 20
    assert used < 20 * probe._BURST_TRIES * 2 * 0.001 + 0.02


@needs_two_cpus
def test_a_burst_that_comes_to_nothing_is_made_again() -> None:
    """Both threads must run at once, which on a busy host many a burst waits for in vain."""
    a, b = tuple(own_cpus())[:2]
    plan = [Round(Stage.CORES, ((a, b),))] * 8
    with full_load():
        run = asyncio.run(measure(plan, ADAPTIVE, program=find_program(), held=own_cpus))
    assert run.samples
    assert len(run.samples) + len(run.failed) == run.beside == 8


def test_a_program_that_hangs_is_killed_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "_SLACK", 0.2)
    program = tmp_path / "pingpong"
    program.write_text("#!/bin/sh\necho pingpong 2\nexec sleep 60\n")
    program.chmod(0o755)
    plan = [Round(Stage.CORES, ((Cpu(0), Cpu(1)),))]
    run = asyncio.run(measure(plan, Parameters(patience_ms=1), program=program))
    assert run.cut == "the measuring program hung and was killed"


def test_what_cannot_be_measured_stays_predicted_and_is_named(tmp_path: Path) -> None:
    here = host("1x1x4x1")
    made = recorded(tmp_path, machine(here, 1), failing=[[0, 3], [1, 2]])
    run = run_of(made, here)
    matrix = judged(here, run, ADAPTIVE)
    assert matrix.share_measured() == pytest.approx(4 / 6)
    assert any(text.startswith("not measured: 2 EINVAL") for text in matrix.conditions)


def test_other_work_goes_on_while_a_large_host_is_measured(tmp_path: Path) -> None:
    """Ticks of the same event loop between the answers of a run of 8128 pairs."""
    here = host("2x4x8x2")
    made = recorded(tmp_path, machine(here, 1), noise=0.0, outliers=0.0)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def both() -> int:
        task = asyncio.create_task(tick())
        matrix = await measure_host(
            here, tree=Tree(tmp_path), program=made.program, usable=here.online
        )
        task.cancel()
        assert matrix.share_measured() == 1.0
        return ticks

    assert asyncio.run(both()) > 8128 / 16


# The service's host


def write_host(root: Path, spec: str) -> None:
    for path, text in generate(parse_spec(spec)).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def set_pressure(root: Path, share: float) -> None:
    (root / "proc/pressure").mkdir(parents=True, exist_ok=True)
    (root / "proc/pressure/cpu").write_text(f"some avg10={100 * share:.2f} avg60=0.00 total=1\n")


class Measured:
    """A host watch below a folder, whose program knows a machine of eight CPUs."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.rows = machine(host("1x2x4x1"), 1)
        self.made = recorded(folder, self.rows)
        self.show("1x2x4x1")
        self.watch = self.new()

    def new(self) -> HostWatch:
        """As after a restart of the service."""
        environment = {"PCA_PINGPONG": str(self.made.program)}
        return HostWatch(Tree(self.root), JsonFile(self.root / "matrix.json"), environment)

    def show(self, spec: str) -> None:
        write_host(self.root, spec)
        (self.root / "proc/cpuinfo").write_text("model name\t: The same machine\n")

    def measure(self, settings: Settings | None = None) -> Attempt:
        self.made.forget()
        return asyncio.run(self.watch.measure(settings or Settings()))

    def asked(self) -> set[tuple[int, int]]:
        return {pair for order in self.made.orders() for pair in order.pairs}


@pytest.fixture
def on_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measured:
    monkeypatch.setattr(probe, "own_cpus", lambda: CpuSet.parse("0-7"))
    return Measured(tmp_path)


def test_a_new_cpu_has_only_its_own_pairs_measured(on_host: Measured) -> None:
    on_host.show("1x2x4x1+offline=5")
    on_host.watch.read()
    assert on_host.measure() == Attempt(changed=True, settled=True)
    assert len(on_host.asked()) == 21
    on_host.show("1x2x4x1")
    assert on_host.watch.changed()
    on_host.watch.read()
    assert on_host.watch.matrix.verdict is Verdict.TRUSTED
    assert on_host.watch.matrix.share_measured() == pytest.approx(21 / 28)
    assert on_host.measure() == Attempt(changed=True, settled=True)
    assert on_host.asked() == {tuple(sorted((5, other))) for other in range(8) if other != 5}
    matrix = on_host.watch.matrix
    assert matrix.share_measured() == 1.0
    assert matrix.between(5, 6) == pytest.approx(on_host.rows[5][6], rel=0.1)


def test_a_cpu_that_goes_has_nothing_measured(on_host: Measured) -> None:
    on_host.watch.read()
    on_host.measure()
    on_host.show("1x2x4x1+offline=2,3")
    on_host.watch.read()
    assert on_host.watch.matrix.cpus == (0, 1, 4, 5, 6, 7)
    assert on_host.watch.matrix.share_measured() == 1.0
    assert on_host.measure() == Attempt(changed=False, settled=True)
    assert on_host.asked() == set()


class Looked(JsonFile):
    """The cache's file; `look` is called in the middle of each reading of the host."""

    look: ClassVar[Callable[[], None]]

    def load(self, *, set_aside: bool = True) -> Loaded:
        Looked.look()
        return super().load(set_aside=set_aside)


def test_what_is_known_is_of_one_piece_while_the_host_is_read(on_host: Measured) -> None:
    """It is read in a thread; answers meanwhile were of the new CPUs, with the old matrix."""
    watch = on_host.watch
    watch.read()
    seen: list[tuple[int, int]] = []
    Looked.look = lambda: seen.append((len(watch.topology.online), len(watch.matrix.cpus)))
    watch.cache_file = Looked(watch.cache_file.path)
    on_host.show("1x2x4x1+offline=5")
    watch.read()
    assert seen == [(8, 8)]
    assert (len(watch.topology.online), len(watch.matrix.cpus)) == (7, 7)


class Hotplugged(HostWatch):
    """A CPU goes, and is noticed, when a matrix is about to be written."""

    gone: ClassVar[Callable[[], None]]

    def _keep(self, matrix: LatencyMatrix, fingerprint: str) -> None:
        Hotplugged.gone()
        self.read()
        super()._keep(matrix, fingerprint)


def test_a_matrix_is_kept_for_the_cpus_it_was_measured_on(on_host: Measured) -> None:
    """It got the facts of the host at the time of writing: the next start failed for want of
    a CPU that the matrix had."""
    seven = "1x2x4x1+offline=5"
    Hotplugged.gone = lambda: on_host.show(seven)
    watch = Hotplugged(on_host.watch.tree, on_host.watch.cache_file, on_host.watch.environment)
    watch.read()
    assert asyncio.run(watch.measure(Settings())).changed
    again = on_host.new()
    again.read()
    assert (again.from_cache, len(again.matrix.cpus)) == (False, 7)
    on_host.show("1x2x4x1")
    again.read()
    assert (again.from_cache, len(again.matrix.cpus)) == (True, 8)


def test_another_machine_has_everything_measured(on_host: Measured) -> None:
    on_host.watch.read()
    on_host.measure()
    bios = on_host.root / "sys/class/dmi/id/bios_version"
    bios.parent.mkdir(parents=True)
    bios.write_text("2.0\n")
    on_host.watch.read()
    assert on_host.watch.matrix.verdict is Verdict.PREDICTED
    on_host.measure()
    assert len(on_host.asked()) == 28


def test_an_unstable_run_never_replaces_a_trusted_one(on_host: Measured) -> None:
    on_host.show("1x2x4x1+offline=5")
    on_host.watch.read()
    on_host.measure()
    on_host.show("1x2x4x1")
    on_host.watch.read()
    trusted = on_host.watch.matrix
    set_pressure(on_host.root, 0.4)
    assert on_host.measure() == Attempt(changed=False, settled=False)
    assert on_host.watch.matrix is trusted
    set_pressure(on_host.root, 0.0)
    assert on_host.measure() == Attempt(changed=True, settled=True)


def test_where_nothing_can_be_started_it_is_not_settled(
    on_host: Measured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A host that was out of processes for a moment was not measured until the next start."""
    on_host.watch.read()

    async def refused(*_: object, **__: object) -> Never:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "create_subprocess_exec", refused)
        assert on_host.measure() == Attempt(changed=False, settled=False)
    assert "the latency is not measured yet: no process can be started" in caplog.text
    assert not on_host.watch.measuring.running
    assert on_host.measure() == Attempt(changed=True, settled=True)


def test_on_a_busy_host_the_run_is_unstable_and_not_settled(on_host: Measured) -> None:
    on_host.watch.read()
    set_pressure(on_host.root, 0.4)
    assert on_host.measure() == Attempt(changed=True, settled=False)
    matrix = on_host.watch.matrix
    assert matrix.verdict is Verdict.UNSTABLE
    assert "unstable: host busy (pressure 40 %)" in matrix.conditions


def test_a_trusted_matrix_is_kept_for_the_next_start(on_host: Measured) -> None:
    on_host.watch.read()
    on_host.measure()
    again = on_host.new()
    again.read()
    assert again.from_cache
    assert again.matrix.ns == on_host.watch.matrix.ns


@pytest.mark.parametrize("damage", ["{", "no json", '{"cpus": [0]}', ""])
def test_a_damaged_matrix_is_set_aside_said_and_measured_anew(
    damage: str, on_host: Measured, caplog: pytest.LogCaptureFixture
) -> None:
    on_host.watch.read()
    on_host.measure()
    file = on_host.root / "matrix.json"
    file.write_text(damage)
    again = on_host.new()
    with caplog.at_level("WARNING"):
        again.read()
    assert "the cached latency matrix" in caplog.text
    assert again.matrix.verdict is Verdict.PREDICTED
    assert [path for path in on_host.root.glob("matrix.json*") if path.read_text() == damage]
    assert asyncio.run(again.measure(Settings())).changed
    assert on_host.new().cache_file.load().content is not None


def test_the_matrix_of_another_host_is_not_used(
    on_host: Measured, caplog: pytest.LogCaptureFixture
) -> None:
    on_host.watch.read()
    on_host.measure()
    (on_host.root / "proc/cpuinfo").write_text("model name\t: Another one\n")
    again = on_host.new()
    with caplog.at_level("INFO"):
        again.read()
    assert "this host changed since it was measured: CPU model" in caplog.text
    assert again.matrix.verdict is Verdict.PREDICTED


def test_fixed_rounds_iterations_and_share_reach_the_program(on_host: Measured) -> None:
    on_host.watch.read()
    on_host.measure(Settings(rounds=3, iterations=50, measure_share=1.0))
    told = on_host.made.lines()
    assert {"batches-min 3", "batches-max 3", "batch 50"} <= set(told)
    assert max(len(each) for order in on_host.made.orders() for each in order.rounds) == 4
    expected = fixed_or_adaptive(3, 50).pair_limit_us
    assert {order.limit_us for order in on_host.made.orders()} == {expected}
    assert "fixed batches: 3 of 50 round trips a pair" in on_host.watch.matrix.conditions


# The whole service


@needs_two_cpus
@pytest.mark.parametrize("hook", [True, False])
def test_the_service_leaves_the_cpus_of_running_guests_alone(
    sim_node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hook: bool
) -> None:
    """Of a guest that it places, and of one that it does not manage."""
    count = max(os.sched_getaffinity(0)) + 1
    made = recorded(tmp_path, [[50.0] * count for _ in range(count)])
    monkeypatch.setenv("PCA_PINGPONG", str(made.program))
    add_guest(sim_node, 100, cores=count, hook=hook)
    sim_node.do("start", 100)
    with Running(sim_node) as service:
        service.wait_for(lambda: "latency measured" in service.log)
    assert made.orders()
    assert {order.limit_us for order in made.orders() if order.pairs} == {BURST_US}


@needs_two_cpus
def test_the_service_measures_free_cpus_at_its_ease(
    sim_node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = max(os.sched_getaffinity(0)) + 1
    made = recorded(tmp_path, [[50.0] * count for _ in range(count)])
    monkeypatch.setenv("PCA_PINGPONG", str(made.program))
    with Running(sim_node) as service:
        service.wait_for(lambda: "latency measured" in service.log)
    assert {order.limit_us for order in made.orders()} == {ADAPTIVE.pair_limit_us}


@needs_two_cpus
def test_cpuinfo_leaves_the_cpus_of_running_guests_alone_too(
    sim_node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = max(os.sched_getaffinity(0)) + 1
    made = recorded(tmp_path, [[50.0] * count for _ in range(count)])
    monkeypatch.setenv("PCA_PINGPONG", str(made.program))
    monkeypatch.setenv("PCA_ROOT", str(sim_node.root))
    assert main(["cpuinfo", "-q"]) == 0
    assert {order.limit_us for order in made.orders()} == {ADAPTIVE.pair_limit_us}
    made.forget()
    add_guest(sim_node, 100)
    sim_node.do("start", 100)
    assert main(["cpuinfo", "-q"]) == 0
    assert {order.limit_us for order in made.orders() if order.pairs} == {BURST_US}
