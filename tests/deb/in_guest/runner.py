"""Runs the package's checks in the guest, in the order they are written: [WORD]"""

import signal
import sys

from tests.deb.in_guest import package_checks
from tests.e2e.in_guest import node, runner


def main(words: list[str]) -> int:
    signal.signal(signal.SIGALRM, runner.overdue)
    runner.CHECK_LIMIT = package_checks.CHECK_LIMIT
    chosen = {
        f"package.{name.removeprefix('check_')}": check
        for name, check in vars(package_checks).items()
        if name.startswith("check_") and words[1] in name
    }
    runner.say(checks=len(chosen))
    node.prepare()
    for name, check in chosen.items():
        runner.run(name, check)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
