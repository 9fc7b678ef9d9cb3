"""Each folder's story must go as its expected.txt says; rewriting that is `make goldens`' work."""

import re

import pytest

from tests.scenarios.make_goldens import FOLDER, scenarios
from tests.scenarios.scenario import read
from tests.scenarios.story import told

NAMES = [folder.name for folder in scenarios()]


@pytest.mark.parametrize("name", NAMES)
def test_story_goes_as_expected(name: str) -> None:
    folder = FOLDER / name
    found = told(read((folder / "scenario.json").read_text()))
    assert found == (folder / "expected.txt").read_text(), "if this is meant: make goldens"


@pytest.mark.parametrize("name", NAMES)
def test_readme_has_two_sentences(name: str) -> None:
    """Intent and expectation."""
    text = (FOLDER / name / "README").read_text().strip()
    assert len(re.findall(r"[.!](?=\s|$)", text)) == 2, text


@pytest.mark.parametrize("name", NAMES)
def test_story_is_told_the_same_twice(name: str) -> None:
    scenario = read((FOLDER / name / "scenario.json").read_text())
    assert told(scenario) == told(scenario)


def test_every_folder_is_a_whole_scenario() -> None:
    folders = [path for path in FOLDER.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert {path.name for path in folders} == set(NAMES)
    for folder in folders:
        files = {path.name for path in folder.iterdir()}
        assert files == {"README", "scenario.json", "expected.txt"}, folder.name
    assert len(NAMES) >= 20
