"""Plays histories with faults, and ends with one line of figures: `make faults`.

A history that fails is named by its seed, made as small as it gets, and told as the scenarios tell
theirs; `--seed N` plays it again.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor

from tests import counts
from tests.faults import memory
from tests.faults.history import History, history, shrunk

CHUNK = 250


def failing(seeds: Iterable[int]) -> list[int]:
    return [seed for seed in seeds if memory.fails(history(seed))]


def told(seed: int) -> str:
    """A failing history, as small as it gets: what happened in it, and what was wrong."""
    small = shrunk(history(seed), memory.fails)
    story = memory.Faulty()
    try:
        memory.play(story, small)
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    else:
        wrong = "it does not fail when it is played again"
    lines = [f"seed {seed}:", *_listed(small), "which is", *story.lines, wrong]
    return "\n".join(lines)


def _listed(small: History) -> list[str]:
    return [f"  {happening}" for happening in small]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run", description=__doc__)
    parser.add_argument("--memory", type=int, default=10_000, help="histories (10000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--seed", type=int, help="one history only, told if it fails")
    given = parser.parse_args(arguments)
    if given.seed is not None:
        wrong = failing([given.seed])
        print(told(given.seed) if wrong else f"seed {given.seed}: nothing is wrong")
        return len(wrong)
    began = time.monotonic()
    end = given.first + given.memory
    chunks = [range(at, min(at + CHUNK, end)) for at in range(given.first, end, CHUNK)]
    with ProcessPoolExecutor() as pool:
        wrong = [seed for found in pool.map(failing, chunks) for seed in found]
    for seed in wrong[:3]:
        print(told(seed))
    if wrong:
        print(f"failing seeds: {' '.join(map(str, wrong))}")
    counts.leave("faults", passed=given.memory - len(wrong), failed=len(wrong))
    rate = given.memory * 60 / (time.monotonic() - began)
    print(f"histories in memory, {rate:.0f} a minute: ", end="")
    print(f"{given.memory - len(wrong)} passed, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
