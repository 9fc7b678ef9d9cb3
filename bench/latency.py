"""How our measuring compares with its peers, how long it takes, and what load does to it.

    .venv/bin/python bench/latency.py [--quick]

For one pair of CPUs and each method: ours beside core-to-core-latency (its benchmarks 1 to 3) and
c2clat (two lines, like rw), where they are in PATH; without them no comparison is claimed. All are
run in turn, so that whatever else the machine does meets all of them alike. Then the same under
full load; the time of a pair; and from the real schedule with that time how long hosts of 16 to
512 CPUs would take. Out of scope: whether latencies are right (bench/remeasure.py).
"""

import asyncio
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from proxmox_cpu_affinity.formats import cpuinfo, latency_csv
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.latency.judge import BUSY, Run
from proxmox_cpu_affinity.latency.probe import SHARE, measure, pressure
from proxmox_cpu_affinity.latency.program import find_program
from proxmox_cpu_affinity.latency.protocol import Parameters, answered, parse
from proxmox_cpu_affinity.latency.schedule import COARSE, Pair, Round, Stage, cores_at_once, rounds
from proxmox_cpu_affinity.linux.threads import own_cpus
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.latency import Method, Verdict
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

TURNS: Final = 5
PATIENCE: Final = 120  # seconds for a peer
HOSTS: Final = ("1x1x8x2", "1x2x8x2", "1x4x8x2", "2x4x8x2", "2x8x8x2", "2x16x8x2")
PEERS: Final = {Method.CAS: "1", Method.RW: "2", Method.MSG: "3"}
BUSY_LOOP: Final = ("/bin/sh", "-c", "while :; do :; done")
HOST: Final = Tree(Path("/"))

Value = tuple[float | None, str]
"""ns one way (None: there is none), and what is to be said of it."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """Someone who measures the pair by a method; `run` gives one value."""

    name: str
    method: Method
    run: Callable[[], Value]


def measured(pair: Pair, method: Method, times: int) -> Run:
    """The pair, measured alone so many times by one run of the program."""
    plan = [Round(Stage.CORES, (pair,))] * times
    return asyncio.run(measure(plan, Parameters(method), program=find_program()))


def ours(pair: Pair, method: Method) -> Value:
    """The median of a few samples of the pair, as the product takes them."""
    run = measured(pair, method, 5)
    if not run.samples:
        return None, run.cut or ", ".join(sorted({failed.reason for failed in run.failed}))
    steady = sum(sample.verdict is Verdict.TRUSTED for sample in run.samples)
    return median(s.value for s in run.samples), f"{steady} of {len(run.samples)} trusted"


def core_to_core_latency(program: str, pair: Pair, method: Method) -> Value:
    said = output(
        (
            program,
            "1000",
            "300",
            "--bench",
            PEERS[method],
            "--cores",
            "{},{}".format(*pair),
            "--csv",
        )
    )
    if said is None:
        return None, "failed"
    try:
        return latency_csv.parse(said)[1][0], ""
    except SyntaxFault:
        return None, "not understood"


def c2clat(program: str, pair: Pair) -> Value:
    said = output(("taskset", "-c", "{},{}".format(*pair), program))
    words = (said or "").split()
    try:
        return float(words[-2]), ""
    except (IndexError, ValueError):
        return None, "failed"


def output(words: Sequence[str]) -> str | None:
    """What a peer prints; None where it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def contestants(pair: Pair, method: Method) -> Iterator[Contestant]:
    yield Contestant("ours", method, lambda: ours(pair, method))
    peer, other = shutil.which("core-to-core-latency"), shutil.which("c2clat")
    if peer is not None:
        yield Contestant(
            "core-to-core-latency", method, lambda: core_to_core_latency(peer, pair, method)
        )
    if other is not None and method is Method.RW:
        yield Contestant("c2clat", method, lambda: c2clat(other, pair))


@dataclass(frozen=True, slots=True)
class Row:
    """What one contestant's turns gave."""

    name: str
    values: tuple[float, ...]
    remark: str

    @property
    def middle(self) -> float | None:
        return median(self.values) if self.values else None


def in_turn(who: Sequence[Contestant], turns: int) -> list[Row]:
    """Everybody once, then everybody again."""
    given: list[list[Value]] = [[] for _ in who]
    for _ in range(turns):
        for contestant, values in zip(who, given, strict=True):
            values.append(contestant.run())
    return [
        Row(
            contestant.name,
            tuple(ns for ns, _ in values if ns is not None),
            ", ".join(dict.fromkeys(remark for _, remark in values if remark)),
        )
        for contestant, values in zip(who, given, strict=True)
    ]


@contextmanager
def full_load() -> Iterator[None]:
    """Two busy loops for each CPU, ended by their process numbers."""
    loops = [subprocess.Popen(BUSY_LOOP) for _ in range(2 * len(own_cpus()))]
    try:
        time.sleep(1)
        yield
    finally:
        for loop in loops:
            with suppress(ProcessLookupError):
                os.kill(loop.pid, signal.SIGKILL)
            loop.wait()


