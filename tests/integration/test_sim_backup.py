"""The simulated node's vzdump: which hooks a backup fires, and in what state the guest is."""

from proxmox_cpu_affinity.formats import pveconf
from proxmox_cpu_affinity.sim.settings import PostStop

from .conftest import Cast

STARTED = ["pre-start", "post-start"]
STOPPED = ["pre-stop", "post-stop"]


def lock(cast: Cast, vmid: int) -> str | None:
    return pveconf.parse(cast.file(vmid).read_text()).main.values.get("lock")


def archives(cast: Cast, vmid: int) -> list[str]:
    folder = cast.node.path("/var/lib/vz/dump")
    return [path.read_text() for path in sorted(folder.glob(f"vzdump-qemu-{vmid}-*.vma"))]


def test_a_stopped_guest_is_started_paused_and_stopped_again(
    any_cast: Cast, model: PostStop
) -> None:
    any_cast.node.configure(post_stop=model)
    vmid = any_cast.guest("--cores", 2, "--name", "web")
    with any_cast.node.backing_up(vmid):
        assert any_cast.status(vmid) == "prelaunch"
        assert lock(any_cast, vmid) == "backup"
        assert any_cast.calls(vmid) == STARTED
        any_cast.refused("stop", vmid, status=255, says="VM is locked (backup)\n")
    assert any_cast.node.pid(vmid) is None
    assert lock(any_cast, vmid) is None
    any_cast.comes(vmid, *STOPPED)


def test_what_it_says(cast: Cast) -> None:
    vmid = cast.guest("--name", "web")
    done = cast.node.run("vzdump", str(vmid), "--mode", "snapshot", "--compress", "zstd")
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if "creating vzdump archive" not in line]
    assert lines == [
        f"INFO: starting new backup job: vzdump {vmid} --mode snapshot",
        f"INFO: Starting Backup of VM {vmid} (qemu)",
        "INFO: status = stopped",
        "INFO: backup mode: stop",
        "INFO: VM Name: web",
        "INFO: starting kvm to execute backup task",
        "INFO: started backup task",
        "INFO: stopping kvm after backup task",
        f"INFO: Finished Backup of VM {vmid} (00:00:00)",
        "INFO: Backup job finished successfully",
    ]
    logs = cast.node.path("/var/log/pve/tasks").glob(f"*:vzdump:{vmid}:*")
    assert [log.read_text() for log in logs] == [done.stdout]


def test_the_archive_holds_the_main_section_alone(cast: Cast) -> None:
    vmid = cast.guest("--affinity", "1", "--description", "text")
    cast.node.do("snapshot", vmid, "one")
    cast.node.run("vzdump", str(vmid))
    (text,) = archives(cast, vmid)
    main = pveconf.parse(cast.file(vmid).read_text()).main
    assert pveconf.parse(text) == pveconf.GuestFile(pveconf.changed(main, {"parent": None}))


def test_mode_stop_shuts_a_running_guest_down_and_starts_it_paused(
    any_cast: Cast, model: PostStop
) -> None:
    any_cast.node.configure(post_stop=model)
    vmid = any_cast.guest(start=True)
    first = any_cast.node.pid(vmid)
    any_cast.calls(vmid)
    with any_cast.node.backing_up(vmid, mode="stop"):
        assert any_cast.status(vmid) == "running"  # resumed as soon as the backup has begun
        assert lock(any_cast, vmid) == "backup"
        assert any_cast.node.pid(vmid) not in {None, first}
    assert any_cast.status(vmid) == "running"
    assert lock(any_cast, vmid) is None
    calls = any_cast.calls(vmid)
    if model is PostStop.PVE9:
        assert calls == [*STOPPED, *STARTED]
    else:  # by `qm cleanup`, which races with the start
        assert [call for call in calls if call != "post-stop"] == ["pre-stop", *STARTED]


def test_the_other_modes_leave_a_running_guest_alone(cast: Cast) -> None:
    vmid = cast.guest(start=True)
    pid = cast.node.pid(vmid)
    cast.calls(vmid)
    for mode in ("snapshot", "suspend"):
        with cast.node.backing_up(vmid, mode=mode):
            assert lock(cast, vmid) == "backup"
    assert cast.node.pid(vmid) == pid
    assert cast.calls(vmid) == []


def test_a_template_runs_with_a_minimal_configuration(any_cast: Cast, model: PostStop) -> None:
    """pre-start runs; then the configuration has no hook until the stop reads it anew."""
    any_cast.node.configure(post_stop=model)
    vmid = any_cast.guest("--cores", 2, "--affinity", "0,0")
    any_cast.node.do("template", vmid)
    with any_cast.node.backing_up(vmid):
        assert any_cast.calls(vmid) == ["pre-start"]
        pid = any_cast.node.pid(vmid)
        words = any_cast.node.path(f"/proc/{pid}/cmdline").read_text().split("\0")
        assert words[words.index("-smp") + 1] == "1,sockets=1,cores=1,maxcpus=1"
    any_cast.comes(vmid, *STOPPED)
    assert any_cast.node.pid(vmid) is None


def test_a_guest_that_is_started_meanwhile_goes_on(any_cast: Cast) -> None:
    any_cast.node.configure(post_stop=PostStop.PVE9)
    vmid = any_cast.guest()
    with any_cast.node.backing_up(vmid):
        pid = any_cast.node.pid(vmid)
        assert any_cast.node.do("start", vmid) == ""
        assert any_cast.status(vmid) == "running"
    assert any_cast.node.pid(vmid) == pid
    assert any_cast.calls(vmid) == STARTED


def test_refusals(cast: Cast) -> None:
    vmid = cast.guest("--lock", "migrate")
    done = cast.node.run("vzdump", str(vmid))
    assert done.returncode == 255
    assert f"ERROR: Backup of VM {vmid} failed - VM is locked (migrate)\n" in done.stdout
    assert lock(cast, vmid) == "migrate"
    missing = cast.node.run("vzdump", "99999")
    assert missing.returncode == 255
    assert "failed - unable to find VM '99999'\n" in missing.stdout
    assert cast.node.run("vzdump", str(vmid), "--mode", "fast").returncode == 2
    assert cast.calls(vmid) == []


def test_a_guest_that_cannot_start_is_unlocked_again(cast: Cast) -> None:
    bad = cast.node.add_snippet("bad", "#!/bin/sh\nexit 1\n")
    vmid = cast.guest("--hookscript", bad, hook=False)
    done = cast.node.run("vzdump", str(vmid))
    assert done.returncode == 255
    assert f"hookscript error for {vmid} on pre-start" in done.stdout
    assert lock(cast, vmid) is None
