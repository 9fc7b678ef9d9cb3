"""Runs the suites and ends with one plain line; fails below the floor of tests that ran.

The floor (tests/FLOOR) rises in the commit that adds tests: a suite that silently stops being
collected is a failure. Under CI=true a test skipped for want of a tool is one too. SUITE_COUNTS
names the files in which other suites left their figures (tests/counts.py): they are added to
those of the last line.

Tests of real processes race with a busy machine, so one that fails is run once more; each that
needed it is named, and more than a few are a failure.
"""

import os
import sys
from pathlib import Path

import pytest

from tests.counts import left

HERE = Path(__file__).resolve().parent
UNSTEADY = 3  # tests that may need their second run


class Count:
    """What became of the tests, counted by pytest's own reports."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0
        self.skipped: list[str] = []
        self.unsteady: list[str] = []
        self.expected: list[str] = []  # known defects, marked xfail with their reason

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome: str = report.outcome  # "rerun" is pytest-rerunfailures' own
        if outcome == "rerun":
            why = report.longreprtext.strip().splitlines()[-1:]
            self.unsteady.append(f"{report.nodeid}: needed a second run: {' '.join(why)}")
        elif report.failed:
            self.failed += 1
        elif hasattr(report, "wasxfail"):
            self.expected.append(f"{report.nodeid}: known defect: {report.wasxfail}")
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "?"
            self.skipped.append(f"{report.nodeid}: {reason.removeprefix('Skipped: ')}")
        elif report.when == "call":
            self.passed += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed += 1


def main(arguments: list[str]) -> int:
    count = Count()
    status = int(pytest.main(arguments or [str(HERE)], plugins=[count]))
    floor = int((HERE / "FLOOR").read_text().split()[0])
    wrong = []
    if not arguments and count.passed < floor:
        wrong.append(f"only {count.passed} tests passed, the floor is {floor} (tests/FLOOR)")
    if os.environ.get("CI") == "true" and count.skipped:
        wrong.append("tests were skipped, and CI must have every tool")
    if len(count.unsteady) > UNSTEADY:
        wrong.append(f"{len(count.unsteady)} tests needed a second run, {UNSTEADY} at most may")
    for line in (*count.unsteady, *count.skipped, *count.expected, *wrong):
        print(line)
    skipped = f", {len(count.skipped)} skipped" if count.skipped else ""
    passed, failed = count.passed, count.failed + len(wrong)
    others = list(left(os.environ.get("SUITE_COUNTS", "")))
    if others:
        print(f"pytest: {passed} passed, {failed} failed")
    for suite, its_passed, its_failed in others:
        print(f"{suite}: {its_passed} passed, {its_failed} failed (above)")
        passed, failed = passed + its_passed, failed + its_failed
    print(f"{passed} passed, {failed} failed{skipped}")
    return 1 if failed or status else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
