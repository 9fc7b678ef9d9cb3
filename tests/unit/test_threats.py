"""docs/threat-model.md: every line names the tests that hold it, and these are there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DOCUMENT = TESTS.parent / "docs" / "threat-model.md"
ROWS = [
    line
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and "| held by |" not in line
]


def defined_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS)
def test_every_line_is_held_by_tests_that_are_there(row: str) -> None:
    references = re.findall(r"`([^`]+)`", row.rpartition(" | ")[2])
    assert references, "no test is named"
    for reference in references:
        file, _, name = reference.partition("::")
        assert name.startswith("test_"), reference
        assert name in defined_in(TESTS / file), reference


def test_it_is_one_page_and_not_empty() -> None:
    assert len(ROWS) > 20
    assert len(DOCUMENT.read_text(encoding="utf-8").splitlines()) < 90


def test_every_test_of_the_attack_stands_in_it() -> None:
    named = DOCUMENT.read_text(encoding="utf-8")
    for name in ("test_places.py", "test_shapes.py", "test_loads.py", "test_schema.py"):
        assert f"api/{name}::" in named
