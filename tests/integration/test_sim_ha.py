"""The simulated node: HA's requests, and what its local resource manager makes of them."""

import os
import signal
from collections.abc import Iterator

import pytest

from proxmox_cpu_affinity.model.errors import ProgramFailedError
from proxmox_cpu_affinity.sim import processes
from proxmox_cpu_affinity.sim.settings import PostStop

from .conftest import Cast

STARTED = ["pre-start", "post-start"]
STOPPED = ["pre-stop", "post-stop"]


@pytest.fixture
def managed(cast: Cast) -> Iterator[int]:
    """A guest that HA keeps running."""
    cast.node.configure(post_stop=PostStop.PVE9)
    vmid = cast.guest()
    cast.node.run("ha-manager", "add", f"vm:{vmid}", "--state", "started")
    cast.node.lrm_round()
    assert cast.calls(vmid) == STARTED
    yield vmid
    cast.node.run("ha-manager", "remove", f"vm:{vmid}")


def test_a_request_is_answered_before_anything_happens(
    cast: Cast, managed: int, model: PostStop
) -> None:
    cast.node.configure(post_stop=model)
    pid = cast.node.pid(managed)
    assert cast.node.do("stop", managed) == f"Requesting HA stop for VM {managed}\n"
    assert cast.node.pid(managed) == pid
    cast.node.lrm_round()
    assert cast.node.pid(managed) is None
    cast.comes(managed, *STOPPED)
    assert cast.node.do("start", managed) == f"Requesting HA start for VM {managed}\n"
    assert cast.calls(managed) == []
    cast.node.lrm_round()
    assert cast.calls(managed) == STARTED


def test_a_crashed_guest_is_started_again(cast: Cast, managed: int, model: PostStop) -> None:
    cast.node.configure(post_stop=model)
    pid = cast.node.pid(managed)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    cast.comes(managed, "post-stop")
    cast.node.lrm_round()
    assert cast.node.pid(managed) not in {None, pid}
    assert cast.calls(managed) == STARTED
    cast.node.lrm_round()
    assert cast.calls(managed) == []


def test_a_start_that_fails_is_tried_again_as_often_as_allowed(cast: Cast) -> None:
    log = cast.node.path("/tmp/tries")
    hook = cast.node.add_snippet("bad", f"#!/bin/sh\necho $2 >> {log}\nexit 1\n")
    vmid = cast.guest("--hookscript", hook, hook=False)
    sid = f"vm:{vmid}"
    cast.node.run("ha-manager", "add", sid, "--state", "started", "--max_restart", "2")
    with pytest.raises(ProgramFailedError):
        cast.node.lrm_round()
    cast.node.run("ha-manager", "remove", sid)
    assert log.read_text().splitlines() == ["pre-start"] * 3


def test_migrate_goes_live(cast: Cast, managed: int) -> None:
    said = cast.node.do("migrate", managed, Cast.PEER, "--online")
    assert said == f"Requesting HA migration for VM {managed} to node pve2\n"
    assert cast.node.pid(managed) is not None
    cast.node.lrm_round()
    assert cast.node.pid(managed) is None
    assert cast.file(managed, node=Cast.PEER).exists()
    assert cast.calls(managed) == []
    cast.node.lrm_round()  # it is another node's now
    assert cast.node.pid(managed) is None


def test_relocate_stops_here_and_starts_there(cast: Cast, managed: int) -> None:
    assert cast.node.run("ha-manager", "relocate", f"vm:{managed}", Cast.PEER).returncode == 0
    assert cast.node.run("ha-manager", "relocate", f"vm:{managed}", "pve9").returncode == 255
    cast.node.lrm_round()
    assert cast.calls(managed) == STOPPED
    assert cast.file(managed, node=Cast.PEER).exists()
    # And the other way round: the file has come before the start.
    cast.node.move_in(managed, source=Cast.PEER)
    cast.node.lrm_round()
    assert cast.calls(managed) == STARTED


def test_a_live_migration_here_is_no_request(cast: Cast, managed: int) -> None:
    cast.node.do("migrate", managed, Cast.PEER, "--online")
    cast.node.lrm_round()
    done = cast.node.migrate_in(managed, source=Cast.PEER)
    assert "Requesting" not in done.stdout
    assert cast.calls(managed) == STARTED
    assert processes.arguments(cast.node.pid(managed) or 0)
