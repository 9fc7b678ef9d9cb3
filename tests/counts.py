"""The figures of suites that are not pytest's, for the one last line of `make test`.

A suite leaves its own in build/SUITE.count with `leave`. SUITE_COUNTS (.ci/run) names the files of
those that were run: their figures are added, and a file that is missing or broken is a failure.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

BUILD = Path(__file__).resolve().parents[1] / "build"


def leave(suite: str, *, passed: int, failed: int, folder: Path = BUILD) -> None:
    """Write how a suite went to build/SUITE.count."""
    folder.mkdir(exist_ok=True)
    text = json.dumps({"passed": passed, "failed": failed})
    (folder / f"{suite}.count").write_text(f"{text}\n")


def left(names: str) -> Iterator[tuple[str, int, int]]:
    """Suite, passed, failed of each file in `names` (separated by white space)."""
    for name in names.split():
        file = Path(name)
        try:
            figures = json.loads(file.read_text())
            yield file.stem, int(figures["passed"]), int(figures["failed"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            sys.stderr.write(f"{name}: no figures: {error!r}\n")
            yield file.stem, 0, 1
