"""Many guests, many events, many CPUs: `make load`. Ends with one line of figures.

`make load` is all of it, some 13 minutes; `make load SHORT=1` the two minutes of CI.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from proxmox_cpu_affinity.sim import hookscript
from proxmox_cpu_affinity.sim import node as simulated
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind
from tests import counts
from tests.faults.pool import breakable
from tests.load import churn, large, starts
from tests.load.outcome import Outcome

GUESTS, EVENTS = 200, 100_000
SHORT_GUESTS, SHORT_EVENTS = 40, 2_500
TOLD = 10  # things that went wrong, of each part
PARTS = ("large", "starts", "churn")


@contextmanager
def folder() -> Iterator[Path]:
    """Short, for a Unix socket's path has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="pca-load-") as name:
        yield Path(name) / "n"


@contextmanager
def node() -> Iterator[tuple[Node, str]]:
    """A simulated node with our hookscript, and the hook's volume."""
    with folder() as root, simulated.create(root, guest=GuestKind.STANDIN) as made:
        yield made, hookscript.install(made)


def of_starts(count: int) -> Outcome:
    with node() as (made, volume):
        return starts.run(made, volume, count=count)


def of_churn(events: int) -> Outcome:
    with node() as (made, volume):
        return churn.run(made, volume, events=events)


def of_large() -> Outcome:
    with folder() as root:
        return large.run(root)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(f"no part is named {min(unknown)!r}: {', '.join(PARTS)}")
    return names


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load.run", description=__doc__)
    parser.add_argument("--short", action="store_true", help="two minutes, for every run of CI")
    parser.add_argument(
        "--only", type=_parts, default=list(PARTS), help=f"of {','.join(PARTS)}, by commas"
    )
    parser.add_argument("--guests", type=_count, help=f"started at once ({GUESTS})")
    parser.add_argument("--events", type=_count, help=f"of churn; make's EVENTS ({EVENTS})")
    return parser.parse_args(words)


def play(parts: dict[str, Callable[[], Outcome]]) -> Iterator[Outcome]:
    """How each part went, told as it ends."""
    for name, part in parts.items():
        outcome = part()
        print(outcome.line, flush=True)
        for wrong in outcome.wrong[:TOLD]:
            print(f"FAILED  {name}: {wrong}", flush=True)
        if more := outcome.wrong[TOLD:]:
            print(f"FAILED  {name}: {len(more)} more", flush=True)
        yield outcome


def main(words: Sequence[str]) -> int:
    given = arguments(words)
    # Broken off it takes its node away all the same.
    breakable()
    guests = given.guests or (SHORT_GUESTS if given.short else GUESTS)
    events = given.events or (SHORT_EVENTS if given.short else EVENTS)
    parts: dict[str, Callable[[], Outcome]] = {
        "large": of_large,
        "starts": lambda: of_starts(guests),
        "churn": lambda: of_churn(events),
    }
    try:
        done = list(play({name: part for name, part in parts.items() if name in given.only}))
    except KeyboardInterrupt:
        return 130
    failed = sum(bool(outcome.wrong) for outcome in done)
    counts.leave("load", passed=len(done) - failed, failed=failed)
    print(f"load, {guests} guests at once, {events} events: ", end="")
    print(f"{len(done) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
