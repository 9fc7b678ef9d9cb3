"""Runs a folder of tests on its own, names the figures they recorded, and ends with one plain line.

Its count goes to build/SUITE.count, for SUITE_COUNTS of tests/run.py.
"""

import os
import sys
from pathlib import Path

import pytest

from tests.counts import leave
from tests.run import Count


class Told(Count):
    """Counts, and keeps what tests said of themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.figures: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        super().pytest_runtest_logreport(report)
        if report.when == "call" and report.passed:
            self.figures += [f"{name}: {value}" for name, value in report.user_properties]


def run(suite: str, *arguments: str) -> int:
    """Run tests/SUITE; the exit status."""
    told = Told()
    folder = Path(__file__).parent / suite
    status = int(pytest.main([str(folder), *arguments], plugins=[told]))
    wrong = []
    if os.environ.get("CI") == "true" and told.skipped:
        wrong.append("tests were skipped, and CI must have every tool")
    for line in (*told.figures, *told.unsteady, *told.skipped, *wrong):
        sys.stdout.write(f"{line}\n")
    failed = told.failed + len(wrong)
    leave(suite, passed=told.passed, failed=failed)
    skipped = f", {len(told.skipped)} skipped" if told.skipped else ""
    sys.stdout.write(f"{told.passed} passed, {failed} failed{skipped}\n")
    return 1 if failed or status else 0
