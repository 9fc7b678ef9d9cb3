"""A measuring program without CPUs: it knows a host's latencies, and adds the noise of a real one.

    simulated_pingpong.py TRUTH.json

TRUTH.json: {"ns": [[...]], "cpus": [...], "noise": 0.02, "outliers": 0.03, "seed": 1,
"disturbed": 1.0, "failing": [[A, B], ...]}; all but "ns" may be missing. `noise`: spread of the
batches; `outliers`: share of batches that last 4 to 30 times as long, as when a thread is
pre-empted, half of them with a switch; `disturbed`: factor on pairs that are measured beside
others. Speaks the lines that latency/main.c documents.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

Pair = tuple[int, int]


class Simulated:
    """What the program knows and was told."""

    def __init__(self, truth: dict[str, object]) -> None:
        ns = truth["ns"]
        assert isinstance(ns, list)
        cpus = truth.get("cpus", list(range(len(ns))))
        assert isinstance(cpus, list)
        self.ns = ns
        self.row = {cpu: i for i, cpu in enumerate(cpus)}
        self.noise, self.outliers, self.disturbed = (
            float(str(truth.get(name, default)))
            for name, default in (("noise", 0.02), ("outliers", 0.03), ("disturbed", 1.0))
        )
        failing = truth.get("failing", [])
        assert isinstance(failing, list)
        self.failing = {frozenset(pair) for pair in failing}
        self.random = random.Random(str(truth.get("seed", 1)))
        self.told = {"batches-min": 5, "batches-max": 30, "agree": 0.05}
        self.rounds: list[list[Pair]] = [[]]

    def hear(self, line: str) -> Iterator[str]:
        word, *rest = line.split() or [""]
        if word == "pair":
            self.rounds[-1].append((int(rest[0]), int(rest[1])))
        elif word == "round":
            self.rounds.append([])
        elif word == "run":
            for pairs in self.rounds:
                for pair in pairs:
                    yield self.answer(pair, self.disturbed if len(pairs) > 1 else 1.0)
            yield f"ran {sum(map(len, self.rounds))}"
            self.rounds = [[]]
        elif word in self.told:
            self.told[word] = float(rest[0])

    def answer(self, pair: Pair, factor: float) -> str:
        first, second = pair
        if frozenset(pair) in self.failing or not {first, second} <= self.row.keys():
            return f"error {first} {second} EINVAL"
        truth = factor * self.ns[self.row[first]][self.row[second]]
        batches: list[tuple[float, int]] = []
        while not self.enough([ns for ns, _ in batches]):
            value = truth * max(0.5, self.random.gauss(1, self.noise))
            switches = 0
            if self.random.random() < self.outliers:
                value *= self.random.uniform(4, 30)
                switches = self.random.randrange(2)
            batches.append((value, switches))
        said = " ".join(f"{ns:.3f}:{switches}" for ns, switches in batches)
        return f"sample {first} {second} -1 {said}"

    def enough(self, batches: list[float]) -> bool:
        if len(batches) < max(2, self.told["batches-min"]):
            return len(batches) >= self.told["batches-max"]
        low, second = sorted(batches)[:2]
        return second <= low * (1 + self.told["agree"]) or len(batches) >= self.told["batches-max"]


def main() -> None:
    """Answer until stdin ends."""
    program = Simulated(json.loads(Path(sys.argv[1]).read_text()))
    sys.stdout.write("pingpong 2\n")
    sys.stdout.flush()
    for line in sys.stdin:
        for said in program.hear(line):
            sys.stdout.write(f"{said}\n")
        if line.strip() == "run":
            sys.stdout.flush()


if __name__ == "__main__":
    main()
