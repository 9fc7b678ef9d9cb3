"""One fault at each step of what the service, the hook and the command line do, by strace.

A part of the faults is drawn from a seed, in equal parts of each errand as far as it has so many;
`--steps -1` takes all. One that goes wrong is named; `--fault WORDS` plays those that are named so,
and a whole name that one alone, also where it is not among those found this time: which thread
makes which call is another each time.
"""

import os
import random
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace

from tests.faults.errands import ERRANDS, Errand, TooSlowError
from tests.faults.playground import playground
from tests.faults.pool import pool
from tests.faults.stepping import Fault, Step, faults_of

_NAME = re.compile(r"(.+): (\w+) at (\w+) (\S+) #(\d+)")
CHUNK = 10  # faults that are played on one node
TRIES = 3  # of an errand for which the machine is too slow


@dataclass(frozen=True, slots=True)
class Wrong:
    """What a fault in an errand led to."""

    errand: str
    fault: Fault
    what: str

    def __str__(self) -> str:
        return f"{self.errand}: {self.fault}: {self.what}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Faults that were played, those that came, and what went wrong."""

    runs: int
    struck: int
    wrong: tuple[Wrong, ...]
    of: int = 0  # faults of the whole campaign


def all_faults(kind: type[Errand]) -> list[Fault]:
    """Every fault of an errand. AssertionError where it goes wrong without any."""
    with playground() as ground:
        errand = kind(ground)
        try:
            wrong = done(errand, errand.tracer.watching())
            assert not wrong, f"{kind.name}, without a fault: {wrong}"
            return list(faults_of(errand.tracer.steps()))
        finally:
            errand.over()


def drawn(found: Sequence[Sequence[Fault]], most: int, seed: int) -> list[list[Fault]]:
    """At most so many of all faults (0: all), an equal part of each errand's."""
    chance = random.Random(seed)
    left = most
    # Who has few leaves the rest to those that have more.
    order = sorted(range(len(found)), key=lambda number: len(found[number]))
    taken: dict[int, list[Fault]] = {}
    for place, number in enumerate(order):
        share = min(left // (len(order) - place), len(found[number])) if most else None
        chosen = list(found[number]) if share is None else chance.sample(found[number], share)
        taken[number] = chosen
        left -= len(chosen)
    return [taken[number] for number in range(len(found))]


def played(kind: type[Errand], faults: Sequence[Fault]) -> Outcome:
    """Play these faults one after the other, on one node."""
    wrong: list[Wrong] = []
    struck = 0
    with playground() as ground:
        errand = kind(ground)
        try:
            for fault in faults:
                found = _found(errand, fault)
                struck += errand.tracer.struck()
                if found:
                    wrong.append(Wrong(kind.name, fault, "; ".join(found)))
        finally:
            errand.over()
    return Outcome(len(faults), struck, tuple(wrong))


def done(errand: Errand, before: Sequence[str]) -> list[str]:
    """What is wrong after an errand that was done with these words in front of it; once more where
    the machine was too slow for it. TooSlowError where it is each time."""
    for _ in range(TRIES - 1):
        with suppress(TooSlowError):
            return errand.do(before)
    return errand.do(before)


def _found(errand: Errand, fault: Fault) -> list[str]:
    try:
        return done(errand, errand.tracer.spoiling(fault))
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def named(text: str) -> list[list[Fault]]:
    """The fault of a whole name, beside its errand; nothing where it is only a part of one."""
    whole = _NAME.fullmatch(text)
    if whole is None:
        return []
    errand, what, call, path, time = whole.groups()
    fault = Fault(Step(call, "" if path == "-" else path, int(time)), what)
    return [[fault] if kind.name == errand else [] for kind in ERRANDS]


def _all_named(workers: Executor, words: str) -> list[list[Fault]]:
    """All faults of each errand whose names have these words."""
    return [
        [fault for fault in faults if words in f"{kind.name}: {fault}"]
        for kind, faults in zip(ERRANDS, workers.map(all_faults, ERRANDS), strict=True)
    ]


def _parts(faults: Sequence[Fault]) -> Iterator[Sequence[Fault]]:
    """What is played on one node each: more parts than CPUs, if there are so many faults."""
    size = min(CHUNK, len(faults) // (os.cpu_count() or 1) + 1)
    return (faults[at : at + size] for at in range(0, len(faults), size))


def campaign(most: int, seed: int, *, only: str = "") -> Iterator[Outcome]:
    """Play the faults of all errands, or so many of them, whose names have these words; what came
    of each part, which has a process of its own, as it ends."""
    with pool() as workers:
        found = named(only) or _all_named(workers, only)
        chosen = zip(ERRANDS, drawn(found, most, seed), strict=True)
        jobs = [(kind, part) for kind, faults in chosen for part in _parts(faults)]
        of = sum(len(part) for _, part in jobs)
        for outcome in workers.map(played, *zip(*jobs, strict=True)):
            yield replace(outcome, of=of)
