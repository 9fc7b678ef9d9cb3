"""The measuring program on real CPUs, and the probe around it: answers, ends, leaves nothing.

Latencies are only compared with each other, and generously: any load may run beside the tests.
"""

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.latency import program as program_module
from proxmox_cpu_affinity.latency.cache import fingerprint
from proxmox_cpu_affinity.latency.facts import host_facts
from proxmox_cpu_affinity.latency.judge import Run
from proxmox_cpu_affinity.latency.probe import (
    Progress,
    measure,
    measure_host,
    pressure,
)
from proxmox_cpu_affinity.latency.protocol import Parameters, fixed_or_adaptive
from proxmox_cpu_affinity.latency.schedule import Pair, Round, Stage
from proxmox_cpu_affinity.linux.threads import own_cpus
from proxmox_cpu_affinity.linux.tree import Tree, capture_sysfs
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import MeasureError
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.latency import Method, Verdict
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

SOURCE = Path(program_module.__file__).parent
CHECKOUT = Path(__file__).parents[2]
FLAGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pthread")
CC = shutil.which("cc")
CPUS = tuple(own_cpus())
HOST = Tree(Path("/"))
ABSENT = 65535  # no kernel has this CPU (CONFIG_NR_CPUS <= 8192)

pytestmark = [
    pytest.mark.skipif(CC is None, reason="no C compiler (cc)"),
    pytest.mark.skipif(len(CPUS) < 2, reason="only one CPU: there is no pair to measure"),
]
PATIENT = Parameters(
    patience_ms=30_000
)  # a pair on a loaded host is slow, and this is no test of it
A, B = (*CPUS, Cpu(0), Cpu(0))[:2]
PAIR: Pair = (A, B)


def compiled(folder: Path, *flags: str) -> Path:
    program = folder / "pingpong"
    sources = [str(SOURCE / name) for name in ("duel.c", "pingpong.c", "pool.c", "main.c")]
    assert CC is not None
    subprocess.run([CC, *FLAGS, *flags, "-o", str(program), *sources], check=True, timeout=60)
    return program


@pytest.fixture(scope="module")
def pingpong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("normal"), "-O2")


