"""docs/reliability.md: every line names what holds it, and what it names is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.e2e.promises import PROMISES

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
PART = re.sub(r"<!--.*?-->", "", TEXT.partition("## The last run")[0], flags=re.DOTALL)
ROWS = [line for line in PART.splitlines() if line.startswith("| ") and "| held by |" not in line]


@cache
def names(file: str) -> frozenset[str]:
    """The tests and checks of a file."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    found = (node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    return frozenset(name for name in found if name.startswith(("test_", "check_")))


@cache
def commands() -> frozenset[str]:
    makefile = (TESTS.parent / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


@pytest.mark.parametrize("row", ROWS)
def test_every_line_is_held_by_what_is_there(row: str) -> None:
    text, _, held = row.strip("| ").rpartition(" | ")
    assert text
    references = re.findall(r"`([^`]+)`", held)
    assert references, "no test is named"
    for reference in references:
        if reference.startswith("make "):
            assert reference.removeprefix("make ") in commands(), reference
            continue
        file, _, name = reference.partition("::")
        assert (TESTS / file).exists(), reference
        assert name in names(file) if name else file.startswith("scenarios/"), reference


def test_every_promise_has_its_lines() -> None:
    found = re.findall(r"^### (\d)\. .*?(?=^### |\Z)", PART, re.MULTILINE | re.DOTALL)
    assert [int(number) for number in found] == list(PROMISES)
    parts = re.split(r"^### ", PART, flags=re.MULTILINE)[1:]
    assert all(part.count("\n| ") >= 4 for part in parts)
