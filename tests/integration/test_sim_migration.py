"""The simulated node: guests that go to another node of the cluster, and guests that come."""

import json
from collections.abc import Iterator

import pytest

from proxmox_cpu_affinity.sim import processes
from proxmox_cpu_affinity.sim.arrival import Breaks
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import PostStop

from .conftest import Cast

STARTED = ["pre-start", "post-start"]
STOPPED = ["pre-stop", "post-stop"]


def away(cast: Cast, *words: object) -> int:
    """A guest of the other node."""
    vmid = cast.guest(*words)
    cast.node.do("migrate", vmid, Cast.PEER)
    return vmid


@pytest.fixture
def witness(cast: Cast) -> Iterator[str]:
    """A hookscript that tells what it sees of a migration; it is the volume id."""
    out = cast.node.path("/tmp/seen")
    script = (
        f'#!/bin/sh\nexec >> {out}\necho "$1 $2 from [${{PVE_MIGRATED_FROM-unset}}]"\n'
        f"[ -e {cast.file(0).parent}/$1.conf ] || echo not here\n"
        "qm config $1 > /dev/null 2>&1 || echo qm config: $?\n"
    )
    yield cast.node.add_snippet("witness", script)
    out.unlink(missing_ok=True)


def test_the_cluster_has_two_nodes(cast: Cast) -> None:
    vmid = away(cast)
    members = json.loads(cast.node.path("/etc/pve/.members").read_text())
    assert set(members["nodelist"]) == {"pve", Cast.PEER}
    assert members["cluster"]["quorate"] == 1
    ids = json.loads(cast.node.path("/etc/pve/.vmlist").read_text())["ids"]
    assert ids[str(vmid)]["node"] == Cast.PEER
    folder = cast.node.path(f"/etc/pve/nodes/{Cast.PEER}/qemu-server")
    assert folder.is_dir()


def test_a_live_migration_out_is_silent_here(any_cast: Cast, model: PostStop) -> None:
    any_cast.node.configure(post_stop=model)
    vmid = any_cast.guest(start=True)
    pid = any_cast.node.pid(vmid)
    assert pid is not None
    assert any_cast.calls(vmid) == STARTED
    said = any_cast.node.do("migrate", vmid, Cast.PEER, "--online")
    assert f"starting migration of VM {vmid} to node 'pve2'" in said
    assert "migration finished successfully" in said
    assert not processes.arguments(pid)
    assert any_cast.node.pid(vmid) is None
    any_cast.refused("config", vmid, status=2, says="does not exist")
    text = any_cast.file(vmid, node=Cast.PEER).read_text()
    assert "lock" not in text
    assert any_cast.node.do("cleanup", vmid, 1, 0) == ""
    assert any_cast.calls(vmid) == []
    left = any_cast.node.path("/run/qemu-server").glob(f"{vmid}.*")
    assert list(left) == []


def test_an_offline_migration_moves_the_file(cast: Cast) -> None:
    vmid = cast.guest("--cores", 2)
    before = cast.file(vmid).read_text()
    cast.node.do("migrate", vmid, Cast.PEER)
    assert not cast.file(vmid).exists()
    assert cast.file(vmid, node=Cast.PEER).read_text() == before
    cast.node.move_in(vmid, source=Cast.PEER)
    assert cast.file(vmid).read_text() == before
    assert cast.calls(vmid) == []


def test_migrations_that_are_refused(cast: Cast) -> None:
    vmid = cast.guest(start=True)
    cast.refused(
        *("migrate", vmid, Cast.PEER),
        status=255,
        says="can't migrate running VM without --online\n",
    )
    cast.refused("migrate", vmid, "pve", status=2, says="target: target is local node.")
    cast.refused("migrate", vmid, "pve9", status=255, says="no such cluster node 'pve9'\n")
    cast.refused("migrate", 99999, Cast.PEER, status=2, says="does not exist\n")
    cast.node.do("set", vmid, "--lock", "backup")
    cast.refused(
        *("migrate", vmid, Cast.PEER, "--online"), status=255, says="VM is locked (backup)\n"
    )
    assert cast.node.pid(vmid) is not None


def test_a_live_migration_here(any_cast: Cast, model: PostStop) -> None:
    any_cast.node.configure(post_stop=model)
    vmid = away(any_cast, "--cores", 2)
    seen: list[object] = []

    def look() -> None:
        state = any_cast.node.qm("status", vmid)
        seen.extend((state.returncode, any_cast.node.pid(vmid), any_cast.calls(vmid)))
        seen.append("lock: migrate" in any_cast.file(vmid, node=Cast.PEER).read_text())

    done = any_cast.node.migrate_in(vmid, source=Cast.PEER, meanwhile=look)
    assert done.returncode == 0, done.stdout
    assert f"migration listens on unix:/run/qemu-server/{vmid}.migrate" in done.stdout
    pid = any_cast.node.pid(vmid)
    assert seen == [2, pid, STARTED, True]
    assert any_cast.status(vmid) == "running"
    assert "lock" not in any_cast.file(vmid).read_text()
    assert not any_cast.file(vmid, node=Cast.PEER).exists()
    assert any_cast.calls(vmid) == []
    any_cast.node.do("stop", vmid)
    any_cast.comes(vmid, *STOPPED)


