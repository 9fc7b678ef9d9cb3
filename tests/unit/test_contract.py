"""docs/contract.md: every line names what holds it, and what it names is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DOCUMENT = TESTS.parent / "docs" / "contract.md"
ROWS = [
    line
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and "| held by |" not in line
]


@cache
def names(file: str) -> frozenset[str]:
    """The tests of a file."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    found = (node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    return frozenset(name for name in found if name.startswith("test_"))


@pytest.mark.parametrize("row", ROWS)
def test_every_line_is_held_by_what_is_there(row: str) -> None:
    text, _, held = row.strip("| ").rpartition(" | ")
    assert text
    references = re.findall(r"`([^`]+)`", held)
    assert references, "no test is named"
    for reference in references:
        file, _, name = reference.partition("::")
        assert (TESTS / file).exists(), reference
        if name:
            assert name in names(file), reference
        else:
            assert file.startswith(("goldens/", "scenarios/")), reference


def test_it_is_not_empty() -> None:
    assert len(ROWS) > 70
