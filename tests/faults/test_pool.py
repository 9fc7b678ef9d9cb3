"""A campaign that is broken off leaves nothing behind."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.faults.playground import TREE, within
from tests.integration.running import PATIENCE

MARK = "PCA_TEST_CAMPAIGN"


def of_campaign(mark: str) -> dict[int, str]:
    """The processes that it started, by PID, as their command lines name them."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = words.decode(errors="replace")
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_campaign_that_is_broken_off_leaves_no_process(number: signal.Signals) -> None:
    """A terminal's Ctrl-C goes to all of its processes: a service and its clock were left."""
    mark = uuid.uuid4().hex

    def begun() -> bool:
        return any("tests.faults.hastened" in words for words in of_campaign(mark).values())

    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.run", "--memory=0", "--processes=3", "--steps=0"],
        cwd=TREE,
        env={**os.environ, MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as campaign:
        try:
            assert within(PATIENCE, begun)
            os.killpg(campaign.pid, number)
            _, said = campaign.communicate(timeout=4 * PATIENCE)
        finally:
            campaign.kill()
    assert campaign.returncode == 130
    assert b"broken off: what is being played comes to its end first\n" in said
    assert of_campaign(mark) == {}