def test_what_hooks_see_on_the_target(cast: Cast, witness: str) -> None:
    vmid = away(cast, "--hookscript", witness)
    states: list[str] = []
    pidfile = cast.node.path(f"/run/qemu-server/{vmid}.pid")
    cast.node.migrate_in(
        vmid, source=Cast.PEER, meanwhile=lambda: states.append(pidfile.read_text())
    )
    assert states == [f"{cast.node.pid(vmid)}\n"]
    cast.node.do("stop", vmid)
    cast.node.do("start", vmid)
    missing = ["not here", "qm config: 2"]
    lines = cast.node.path("/tmp/seen").read_text().splitlines()
    assert lines == [
        f"{vmid} pre-start from [pve2]",
        *missing,
        f"{vmid} post-start from [pve2]",
        *missing,
        f"{vmid} pre-stop from [unset]",
        f"{vmid} post-stop from [unset]",
        f"{vmid} pre-start from []",
        f"{vmid} post-start from []",
    ]


def test_a_start_that_fails_on_the_target(any_cast: Cast, model: PostStop) -> None:
    """QEMU stays; whoever gets the guest's file here afterwards stops it, with both stop hooks."""
    any_cast.node.configure(post_stop=model)
    vmid = away(any_cast)
    done = any_cast.node.migrate_in(vmid, source=Cast.PEER, breaks=Breaks.AT_START)
    assert done.returncode == 255
    assert "migrate-set-capabilities" in done.stdout
    assert any_cast.calls(vmid) == ["pre-start"]
    assert any_cast.node.pid(vmid) is not None
    any_cast.node.move_in(vmid, source=Cast.PEER)
    assert any_cast.status(vmid) == "inmigrate"
    any_cast.refused("stop", vmid, status=255, says="VM is locked (migrate)\n")
    any_cast.node.do("stop", vmid, "--skiplock")
    assert any_cast.node.pid(vmid) is None
    any_cast.comes(vmid, *STOPPED)


def test_a_migration_that_breaks_on_its_way(any_cast: Cast, model: PostStop) -> None:
    any_cast.node.configure(post_stop=model)
    vmid = away(any_cast)
    pids: list[int | None] = []
    done = any_cast.node.migrate_in(
        vmid,
        source=Cast.PEER,
        breaks=Breaks.ON_THE_WAY,
        meanwhile=lambda: pids.append(any_cast.node.pid(vmid)),
    )
    assert done.returncode == 0
    (pid,) = pids
    assert pid is not None
    assert processes.wait_until(lambda: not processes.arguments(pid), seconds=10)
    cleared = ["post-stop"] if model is PostStop.PVE9 else []
    assert any_cast.calls(vmid) == [*STARTED, *cleared]
    assert "lock" not in any_cast.file(vmid, node=Cast.PEER).read_text()
    assert not any_cast.file(vmid).exists()
    # Nothing is left that hinders another try.
    assert any_cast.node.migrate_in(vmid, source=Cast.PEER).returncode == 0
    assert any_cast.status(vmid) == "running"


def test_a_hook_that_fails_on_the_target_ends_the_migration(cast: Cast) -> None:
    bad = cast.node.add_snippet("bad", "#!/bin/sh\nexit 3\n")
    vmid = away(cast, "--hookscript", bad)
    done = cast.node.migrate_in(vmid, source=Cast.PEER, meanwhile=lambda: pytest.fail("it came"))
    assert done.returncode == 255
    assert f"hookscript error for {vmid} on pre-start" in done.stdout
    assert cast.node.pid(vmid) is None
    assert "lock" not in cast.file(vmid, node=Cast.PEER).read_text()


def test_there_and_back(cast: Cast) -> None:
    vmid = cast.guest(start=True)
    first = cast.node.pid(vmid)
    cast.node.do("migrate", vmid, Cast.PEER, "--online")
    cast.node.migrate_in(vmid, source=Cast.PEER)
    assert cast.node.pid(vmid) not in {None, first}
    assert cast.calls(vmid) == [*STARTED, *STARTED]


def test_other_ways_of_receiving_are_not_simulated(cast: Cast) -> None:
    vmid = away(cast)
    words = ("start", vmid, "--skiplock", "--migratedfrom", Cast.PEER, "--stateuri", "tcp")
    cast.refused(*words, status=255, says="stateuri 'tcp' is not simulated")


def test_a_node_alone_has_no_target(sim_node: Node) -> None:
    sim_node.do("create", 100)
    done = sim_node.qm("migrate", 100, "pve2")
    assert (done.returncode, done.stderr) == (255, "no such cluster node 'pve2'\n")
