"""The simulated node: snapshots, rollback, hibernation and resume."""

import re
import time

import pytest

from proxmox_cpu_affinity.formats import pveconf
from proxmox_cpu_affinity.sim import processes
from proxmox_cpu_affinity.sim.settings import PostStop

from .conftest import Cast

STARTED = ["pre-start", "post-start"]
STOPPED = ["pre-stop", "post-stop"]


def parsed(cast: Cast, vmid: int) -> pveconf.GuestFile:
    return pveconf.parse(cast.file(vmid).read_text())


def state_file(cast: Cast, vmid: int, name: str) -> bool:
    """Whether a file with the guest's RAM is there."""
    return cast.node.path(f"/var/lib/vz/images/{vmid}/vm-{vmid}-state-{name}.raw").exists()


def test_a_snapshot_is_a_section_and_fires_no_hook(cast: Cast) -> None:
    vmid = cast.guest("--cores", 2, "--tags", "a", "--description", "the guest", start=True)
    pid, main = cast.node.pid(vmid), parsed(cast, vmid).main.values
    cast.calls(vmid)
    cast.node.do("snapshot", vmid, "one", "--description", "before: all")
    cast.node.do("set", vmid, "--tags", "b")
    cast.node.do("snapshot", vmid, "two")
    file = parsed(cast, vmid)
    one, two = file.snapshots["one"], file.snapshots["two"]
    assert dict(one.values) == {**main, "snaptime": one.values["snaptime"]}
    assert one.description == "before: all"
    assert two.description is None
    assert (two.values["parent"], two.values["tags"]) == ("one", "b")
    assert (file.main.values["parent"], file.main.description) == ("two", "the guest")
    assert cast.node.do("config", vmid, "--snapshot", "one").count("tags: a\n") == 1
    assert cast.node.pid(vmid) == pid
    assert cast.calls(vmid) == []
    lines = cast.node.do("listsnapshot", vmid).splitlines()
    assert [line.split()[1] for line in lines] == ["one", "two", "current"]
    assert lines[0].endswith("before: all")
    assert lines[2].startswith("        `-> current ")
    assert lines[2].endswith("You are here!")


def test_a_deleted_snapshot_leaves_its_children_to_its_parent(cast: Cast) -> None:
    vmid = cast.guest(start=True)
    for name in ("one", "two", "three"):
        cast.node.do("snapshot", vmid, name, "--vmstate", int(name == "two"))
    assert state_file(cast, vmid, "two")
    cast.node.do("delsnapshot", vmid, "two")
    file = parsed(cast, vmid)
    assert set(file.snapshots) == {"one", "three"}
    assert file.snapshots["three"].values["parent"] == "one"
    assert not state_file(cast, vmid, "two")
    cast.node.do("delsnapshot", vmid, "three")
    cast.node.do("delsnapshot", vmid, "one")
    assert "parent" not in parsed(cast, vmid).main.values


def test_what_is_refused(cast: Cast) -> None:
    vmid = cast.guest()
    cast.node.do("snapshot", vmid, "one")
    for words, status, says in (
        (("snapshot", vmid, "one"), 255, "snapshot name 'one' already used\n"),
        (("snapshot", vmid, "current"), 255, "unable to use snapshot name 'current'"),
        (("snapshot", vmid, "1st"), 2, "snapname: invalid format"),
        (("snapshot", vmid, "x" * 41), 2, "snapname: value may only be 40 characters long"),
        (("rollback", vmid, "none"), 255, "snapshot 'none' does not exist\n"),
        (("delsnapshot", vmid, "none"), 255, "snapshot 'none' does not exist\n"),
        (("suspend", vmid, "--todisk"), 255, f"VM {vmid} not running\n"),
    ):
        cast.refused(*words, status=status, says=says)
    cast.node.do("set", vmid, "--lock", "backup")
    for name in ("snapshot", "rollback", "delsnapshot"):
        new = "two" if name == "snapshot" else "one"
        cast.refused(name, vmid, new, status=255, says="VM is locked (backup)\n")
    cast.node.do("unlock", vmid)
    cast.node.do("template", vmid)
    cast.refused("snapshot", vmid, "two", status=255, says="if it's a template\n")
    cast.refused("rollback", vmid, "one", status=255, says="vm is a template\n")


