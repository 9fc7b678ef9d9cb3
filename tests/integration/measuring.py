"""A simulated measuring program that also notes what it is told, for the tests of measuring."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import bench.simulated_pingpong as simulated

from proxmox_cpu_affinity.latency.schedule import Pair
from proxmox_cpu_affinity.model.ids import Cpu

Rows = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Order:
    """The rounds that were asked for together, and the time limit of each pair."""

    limit_us: int
    rounds: tuple[tuple[Pair, ...], ...]

    @property
    def pairs(self) -> list[Pair]:
        return [pair for pairs in self.rounds for pair in pairs]


@dataclass(frozen=True, slots=True)
class Recorded:
    """The program, and the log of its input."""

    program: Path
    log: Path

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def orders(self) -> list[Order]:
        """What was asked for, in order."""
        found: list[Order] = []
        limit, rounds, pairs = 0, [], []  # type: tuple[int, list[tuple[Pair, ...]], list[Pair]]
        for line in self.lines():
            word, *rest = line.split() or [""]
            if word == "limit-us":
                limit = int(rest[0])
            elif word == "pair":
                pairs.append((Cpu(int(rest[0])), Cpu(int(rest[1]))))
            elif word == "round":
                rounds.append(tuple(pairs))
                pairs = []
            elif word == "run":
                found.append(Order(limit, tuple(rounds)))
                rounds = []
        return found

    def forget(self) -> None:
        self.log.unlink(missing_ok=True)


def recorded(folder: Path, rows: Rows, **truth: object) -> Recorded:
    """The program in this folder; `truth` as the simulated program's own text says."""
    (folder / "truth.json").write_text(json.dumps({"ns": rows, **truth}))
    made = Recorded(folder / "pingpong", folder / "told.log")
    command = f'exec {sys.executable} {simulated.__file__} "{folder}/truth.json"'
    made.program.write_text(f'#!/bin/sh\ntee -a "{made.log}" | {command}\n')
    made.program.chmod(0o755)
    return made
