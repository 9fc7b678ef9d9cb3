"""Many guests, many events, many CPUs: `make load`. Ends with one line of figures.

python -m tests.load.run [--short] [--only starts,churn,large] [--guests N] [--events N]
"""

import argparse
import signal
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
from tests.load import churn, large, starts
from tests.load.outcome import Outcome

GUESTS, EVENTS = 200, 100_000
SHORT_GUESTS, SHORT_EVENTS = 40, 2_500


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


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make load", description=__doc__)
    parser.add_argument("--short", action="store_true", help="two minutes, for every run of CI")
    parser.add_argument("--only", default="starts,churn,large", help="parts, by commas")
    parser.add_argument("--guests", type=int, help=f"started at once ({GUESTS})")
    parser.add_argument("--events", type=int, help=f"of churn ({EVENTS})")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    given = arguments(words)
    # Ended by a time limit it takes its node away all the same.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    guests = given.guests or (SHORT_GUESTS if given.short else GUESTS)
    events = given.events or (SHORT_EVENTS if given.short else EVENTS)
    parts: dict[str, Callable[[], Outcome]] = {
        "large": of_large,
        "starts": lambda: of_starts(guests),
        "churn": lambda: of_churn(events),
    }
    wanted = given.only.split(",")
    done = []
    for name, part in parts.items():
        if name in wanted:
            done.append(part())
            print(done[-1].line, flush=True)
            for wrong in done[-1].wrong[:10]:
                print(f"FAILED  {name}: {wrong}", flush=True)
    failed = sum(bool(outcome.wrong) for outcome in done)
    counts.leave("load", passed=len(done) - failed, failed=failed)
    print(f"load, {guests} guests at once, {events} events: ", end="")
    print(f"{len(done) - failed} passed, {failed} failed")
    return 1 if failed or not done else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