@pytest.fixture(scope="module", params=["normal", "address,undefined", "thread"])
def any_build(
    request: pytest.FixtureRequest, pingpong: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    sanitizer = str(request.param)
    if sanitizer == "normal":
        return pingpong
    flags = ("-O1", "-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    try:
        program = compiled(tmp_path_factory.mktemp("sanitized"), *flags)
    except subprocess.CalledProcessError:
        pytest.skip(f"this compiler has no -fsanitize={sanitizer}")
    # A sanitizer's shadow memory may not fit the kernel's address layout (vm.mmap_rnd_bits).
    if subprocess.run([program], stdin=subprocess.DEVNULL, check=False, timeout=30).returncode:
        pytest.skip(f"-fsanitize={sanitizer} does not run on this kernel")
    return program


def told(program: Path, text: str | bytes) -> list[str]:
    """What a patient program answers to the whole text, after its greeting; it must end well."""
    data = b"limit-us 30000000\n" + (text if isinstance(text, bytes) else text.encode())
    done = subprocess.run([program], input=data, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    greeting, *lines = done.stdout.decode().splitlines()
    assert greeting == "pingpong 2"
    return lines


def values(lines: list[str], first: int = A, second: int = B) -> list[float]:
    """The batches of all samples of this pair, in ns."""
    return [ns for batches in samples(lines, first, second) for ns in batches]


def samples(lines: list[str], first: int = A, second: int = B) -> list[list[float]]:
    prefix = f"sample {first} {second} "
    found = [line.removeprefix(prefix).split()[1:] for line in lines if line.startswith(prefix)]
    return [[float(batch.partition(":")[0]) for batch in batches] for batches in found]


def runs(program: Path) -> list[int]:
    """The processes that run exactly this program, zombies of it included."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "exe").resolve() == program.resolve():
                found.append(int(entry.name))
        except OSError:  # it ended meanwhile, or is not ours
            continue
    return found


def children() -> set[str]:
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found.update((task / "children").read_text().split())
        except OSError:  # a thread that ended meanwhile
            continue
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come; the limit is for a hung test only."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# The program


METHODS = pytest.mark.parametrize("method", list(Method))


@METHODS
def test_a_pair_is_measured_until_its_batches_agree(any_build: Path, method: str) -> None:
    lines = told(any_build, f"method {method}\npair {A} {B}\nrun\n")
    (got,) = samples(lines)
    assert lines[1:] == ["ran 1"]
    assert all(ns >= 0 for ns in got)
    assert max(got) > 0
    low, second = sorted(got)[:2]
    assert second <= low * 1.051 + 0.001 or len(got) == 30
    assert len(got) >= 5


@METHODS
@pytest.mark.parametrize("home", ["first", "second"])
def test_the_lines_are_on_a_node_of_the_pair(pingpong: Path, method: str, home: str) -> None:
    lines = told(pingpong, f"method {method}\nhome {home}\nlines 16\npair {A} {B}\nrun\n")
    node = int(lines[0].split()[3])
    here = topology(capture_sysfs(HOST))
    expected = here.place(A if home == "first" else B).node
    assert node in (-1, expected) or any(n.memory_mib == 0 for n in here.nodes)


def test_rounds_are_measured_one_after_the_other(any_build: Path) -> None:
    lines = told(any_build, f"pair {A} {B}\nround\npair {B} {A}\nround\n\npair {A} {B}\nrun\nrun")
    assert [line.split()[:3] for line in lines[:3]] == [
        ["sample", str(A), str(B)],
        ["sample", str(B), str(A)],
        ["sample", str(A), str(B)],
    ]
    assert lines[3:] == ["ran 3", "ran 0"]


def test_a_cpu_is_in_one_pair_of_a_round_only(any_build: Path) -> None:
    lines = told(any_build, f"pair {A} {B}\npair {B} {A}\nrun\npair {B} {A}\nrun")
    assert len(values(lines)) >= 5
    assert lines[1:3] == [f"error {B} {A} EBUSY", "ran 2"]
    assert len(values(lines, B, A)) >= 5


def test_pairs_of_a_round_are_measured_together(any_build: Path) -> None:
    c, d = CPUS[2:4] if len(CPUS) >= 4 else (ABSENT, ABSENT - 1)
    lines = told(any_build, f"pair {A} {B}\npair {c} {d}\nrun")
    assert values(lines)
    assert values(lines, c, d) or lines[1] == f"error {c} {d} EINVAL"
    assert lines[2:] == ["ran 2"]


def test_errors_are_of_their_pair_and_the_rest_is_measured(any_build: Path) -> None:
    pairs = [(A, ABSENT), (ABSENT, B), (A, A), (B, A)]
    text = "".join(f"pair {first} {second}\nround\n" for first, second in pairs)
    lines = told(any_build, f"{text}run")
    assert lines[:3] == [
        f"error {A} {ABSENT} EINVAL",
        f"error {ABSENT} {B} EINVAL",
        f"error {A} {A} EINVAL",
    ]
    assert values(lines, B, A)
    assert lines[-1] == "ran 4"


def test_rubbish_is_numbered_and_changes_nothing(any_build: Path) -> None:
    rubbish = [
        b"nonsense",
        b"batch 0",
        b"batch 1e3",
        b"batch 99999999999999999999",
        b"agree nan",
        b"agree -1",
        b"method tea",
        b"limit-us",
        b"lines 0",
        b"lines 17",
        b"home third",
        b"round 1",
        b"pair 0",
        b"pair 0 -1",
        b"pair 0 65536",
        b"pair 0 1 2",
        b"run now",
        b"x" * 5000,
        b"pair " * 400,
        b"\xff\xfe\x01",
        b"bat\0ch 5",
    ]
    good = f"batches-min 2\nbatches-max 2\npair {A} {B}\n\nrun".encode()
    lines = told(any_build, b"\n".join(rubbish) + b"\n" + good)
    assert lines[: len(rubbish)] == [f"bad {number + 2}" for number in range(len(rubbish))]
    assert lines[-1] == "ran 1"
    assert len(values(lines)) == 2


def test_a_pair_gives_up_after_its_time(any_build: Path) -> None:
    slow = "batch 100000000\nlimit-us 20000\n"
    lines = told(
        any_build, f"{slow}pair {A} {B}\nrun\nbatch 100\nlimit-us 30000000\npair {A} {B}\nrun"
    )
    assert lines[:2] == [f"error {A} {B} ETIMEDOUT", "ran 1"]
    assert values(lines)


@pytest.mark.parametrize("text", ["", "\n", f"pair {A} {B}\n", "batch 7"])
def test_it_ends_when_its_input_ends(any_build: Path, text: str) -> None:
    assert told(any_build, text) == []


def test_batches_above_the_least_number_are_refused_as_a_pair(pingpong: Path) -> None:
    lines = told(pingpong, f"batches-min 9\nbatches-max 3\npair {A} {B}\nrun")
    assert lines == [f"error {A} {B} EINVAL", "ran 1"]


def test_fixed_batches_are_as_many_as_asked_for(pingpong: Path) -> None:
    text = "batch 1000\nbatches-min {0}\nbatches-max {0}\npair {1} {2}\nrun\n"
    lines = told(pingpong, "".join(text.format(n, A, B) for n in (1, 4)))
    assert [len(batches) for batches in samples(lines)] == [1, 4]


def ratio(one: Callable[[], float], other: Callable[[], float]) -> float:
    """The ratio of the lowest of some values, taken in turn so that load meets both alike."""
    pairs = [(one(), other()) for _ in range(5)]
    return min(first for first, _ in pairs) / min(second for _, second in pairs)


@METHODS
def test_the_plain_path_says_the_same(
    pingpong: Path, tmp_path_factory: pytest.TempPathFactory, method: str
) -> None:
    plain = compiled(tmp_path_factory.mktemp("plain"), "-O2", "-DPP_PLAIN")
    text = f"method {method}\npair {A} {B}\nrun\n" * 5
    got = ratio(lambda: min(values(told(pingpong, text))), lambda: min(values(told(plain, text))))
    assert 1 / 10 < got < 10


def test_the_methods_are_within_reach_of_each_other(pingpong: Path) -> None:
    """Two ways of one line, of two lines, and stamped messages: none is off by orders."""

    def lowest(method: str) -> Callable[[], float]:
        text = f"method {method}\npair {A} {B}\nrun\n" * 5
        return lambda: min(values(told(pingpong, text)))

    assert 1 / 20 < ratio(lowest("cas"), lowest("rw")) < 20
    assert 1 / 20 < ratio(lowest("msg"), lowest("rw")) < 20


def test_a_value_is_one_way_whatever_the_size_of_its_batch(pingpong: Path) -> None:
    lowest = [
        min(values(told(pingpong, f"batch {trips}\npair {A} {B}\nrun\n" * 5)))
        for trips in (100, 10_000)
    ]
    # A batch's time taken for a trip's, or a trip's for a batch's, would be a hundredfold.
    assert 1 / 30 < lowest[0] / lowest[1] < 30


def test_a_reader_that_goes_away_ends_it(pingpong: Path) -> None:
    with subprocess.Popen([pingpong], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.write(f"pair {A} {B}\nrun\n".encode())
        process.stdin.flush()
        assert process.wait(timeout=30) != 0
        process.stdin.close()


PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207  # linux/ptrace.h
WALL = 0x40000000  # __WALL of wait(2): also for threads


def ptrace(request: int, tid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(tid), None, None):
        pytest.skip(f"ptrace is not allowed here: {os.strerror(ctypes.get_errno())}")


def state(pid: int, tid: int) -> str:
    stat = Path(f"/proc/{pid}/task/{tid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="ptrace as on Linux")
def test_a_thread_that_gets_no_answer_gives_up(pingpong: Path) -> None:
    """One of the two spinning threads is stopped: what a CPU that went away looks like."""
    with subprocess.Popen([pingpong], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            tasks = Path(f"/proc/{process.pid}/task")
            process.stdin.write(f"batch 100000000\nlimit-us 1500000\npair {A} {B}\nrun\n".encode())
            process.stdin.flush()
            until(lambda: len(list(tasks.iterdir())) == 3)
            asker, answerer = sorted(int(task.name) for task in tasks.iterdir())[1:]
            ptrace(PTRACE_SEIZE, answerer)
            ptrace(PTRACE_INTERRUPT, answerer)
            os.waitpid(answerer, WALL)
            until(lambda: state(process.pid, asker) == "S")  # it gave up and went to sleep
            ptrace(PTRACE_DETACH, answerer)
            answer, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert answer.decode().splitlines() == ["pingpong 2", f"error {A} {B} ETIMEDOUT", "ran 1"]


# CPUs that this machine does not have: two functions of libc say that every one is there

PRETENCE = """
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>

static _Thread_local int pinned = -1, asked;

int sched_setaffinity(pid_t pid, size_t size, const cpu_set_t *mask)
{
    (void)pid;
    for (pinned = 0; !CPU_ISSET_S((size_t)pinned, size, mask);)
        pinned++;
    return 0;
}

int sched_getcpu(void)
{
    const char *gone = getenv("GONE_AFTER");

    return gone && ++asked > atoi(gone) ? pinned + 1 : pinned;
}
"""


@pytest.fixture(scope="module", params=["normal", "address,undefined", "thread"])
def pretending(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretending")
    (folder / "cpus.c").write_text(PRETENCE)
    sanitizer = str(request.param)
    flags = [] if sanitizer == "normal" else [f"-fsanitize={sanitizer}"]
    program = compiled(folder, "-O1", "-g", str(folder / "cpus.c"), *flags)
    if subprocess.run([program], stdin=subprocess.DEVNULL, check=False, timeout=30).returncode:
        pytest.skip(f"-fsanitize={sanitizer} does not run on this kernel")
    return program


SHORT = "batch 1\nbatches-min 1\nbatches-max 1\n"


@METHODS
def test_many_pairs_at_once_in_many_rounds(pretending: Path, method: str) -> None:
    """The pool's threads, handed from round to round in other pairs each time."""
    plan = [[(0, 1), (2, 3), (4, 5)], [(0, 3), (2, 5)], [(5, 0)], [(1, 2), (3, 4)]]
    text = "".join("".join(f"pair {a} {b}\n" for a, b in pairs) + "round\n" for pairs in plan)
    lines = told(pretending, f"method {method}\n{SHORT}{text}run\npair 0 1\nrun\n")
    expected = [["sample", str(a), str(b)] for pairs in plan for a, b in pairs]
    both = [*expected, ["ran", "8"], ["sample", "0", "1"], ["ran", "1"]]
    assert [line.split()[: 2 if line.startswith("ran") else 3] for line in lines] == both
    assert all(line.count(":") == 1 for line in lines if line.startswith("sample"))


def test_a_cpu_that_goes_away_is_said(pretending: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GONE_AFTER", "2")
    lines = told(pretending, f"{SHORT}pair 0 1\nround\npair 2 3\nrun\n")
    assert lines == ["error 0 1 ENODEV", "error 2 3 ENODEV", "ran 2"]


# The probe with the real program


def plan(*pairs: Pair) -> list[Round]:
    return [Round(Stage.CORES, (pair,)) for pair in pairs]


def many(count: int) -> list[Round]:
    return plan(PAIR) * count


def test_samples_and_failures_come_back_and_progress_is_told(pingpong: Path) -> None:
    seen: list[Progress] = []
    rounds = plan(PAIR, (A, Cpu(ABSENT)), PAIR)
    run = asyncio.run(measure(rounds, PATIENT, seen.append, program=pingpong))
    assert (run.wanted, run.cut) == (3, "")
    assert [(s.first, s.second) for s in run.samples] == [PAIR, PAIR]
    assert [(f.pair, f.reason) for f in run.failed] == [((A, ABSENT), "EINVAL")]
    assert [(p.done, p.total) for p in seen] == [(1, 3), (2, 3), (3, 3)]
    assert [p.outcome for p in seen] == [run.samples[0], run.failed[0], run.samples[1]]
    assert runs(pingpong) == []


def test_no_pairs_start_no_program() -> None:
    run = asyncio.run(measure([], PATIENT, program=Path("/nonexistent")))
    assert run == Run(0)


def test_fixed_batches_reach_the_program(pingpong: Path) -> None:
    run = asyncio.run(measure(plan(PAIR), fixed_or_adaptive(3, 200), program=pingpong))
    assert run.cut == ""
    assert len(run.samples[0].batches) <= 3


def test_this_host_is_measured(pingpong: Path) -> None:
    here = topology(capture_sysfs(HOST))
    matrix = asyncio.run(measure_host(here, tree=HOST, program=pingpong, usable=CpuSet.of((A, B))))
    assert matrix.cpus == tuple(here.online)
    assert matrix.verdict in (Verdict.TRUSTED, Verdict.UNSTABLE)
    assert matrix.between(A, B) == matrix.between(B, A) > 0
    assert ("hypervisor" in "; ".join(matrix.conditions)) == here.virtual


def test_cpus_that_are_not_ours_are_predicted_and_named(pingpong: Path) -> None:
    here = topology(capture_sysfs(HOST))
    matrix = asyncio.run(measure_host(here, tree=HOST, program=pingpong, usable=CpuSet.of([A])))
    assert matrix.verdict is Verdict.PREDICTED
    named = f"not measurable here, predicted: CPUs {here.online - CpuSet.of([A])}"
    assert named in matrix.conditions


def test_what_is_done_at_the_time_limit_is_kept(pingpong: Path) -> None:
    run = asyncio.run(
        measure(many(10**6), Parameters(patience_ms=30_000, time_limit=1.0), program=pingpong)
    )
    assert 0 < len(run.samples) < 10**6
    assert run.cut == "time limit of 1 s reached"
    assert runs(pingpong) == []


def test_the_time_limit_holds_within_a_pair(pingpong: Path) -> None:
    slow = Parameters(trips=100_000_000, time_limit=0.2)
    run = asyncio.run(measure(plan(PAIR), slow, program=pingpong))
    assert (run.samples, run.cut) == ((), "time limit of 0.2 s reached")
    assert runs(pingpong) == []


def test_cancelling_leaves_no_process(pingpong: Path) -> None:
    async def cancelled() -> list[Progress]:
        seen: list[Progress] = []
        task = asyncio.create_task(measure(many(10**6), PATIENT, seen.append, program=pingpong))
        while len(seen) < 3:
            await asyncio.sleep(0.001)
        assert len(runs(pingpong)) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert runs(pingpong) == []
        return seen

    assert asyncio.run(cancelled())


def test_a_killed_program_ends_the_run_with_what_was_done(pingpong: Path) -> None:
    def kill_after_three(progress: Progress) -> None:
        if progress.done == 3:
            for pid in runs(pingpong):
                os.kill(pid, signal.SIGKILL)

    run = asyncio.run(measure(many(10**6), PATIENT, kill_after_three, program=pingpong))
    assert len(run.samples) >= 3
    assert run.cut == "the measuring program ended by itself"


MEASURE_LONG = """
import asyncio, sys
from pathlib import Path
from proxmox_cpu_affinity.latency.probe import measure
from proxmox_cpu_affinity.latency.protocol import Parameters
from proxmox_cpu_affinity.latency.schedule import Round, Stage
pair = (int(sys.argv[2]), int(sys.argv[3]))
rounds = [Round(Stage.CORES, (pair,))] * 10**6
asyncio.run(measure(rounds, Parameters(), program=Path(sys.argv[1])))
"""


def test_it_does_not_outlive_whoever_started_it(pingpong: Path) -> None:
    command = [sys.executable, "-c", MEASURE_LONG, str(pingpong), str(A), str(B)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}
    with subprocess.Popen(command, env=environment) as process:
        until(lambda: len(runs(pingpong)) == 1)
        process.kill()
    until(lambda: runs(pingpong) == [])


# The probe with programs that misbehave


@pytest.mark.parametrize(
    ("script", "cut"),
    [
        ("exit 0", "ended by itself"),
        ("echo pingpong 2", "ended by itself"),
        ("echo pingpong 1; cat", "not of version 2"),
        ("echo Hello", "said 'Hello'"),
        ("echo pingpong 2; echo sample 0; cat >/dev/null", "said 'sample 0'"),
        ("echo pingpong 2; echo ran 1; cat >/dev/null", "is broken"),
        ("echo pingpong 2; echo bad 1; echo ran 1; cat >/dev/null", "does not understand line 1"),
        (f"echo pingpong 2; while :; do echo error {A} {B} X; done", "does not stop"),
        (f"echo pingpong 2; echo error {A} {B} X; echo ran 2; cat >/dev/null", "does not stop"),
        ("head -c 3000000 /dev/zero; cat >/dev/null", "endless line"),
        ("echo pingpong 2; exec sleep 60", "time limit of 0.5 s"),
        ("exec sleep 60", "time limit of 0.5 s"),
        ("exec <&- >&-; exec sleep 60", "ended by itself"),
    ],
)
def test_a_program_that_misbehaves_ends_the_run_and_is_gone(
    tmp_path: Path, script: str, cut: str
) -> None:
    program = tmp_path / "pingpong"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    limit = 0.5 if "time limit" in cut else 60.0
    run = asyncio.run(measure(plan(PAIR), Parameters(time_limit=limit), program=program))
    assert run.samples == ()
    assert cut in run.cut


@pytest.mark.parametrize("content", [None, "", "no program"])
def test_a_program_that_cannot_be_started_is_an_error(tmp_path: Path, content: str | None) -> None:
    program = tmp_path / "pingpong"
    if content is not None:
        program.write_text(content)
    with pytest.raises(MeasureError) as fault:
        asyncio.run(measure(plan(PAIR), PATIENT, program=program))
    assert "make setup" in fault.value.hint


# What is read beside it


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("some avg10=12.50 avg60=3.00 avg300=1.00 total=9\nfull avg10=0.00 total=0\n", 0.125),
        ("some avg10=100.00 avg60=3.00 avg300=1.00 total=9\n", 1.0),
        ("full avg10=7.00 avg60=3.00 avg300=1.00 total=9\n", None),
        ("rubbish", None),
        ("", None),
    ],
)
def test_pressure_is_the_share_of_the_last_ten_seconds(
    tmp_path: Path, text: str, share: float | None
) -> None:
    (tmp_path / "proc" / "pressure").mkdir(parents=True)
    (tmp_path / "proc" / "pressure" / "cpu").write_text(text)
    assert pressure(Tree(tmp_path)) == share


def test_a_kernel_without_pressure_says_none(tmp_path: Path) -> None:
    assert pressure(Tree(tmp_path)) is None


def test_facts_change_with_the_host_and_only_then(tmp_path: Path) -> None:
    spec = parse_spec("1x2x4x2")
    here, offline = topology(generate(spec)), topology(generate(parse_spec("1x2x4x2+offline=15")))
    bios = tmp_path / "sys" / "class" / "dmi" / "id" / "bios_version"
    bios.parent.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("model name\t: M\nmicrocode\t: 0x1\nMHz\t: 1.0\n")
    bios.write_text("1.2\n")
    first = host_facts(here, Tree(tmp_path))
    assert (first["CPU model"], first["microcode"], first["BIOS version"]) == ("M", "0x1", "1.2")
    (tmp_path / "proc" / "cpuinfo").write_text("model name\t: M\nmicrocode\t: 0x1\nMHz\t: 2.0\n")
    assert fingerprint(host_facts(here, Tree(tmp_path))) == fingerprint(first)
    bios.write_text("1.3\n")
    changed = host_facts(offline, Tree(tmp_path))
    assert {key for key in first if first[key] != changed[key]} == {
        "BIOS version",
        "online CPUs",
        "caches",
    }


def test_this_hosts_facts_are_the_same_twice() -> None:
    here = topology(capture_sysfs(HOST))
    assert host_facts(here, HOST) == host_facts(here, HOST)
    assert host_facts(here, HOST)["online CPUs"] == str(here.online)
