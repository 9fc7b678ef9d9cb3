"""Runs the package's checks in the guest, in the order they are written: WORD[,WORD...]"""

import signal
import sys

from tests.deb.in_guest import life_checks, package, sandbox_checks
from tests.e2e.in_guest import node, runner

MODULES = {"sandbox": sandbox_checks, "life": life_checks}


def chosen_by(words: str, title: str) -> bool:
    """Whether a name holds one of some words, A,B."""
    return any(word in title for word in words.split(","))


def main(words: list[str]) -> int:
    signal.signal(signal.SIGALRM, runner.overdue)
    runner.CHECK_LIMIT = package.CHECK_LIMIT
    chosen = {
        f"{module}.{name.removeprefix('check_')}": check
        for module, checks in MODULES.items()
        for name, check in vars(checks).items()
        if name.startswith("check_") and chosen_by(words[1], f"{module}.{name}")
    }
    runner.say(checks=len(chosen))
    node.prepare()
    for name, check in chosen.items():
        runner.run(name, check)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