def test_rollback_without_ram_ends_the_guest(cast: Cast, model: PostStop) -> None:
    """The whole section comes back: the hookscript goes, what was pending is lost."""
    cast.node.configure(post_stop=model)
    vmid = cast.guest("--cores", 1, hook=False)
    cast.node.do("snapshot", vmid, "bare")
    cast.node.do("set", vmid, "--hookscript", cast.hook.volume, "--affinity", "0,0")
    cast.node.do("set", vmid, "--description", "stays")
    cast.node.do("start", vmid)
    cast.node.do("set", vmid, "--cores", 2)
    cast.calls(vmid)
    cast.node.do("rollback", vmid, "bare")
    assert cast.node.pid(vmid) is None
    file = parsed(cast, vmid)
    assert not {"hookscript", "affinity", "lock", "snaptime"} & set(file.main.values)
    assert (file.main.values["cores"], file.main.values["parent"]) == ("1", "bare")
    assert file.main.description == "stays"
    assert file.pending == pveconf.Section()
    calls = cast.calls(vmid)
    assert calls == STOPPED if model is PostStop.PVE9 else calls in (["pre-stop"], STOPPED)


def test_rollback_of_a_guest_that_does_not_run(cast: Cast) -> None:
    vmid = cast.guest("--affinity", "1")
    cast.node.do("snapshot", vmid, "one")
    cast.node.do("set", vmid, "--delete", "affinity")
    cast.node.do("rollback", vmid, "one")
    assert parsed(cast, vmid).main.values["affinity"] == "1"
    assert cast.calls(vmid) == []
    cast.node.do("set", vmid, "--delete", "affinity")
    cast.node.do("rollback", vmid, "one", "--start")
    assert cast.calls(vmid) == STARTED


def test_rollback_with_ram_runs_the_snapshots_hook(any_cast: Cast, model: PostStop) -> None:
    any_cast.node.configure(post_stop=model)
    log = any_cast.hook.log
    other = any_cast.node.add_snippet("other", f"#!/bin/sh\necho $1 other:$2 >> {log}\n")
    vmid = any_cast.guest("--cores", 2, start=True)
    any_cast.node.do("snapshot", vmid, "live", "--vmstate", 1)
    assert any_cast.status(vmid) == "running"
    section = parsed(any_cast, vmid).snapshots["live"].values
    assert section["vmstate"] == f"local:{vmid}/vm-{vmid}-state-live.raw"
    assert re.fullmatch(r"pc-i440fx-\d+\.\d+\+pve0", section["runningmachine"])
    any_cast.node.do("set", vmid, "--hookscript", other)
    any_cast.calls(vmid)
    before = any_cast.node.pid(vmid)
    any_cast.node.do("rollback", vmid, "live")
    assert any_cast.node.pid(vmid) not in {None, before}
    assert any_cast.status(vmid) == "running"
    values = parsed(any_cast, vmid).main.values
    assert values["hookscript"] == any_cast.hook.volume
    assert not {"vmstate", "runningmachine", "runningcpu", "lock"} & set(values)
    calls = any_cast.calls(vmid)
    expected = ["other:pre-stop", "other:post-stop", *STARTED]
    if model is PostStop.PVE9:
        assert calls == expected
    else:  # by `qm cleanup`, which may come in between, or too late
        late = [call for call in calls if not call.endswith("post-stop")]
        assert late == ["other:pre-stop", *STARTED]
    any_cast.node.do("stop", vmid)
    any_cast.node.do("rollback", vmid, "live")  # again, now of a guest that does not run
    assert any_cast.status(vmid) == "running"


