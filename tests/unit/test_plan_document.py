"""docs/plan.md tells every key of plan's JSON with its type, and no other one."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.model.cpuset import CpuSet

DOCUMENT = (Path(__file__).parents[2] / "docs" / "plan.md").read_text(encoding="utf-8")
ROW = re.compile(r"\| `([a-z_]+)` \| ([a-z ]+) \| .*\|")
Table = Mapping[str, str]


def tables() -> list[Table]:
    """Key to type, of each table behind the heading JSON."""
    found: list[dict[str, str]] = []
    for line in DOCUMENT.partition("\n## JSON\n")[2].splitlines():
        if line.startswith("| key | type |"):
            found.append({})
        elif match := ROW.fullmatch(line):
            found[-1][match[1]] = match[2]
    return list(found)


WHOLE, GUEST, SCORE = tables()


def is_cpulist(value: object) -> bool:
    return isinstance(value, str) and str(CpuSet.parse(value)) == value


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


ONE: Mapping[str, Callable[[object], bool]] = {
    "cpulist": is_cpulist,
    "text": lambda value: isinstance(value, str),
    "whole number": is_whole,
    "number": lambda value: isinstance(value, float),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}


def fits(value: object, kind: str) -> bool:
    if kind.startswith("list of "):
        one = ONE[kind.removeprefix("list of ").removesuffix("s")]
        return isinstance(value, list) and all(map(one, value))
    return any(ONE[word](value) for word in kind.split(" or "))


def check(value: Mapping[str, object], table: Table) -> None:
    assert list(value) == list(table)
    for key, kind in table.items():
        assert fits(value[key], kind), (key, kind, value[key])


@pytest.mark.parametrize("form", [("--json",), ("--format", "json"), ("--json", "--format=json")])
@pytest.mark.parametrize(
    "words",
    [
        ("--host=generated:2x2x4x2", "--guest=100:8:2:cpu-pinned", "--guest=101:40"),
        ("--host=generated:2x2x4x2", "--guest=100:33:cpu-dedicated"),
        ("--host=generated:1x1x1x1", "--guest=100:1"),
        ("--host=generated:1x1x4x1", "--guest=100:9", "--strategy=round-robin"),
    ],
)
def test_the_answer_is_as_the_document_has_it(
    words: tuple[str, ...],
    form: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main(["--root", str(tmp_path), "plan", *words, *form])
    said = json.loads(capsys.readouterr().out)
    check(said, WHOLE)
    for guest in said["guests"]:
        check(guest, GUEST)
    if status == 0:
        check(said["score"], SCORE)
    else:
        assert said["score"] is None


def test_the_document_names_every_format() -> None:
    for form in ("table", "json", "qm", "libvirt", "rhv"):
        assert f"`{form}`" in DOCUMENT or f"--format {form}" in DOCUMENT
