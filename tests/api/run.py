"""`make api-test`: the API under attack, over real sockets and by schemathesis.

Its last line is plain.
Its count goes to build/api.count, for SUITE_COUNTS of tests/run.py. SHORT=1 leaves out what waits
for patience to end.
"""

import os
import sys
from pathlib import Path

import pytest

from tests.counts import leave
from tests.page.run import Told

HERE = Path(__file__).resolve().parent


def main(arguments: list[str]) -> int:
    told = Told()
    short = ["-m", "not patient"] if os.environ.get("SHORT") else []
    status = int(pytest.main([str(HERE), *short, *arguments], plugins=[told]))
    wrong = []
    if os.environ.get("CI") == "true" and told.skipped:
        wrong.append("tests were skipped, and CI must have every tool")
    for line in (*told.figures, *told.skipped, *wrong):
        sys.stdout.write(f"{line}\n")
    failed = told.failed + len(wrong)
    leave("api", passed=told.passed, failed=failed)
    skipped = f", {len(told.skipped)} skipped" if told.skipped else ""
    sys.stdout.write(f"{told.passed} passed, {failed} failed{skipped}\n")
    return 1 if failed or status else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
