"""Tests that are ended by a signal, as by a time limit, leave no guest and no service behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proxmox_cpu_affinity.sim import processes
from tests.integration.running import PATIENCE, Running

TREE = Path(__file__).parents[2]
ENDLESS = """
import signal
from pathlib import Path
from tests.integration.running import Running, add_guest

def test_endless(sim_node):
    with Running(sim_node):
        add_guest(sim_node, 100)
        sim_node.do("start", 100)
        Path({told!r}).write_text(str(sim_node.root))
        signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_of_tests_that_are_ended(number: signal.Signals, tmp_path: Path) -> None:
    told, story = tmp_path / "told", tmp_path / "test_story.py"
    story.write_text(ENDLESS.format(told=str(told)))
    plugins = ("-p", "tests.conftest", "-p", "tests.integration.conftest")
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugins, str(story)],
        cwd=TREE,
        env={**os.environ, "PYTHONPATH": str(TREE)},
        stdout=subprocess.DEVNULL,
    ) as tests:
        try:
            Running.wait_for(lambda: told.exists() and told.read_text())
            root = told.read_text()
            assert _of(root)
            tests.send_signal(number)
            assert tests.wait(PATIENCE) == pytest.ExitCode.INTERRUPTED
        finally:
            if tests.poll() is None:
                tests.kill()
    assert not _of(root)
    assert not Path(root).exists()


def _of(root: str) -> list[int]:
    """The processes that name a node's folder in their arguments."""
    return list(processes.found(lambda argv: any(root in word for word in argv)))