def show_methods(pair: Pair, turns: int) -> dict[tuple[str, Method], float]:
    """A table of all methods; the medians, by contestant and method."""
    quiet: dict[tuple[str, Method], float] = {}
    print(f"\n{'method':7} {'who':22} {'median':>8} {'lowest':>8} {'highest':>8} {'ours/it':>8}")
    for method in Method:
        found = in_turn(list(contestants(pair, method)), turns)
        reference = found[0].middle
        for row in found:
            print(line_of(method, row, reference))
            if row.middle is not None:
                quiet[row.name, method] = row.middle
    for name in ("core-to-core-latency", "c2clat"):
        if shutil.which(name) is None:
            print(f"{name}: not present, so no comparison with it is claimed")
    return quiet


def line_of(method: Method, row: Row, reference: float | None) -> str:
    if row.middle is None:
        return f"{method:7} {row.name:22} {'-':>8}  {row.remark}"
    ratio = f"{reference / row.middle:8.3f}" if reference and row.name != "ours" else f"{'':8}"
    values = f"{row.middle:8.1f} {min(row.values):8.1f} {max(row.values):8.1f}"
    return f"{method:7} {row.name:22} {values} {ratio}  {row.remark}"


def show_load(pair: Pair, quiet: Mapping[tuple[str, Method], float], turns: int) -> None:
    """The same under full load, as a multiple of the quiet value."""
    print(f"\nunder full load ({2 * len(own_cpus())} busy loops):")
    print(f"{'method':7} {'who':22} {'median':>8} {'x quiet':>8}")
    with full_load():
        for method in Method:
            for row in in_turn(list(contestants(pair, method)), turns):
                before = quiet.get((row.name, method))
                if row.middle is None or before is None:
                    print(f"{method:7} {row.name:22} {'-':>8} {'':8}  {row.remark}")
                    continue
                ratio = row.middle / before
                print(f"{method:7} {row.name:22} {row.middle:8.1f} {ratio:8.2f}  {row.remark}")
        busy = pressure(HOST)
    if busy is not None:
        marked = "unstable: host busy" if busy >= BUSY else "not marked by it"
        print(f"pressure {100 * busy:.0f} %: a run that begins now is {marked}")


def time_of_a_pair(pair: Pair, times: int) -> tuple[float, float]:
    """Seconds of a pair by cas: all that the program takes, and reading its answers."""
    parameters = Parameters()
    with subprocess.Popen(
        [find_program()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(parameters.text() + parameters.order([[pair]] * 50))
        process.stdin.flush()
        while not process.stdout.readline().startswith("ran"):
            pass
        began = time.monotonic()
        process.stdin.write(parameters.order([[pair]] * times))
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(times + 1)]
        ended = time.monotonic()
        process.stdin.close()
    reading = time.monotonic()
    for line in lines[:-1]:
        answered(pair, parse(line), agree=parameters.agree)
    return (ended - began) / times, (time.monotonic() - reading) / times


def show_projection(pair: Pair, times: int) -> None:
    """The real schedule's rounds, each as long as one pair, and the answers read one by one."""
    of_pair, of_answer = time_of_a_pair(pair, times)
    print(f"\na pair by cas: {1e6 * of_pair:.0f} us, reading its answer: {1e6 * of_answer:.0f} us")
    print(f"projected, {100 * SHARE:.0f} % of the cores busy, two threads a core:")
    print(f"{'CPUs':>5} {'pairs':>8} {'rounds':>7} {'all s':>7} {'coarse':>7} {'coarse s':>9}")
    for spec in HOSTS:
        host = topology(generate(parse_spec(spec)))
        plan = rounds(host.online, host, cores=cores_at_once(host, SHARE))
        coarse = [each for each in plan if each.stage <= COARSE]
        row = [f"{len(host.online):5} {sum(len(each.pairs) for each in plan):8}"]
        for part, width in ((plan, 7), (coarse, 9)):
            seconds = len(part) * of_pair + sum(len(each.pairs) for each in part) * of_answer
            row.append(f"{len(part):7} {seconds:{width}.2f}")
        print(" ".join(row))


def machine() -> str:
    model = cpuinfo.parse(HOST.head(cpuinfo.CPUINFO, 16384) or "").model_name
    busy = pressure(HOST)
    said = "not said" if busy is None else f"{100 * busy:.0f} %"
    return (
        f"{model}, {len(own_cpus())} CPUs, Linux {platform.release()}, "
        f"load {os.getloadavg()[0]:.1f}, CPU pressure {said}"
    )


def main() -> int:
    """Print all tables."""
    quick = "--quick" in sys.argv[1:]
    turns = 1 if quick else TURNS
    cpus = tuple(own_cpus())
    if len(cpus) < 2:
        print("one CPU: there is no pair to measure")
        return 1
    pair = (cpus[0], cpus[1])
    print(machine())
    print(f"pair {pair[0]}-{pair[1]}, ns one way, {turns} turns")
    quiet = show_methods(pair, turns)
    show_load(pair, quiet, turns)
    show_projection(pair, 50 if quick else 2000)
    return 0


if __name__ == "__main__":
    sys.exit(main())
