"""Runs the checks in the guest: python3 -m tests.e2e.in_guest.runner SHAPE [WORD]

One line of JSON for each check as soon as it has ended, one before all with their number. pytest
would take longer to start here than most checks take. E2E_FULL=1 runs those of `by_hand` too.
"""

import importlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from tests.e2e.in_guest import node
from tests.e2e.in_guest.node import FULL
from tests.e2e.promises import promises_of

# In this order; the first and the last two change what CPUs there are.
MODULES = (
    "arrival",
    "topology",
    "systemd",
    "service",
    "guests",
    "drop_ins",
    "histories",
    "by_hand",
    "cpus",
    "watching",
)
HERE = Path(__file__).parent
CHECK_LIMIT = 3000 if FULL else 200  # seconds

Check = Callable[[], None]


class OverdueError(Exception):
    """A check took too long."""


def say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def checks(words: str) -> dict[str, Check]:
    """The functions check_* of the modules, those whose name holds one of `words` (by commas)."""

    def chosen(title: str) -> bool:
        return any(word in title for word in words.split(","))

    found: dict[str, Check] = {}
    for name in MODULES:
        if not (HERE / f"{name}_checks.py").exists():
            continue  # not for this Debian, see stage.py
        module = importlib.import_module(f"tests.e2e.in_guest.{name}_checks")
        for key, value in vars(module).items():
            title = f"{name}.{key.removeprefix('check_')}"
            later = hasattr(value, "by_hand") and not FULL
            if key.startswith("check_") and chosen(title) and not later:
                promises_of(value)  # each says so
                found[title] = value
    return found


def overdue(number: int, frame: FrameType | None) -> None:
    raise OverdueError(f"not done within {CHECK_LIMIT} s")


def run(name: str, check: Check) -> None:
    began = time.monotonic()
    signal.alarm(CHECK_LIMIT)
    try:
        check()
        text = ""
    except Exception:
        signal.alarm(0)
        text = f"{traceback.format_exc()}\nthe service's log:\n{node.log()}"
    finally:
        signal.alarm(0)
    say(
        check=name,
        shows=promises_of(check),
        passed=not text,
        seconds=round(time.monotonic() - began, 1),
        text=text,
    )


def main(words: list[str]) -> int:
    signal.signal(signal.SIGALRM, overdue)
    chosen = checks(words[1] if len(words) > 1 else "")
    say(checks=len(chosen))
    node.prepare()
    for name, check in chosen.items():
        run(name, check)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
