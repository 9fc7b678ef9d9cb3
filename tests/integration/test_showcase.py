"""SHOWCASE.md and docs/example.svg say what the program does now; else: make showcase."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
FILES = ("SHOWCASE.md", "docs/example.svg")

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")


def make_showcase(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, HOME / "scripts/make-showcase", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PCA_MANAGE": "all"},  # the caller's settings make no difference
        check=False,
    )


def test_it_is_what_the_program_does() -> None:
    done = make_showcase("--check")
    assert (done.returncode, done.stdout) == (0, ""), f"run: make showcase\n{done.stderr}"


def test_check_shows_the_difference_and_changes_nothing(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(HOME / name, tmp_path / name)
    stale = (HOME / FILES[0]).read_text().replace("CPU B is free again", "CPU B is gone")
    (tmp_path / FILES[0]).write_text(stale)
    done = make_showcase("--check", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    changed = [line for line in done.stderr.splitlines() if line.startswith(("-", "+"))]
    assert changed[2:] == [
        "-proxmox-cpu-affinity: CPU B is gone",
        "+proxmox-cpu-affinity: CPU B is free again",
    ]
    assert (tmp_path / FILES[0]).read_text() == stale


def test_wrong_usage_is_told() -> None:
    done = make_showcase("--chek")
    assert (done.returncode, done.stderr) == (2, "usage: make-showcase [--check] [DIR]\n")
