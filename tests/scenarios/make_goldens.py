"""Rewrites every scenario's expected.txt. From clean code only; review what changed as a diff."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.scenarios.scenario import read
from tests.scenarios.story import told

FOLDER = Path(__file__).resolve().parent


def scenarios() -> list[Path]:
    """The folders of all scenarios."""
    return sorted(path.parent for path in FOLDER.glob("*/scenario.json"))


def main() -> int:
    for folder in scenarios():
        text = told(read((folder / "scenario.json").read_text()))
        expected = folder / "expected.txt"
        if not expected.exists() or expected.read_text() != text:
            expected.write_text(text)
            sys.stdout.write(f"{folder.name}: rewritten\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