def test_hibernation(any_cast: Cast, model: PostStop) -> None:
    any_cast.node.configure(post_stop=model)
    vmid = any_cast.guest("--cores", 2, start=True)
    first = any_cast.node.pid(vmid)
    any_cast.node.do("set", vmid, "--cores", 1)
    any_cast.calls(vmid)
    said = any_cast.node.do("suspend", vmid, "--todisk", 1)
    assert said.endswith("State saved, quitting\n")
    any_cast.comes(vmid, "post-stop")
    assert any_cast.node.pid(vmid) is None
    file = parsed(any_cast, vmid)
    assert file.main.values["lock"] == "suspended"
    volume = file.main.values["vmstate"]
    assert any_cast.node.path(f"/var/lib/vz/images/{volume.partition(':')[2]}").exists()
    any_cast.refused("set", vmid, "--memory", 32, status=255, says="VM is locked (suspended)\n")
    any_cast.refused("stop", vmid, status=255, says="VM is locked (suspended)\n")
    said = any_cast.node.do("start", vmid)
    assert "Resuming suspended VM\n" in said
    assert "Resumed VM, removing state\n" in said
    assert any_cast.status(vmid) == "running"
    assert any_cast.node.pid(vmid) not in {None, first}
    assert any_cast.calls(vmid) == STARTED
    file = parsed(any_cast, vmid)
    assert not {"lock", "vmstate", "runningmachine"} & set(file.main.values)
    # The machine is the one that was suspended: what was pending then still is.
    assert (file.main.values["cores"], file.pending.values["cores"]) == ("2", "1")
    assert list(any_cast.node.path(f"/var/lib/vz/images/{vmid}").iterdir()) == []


def test_resume_starts_a_hibernated_guest(cast: Cast) -> None:
    vmid = cast.guest(start=True)
    cast.node.do("suspend", vmid, "--todisk")
    assert processes.wait_until(lambda: cast.node.pid(vmid) is None, seconds=10)
    cast.node.do("resume", vmid)
    assert cast.status(vmid) == "running"


@pytest.mark.parametrize("words", [("suspend", "--todisk"), ("snapshot", "live", "--vmstate")])
@pytest.mark.parametrize("where", ["folder", "file"])
def test_ram_that_cannot_be_saved_leaves_the_guest_as_it_was(
    any_cast: Cast, words: tuple[str, ...], where: str
) -> None:
    vmid = any_cast.guest(start=True)
    pid, before = any_cast.node.pid(vmid), any_cast.file(vmid).read_text()
    folder = any_cast.node.path(f"/var/lib/vz/images/{vmid}")
    if where == "folder":
        folder.write_text("in the way")
    else:  # a directory of the file's name
        name = f"suspend-{time.strftime('%Y-%m-%d')}" if words[0] == "suspend" else "live"
        (folder / f"vm-{vmid}-state-{name}.raw").mkdir(parents=True)
    any_cast.refused(words[0], vmid, *words[1:], status=255, says="unable to save VM state")
    assert any_cast.node.pid(vmid) == pid
    assert any_cast.status(vmid) == "running"
    assert any_cast.file(vmid).read_text() == before


def test_destroying_a_guest_removes_its_ram(cast: Cast) -> None:
    vmid = cast.guest(start=True)
    cast.node.do("snapshot", vmid, "live", "--vmstate", "1")
    cast.node.do("stop", vmid)
    cast.node.do("destroy", vmid)
    assert not cast.node.path(f"/var/lib/vz/images/{vmid}").exists()


@pytest.mark.parametrize("name", ["snapshot", "rollback", "delsnapshot", "listsnapshot", "suspend"])
def test_a_missing_guest(cast: Cast, name: str) -> None:
    more = ("--todisk",) if name == "suspend" else () if name == "listsnapshot" else ("one",)
    cast.refused(name, 99999, *more, status=2, says="99999.conf' does not exist\n")
