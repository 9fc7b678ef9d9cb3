"""Runs the suites and ends with one plain line; fails below the floor of tests that ran.

The floor (tests/FLOOR) rises in the commit that adds tests: a suite that silently stops being
collected is a failure. Under CI=true a test skipped for want of a tool is one too. E2E_COUNT and
PAGE_COUNT name the files in which `make e2e` and `make page-test` left their figures: they are
added to those of the last line.

Tests of real processes race with a busy machine, so one that fails is run once more; each that
needed it is named, and more than a few are a failure.
"""

import json
import os
import sys
from pathlib import Path

import pytest

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


def count_left(variable: str = "E2E_COUNT") -> tuple[int, int]:
    """How many checks of another run passed and failed; that it left no figures is a failure."""
    name = os.environ.get(variable)
    if not name:
        return 0, 0
    try:
        figures = json.loads(Path(name).read_text())
    except (OSError, ValueError):
        return 0, 1
    return figures["passed"], figures["failed"]


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
    booted_passed, booted_failed = count_left()
    page_passed, page_failed = count_left("PAGE_COUNT")
    failed = count.failed + len(wrong) + booted_failed + page_failed
    if booted_passed or booted_failed:
        print(f"on the booted Debian: {booted_passed} passed, {booted_failed} failed (above)")
    if page_passed or page_failed:
        print(f"of the page in Chromium: {page_passed} passed, {page_failed} failed (above)")
    print(f"{count.passed + booted_passed + page_passed} passed, {failed} failed{skipped}")
    return 1 if failed or status else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
