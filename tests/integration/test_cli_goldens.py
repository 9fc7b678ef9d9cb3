"""What every command says, in text and JSON, compared with tests/goldens/cli to the letter.

Rewritten by `python -m tests.integration.make_cli_goldens` and reviewed as a diff.
"""

import json
import os
from collections.abc import Iterator

import click
import pytest

from proxmox_cpu_affinity.cli.main import NAME, cli
from tests.integration.cli_story import GOLDENS, whole_story

FILES = sorted(path.name for path in GOLDENS.iterdir())
ELSEWHERE = {
    "demo": "tells a story of other commands, each with its times: test_demo",
    "status-watch": "goes on until it is interrupted: test_cli_watch",
    "completion": "its script is click's, of whatever version: test_cli_completion",
}
TEXT_ONLY = {
    "status-svg": "a picture",
    "sim-run": "says what another program says",
}


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    if 0 not in os.sched_getaffinity(0):
        pytest.skip("CPU 0 may not be used here")
    return whole_story()


def leaves(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that is no group, and of groups that do something themselves."""
    if not isinstance(command, click.Group):
        yield words
        return
    if command.invoke_without_command:
        yield words
    context = click.Context(command)
    for name in (*command.list_commands(context), *(() if words else ("completion",))):
        below = command.get_command(context, name)
        assert below is not None
        yield from leaves(below, (*words, name))


@pytest.mark.parametrize("file", FILES)
def test_it_says_what_it_said(file: str, told: dict[str, str]) -> None:
    assert told.get(file) == (GOLDENS / file).read_text(encoding="utf-8")


def test_no_golden_is_missing(told: dict[str, str]) -> None:
    assert sorted(told) == FILES


@pytest.mark.parametrize("name", ["-".join(words) for words in leaves(cli)])
def test_every_command_has_goldens_of_both_forms(name: str) -> None:
    if name not in ELSEWHERE:
        text = (GOLDENS / f"{name}.txt").read_text(encoding="utf-8")
        assert text.startswith(f"$ {NAME} {name.split('-', maxsplit=1)[0]}")
        assert "\n--- exit status 0\n" in text
    if name not in (*ELSEWHERE, *TEXT_ONLY):
        json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))
