"""Plays histories with faults, and a fault at each step of what is written; ends with one line of
figures: `make faults`.

A history that fails is named by its seed, made as small as it gets, and told: those in memory as
the scenarios tell theirs. `--seed N` plays one again, `--seed N --real` one with processes.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from proxmox_cpu_affinity.cli import ui
from tests import counts
from tests.faults import memory, real, steps
from tests.faults.history import history, shrunk
from tests.faults.pool import breakable, pool

CHUNK = 250  # histories in memory that one process plays after the other
REAL_CHUNK = 5  # with processes: a node is made for each chunk
TOLD = 3  # failing histories that are made small and told

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figures:
    """How one part went."""

    what: str
    passed: int
    failed: int

    def __str__(self) -> str:
        return f"{self.what}: {self.passed} passed, {self.failed} failed"


def failing(seeds: Iterable[int]) -> list[int]:
    return [seed for seed in seeds if memory.fails(history(seed))]


def told(seed: int) -> str:
    """A failing history in memory, as small as it gets: what happened in it, what was wrong."""
    small = shrunk(history(seed), memory.fails)
    story = memory.Faulty()
    try:
        memory.play(story, small)
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    else:
        wrong = "it does not fail when it is played again"
    shown = [f"  {happening}" for happening in small]
    return "\n".join([f"seed {seed}:", *shown, "which is", *story.lines, wrong])


def _chunks(first: int, count: int, size: int) -> Iterator[range]:
    end = first + count
    return (range(at, min(at + size, end)) for at in range(first, end, size))


def _over(
    what: str, work: Callable[[range], list[int]], first: int, count: int, size: int
) -> list[int]:
    """The failing seeds; each chunk in a process, which may change what it likes of itself."""
    failed: list[int] = []
    chunks = list(_chunks(first, count, size))
    with pool() as workers, ui.progress(what) as shown:
        for chunk, found in zip(chunks, workers.map(work, chunks), strict=True):
            failed += found
            shown.show(chunk.stop - first, count)
    return failed


def _tell(wrong: Sequence[int], tell: Callable[[int], str], again: str) -> None:
    with pool() as workers:
        for text in workers.map(tell, wrong[:TOLD]):
            print(text)
    if wrong:
        print(f"failing seeds: {' '.join(map(str, wrong))} (again: --seed N{again})")


def in_memory(first: int, count: int) -> Figures:
    began = time.monotonic()
    wrong = _over("history in memory", failing, first, count, CHUNK)
    _tell(wrong, told, "")
    rate = count * 60 / (time.monotonic() - began)
    name = f"histories in memory, {rate:.0f} a minute"
    return Figures(name, count - len(wrong), len(wrong))


def with_processes(first: int, count: int) -> Figures:
    began = time.monotonic()
    wrong = _over("history with processes", real.failing, first, count, REAL_CHUNK)
    _tell(wrong, real.told, " --real")
    rate = count * 60 / (time.monotonic() - began)
    name = f"histories with processes, {rate:.0f} a minute"
    return Figures(name, count - len(wrong), len(wrong))


def step_by_step(seed: int, count: int, *, only: str = "") -> Figures:
    if not shutil.which("strace"):
        print("strace is missing: apt install strace", file=sys.stderr)
        return Figures("no faults at system calls", 0, 1)
    began = time.monotonic()
    runs = struck = failed = 0
    with ui.progress("fault at a system call") as shown:
        for part in steps.campaign(count, seed, only=only):
            runs, struck, failed = runs + part.runs, struck + part.struck, failed + len(part.wrong)
            shown.wipe()
            for wrong in part.wrong:
                print(f"{wrong}\n  again: --fault '{wrong.errand}: {wrong.fault}'", flush=True)
            shown.show(runs, part.of)
    if not runs:
        return Figures(f"no fault at a system call is named {only!r}", 0, 1)
    if only and not struck:
        return Figures(f"{only!r} was never reached: there is no such system call", 0, 1)
    minutes = (time.monotonic() - began) / 60
    name = f"{runs} runs with {struck} faults at system calls, {minutes:.1f} min"
    return Figures(name, runs - failed, failed)


def one(seed: int, *, processes: bool) -> int:
    """Play one history again; 1 if it fails."""
    wrong = real.failing([seed]) if processes else failing([seed])
    tell = real.told if processes else told
    print(tell(seed) if wrong else f"seed {seed}: nothing is wrong")
    return len(wrong)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is less than 0")
    return number


def _count_or_all(text: str) -> int:
    return -1 if text == "-1" else _count(text)


def _given(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run", description=__doc__)
    parser.add_argument(
        "--memory", type=_count, default=10_000, help="histories; make's HISTORIES (10000)"
    )
    parser.add_argument(
        "--processes", type=_count, default=200, help="those with processes; make's REAL (200)"
    )
    parser.add_argument(
        "--steps", type=_count_or_all, default=80, help="faults at system calls; -1: all (80)"
    )
    parser.add_argument("--first", type=_count, default=0, help="the first seed (0)")
    one_only = parser.add_mutually_exclusive_group()
    one_only.add_argument("--seed", type=_count, help="one history only, told if it fails")
    one_only.add_argument("--fault", help="only the faults at system calls that are named so")
    parser.add_argument("--real", action="store_true", help="that of --seed with processes")
    given = parser.parse_args(arguments)
    if given.real and given.seed is None:
        parser.error("--real is of one history: --seed N --real")
    return given


def campaign(given: argparse.Namespace) -> int:
    """All parts, and the line of figures; 1 if anything fails."""
    parts = []
    for play, count in (
        (in_memory, given.memory),
        (with_processes, given.processes),
        (step_by_step, given.steps),
    ):
        if count:
            parts.append(play(given.first, max(count, 0)))
            print(parts[-1], flush=True)
    passed, failed = sum(part.passed for part in parts), sum(part.failed for part in parts)
    counts.leave("faults", passed=passed, failed=failed)
    print(f"faults on {os.cpu_count()} CPUs: {passed} passed, {failed} failed")
    return 1 if failed else 0


def main(arguments: Sequence[str]) -> int:
    given = _given(arguments)
    breakable()
    try:
        if given.fault is not None:
            figures = step_by_step(given.first, 0, only=given.fault)
            print(figures)
            return 1 if figures.failed else 0
        if given.seed is not None:
            return one(given.seed, processes=given.real)
        return campaign(given)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
