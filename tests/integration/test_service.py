"""The service as a process, on a simulated node with real guests: what the kernel says counts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running, add_guest, masks

CPUS = sorted(os.sched_getaffinity(0))
needs_two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")


def single_cpu(node: Node, vmid: int) -> int:
    """The one CPU that every thread of a guest of one vCPU may use."""
    sets = {frozenset(mask) for mask in masks(node, vmid).values()}
    assert len(sets) == 1, masks(node, vmid)
    (only,) = sets
    assert len(only) == 1, only
    return next(iter(only))


@needs_two_cpus
def test_start_confines_every_thread_and_says_so(sim_node: Node) -> None:
    with Running(sim_node) as service:
        add_guest(sim_node, 100)
        said = sim_node.do("start", 100)
        cpu = single_cpu(sim_node, 100)
        assert f"runs on CPU {cpu} " in said
        assert "threads read back" in said
        guest = service.guest(100)
        assert guest["outcome"] == "full"
        assert guest["cpus"] == str(cpu)
        assert guest["threads"] == len(masks(sim_node, 100))


def test_all_threads_that_work_for_it_are_there_from_the_start(sim_node: Node) -> None:
    """One that is refused later would leave work in the queue that is done too late."""
    with Running(sim_node) as service:
        at_least = 1 + min(32, (os.cpu_count() or 1) + 4)
        assert len(os.listdir(f"/proc/{service.process.pid}/task")) >= at_least


@needs_two_cpus
def test_guests_do_not_share_while_a_cpu_is_free(sim_node: Node) -> None:
    with Running(sim_node):
        for vmid in (100, 101):
            add_guest(sim_node, vmid)
            sim_node.do("start", vmid)
        assert single_cpu(sim_node, 100) != single_cpu(sim_node, 101)


@needs_two_cpus
def test_guests_float_in_their_cache_group_while_vcpus_share_cpus(sim_node: Node) -> None:
    with Running(sim_node, settings="PCA_WIDTH=auto\n") as service:
        vmids = range(100, 101 + len(CPUS))
        for vmid in vmids:
            add_guest(sim_node, vmid)
            sim_node.do("start", vmid)
        for vmid in vmids:
            guest = service.guest(vmid)
            held = set().union(*masks(sim_node, vmid).values())
            assert CpuSet.parse(str(guest["applied"])) == CpuSet.of(held)
            assert len(CpuSet.parse(str(guest["cpus"]))) == 1
        floating = [v for v in vmids if len(set().union(*masks(sim_node, v).values())) > 1]
        assert len(floating) >= 2
        service.says("floats in L3")


@needs_two_cpus
def test_stop_frees_the_cpu_for_the_next_guest(sim_node: Node) -> None:
    with Running(sim_node) as service:
        for vmid in (100, 101, 102):
            add_guest(sim_node, vmid)
        sim_node.do("start", 100)
        sim_node.do("start", 101)
        freed = single_cpu(sim_node, 100)
        said = sim_node.do("stop", 100)
        assert f"CPU {freed} is free again" in said
        sim_node.do("start", 102)
        assert single_cpu(sim_node, 102) == freed
        assert service.get("/api/v1/status").json["overlap"] == ""


@needs_two_cpus
def test_kill_9_of_a_guest_is_noticed_without_any_hook(sim_node: Node) -> None:
    with Running(sim_node) as service:
        add_guest(sim_node, 100)
        sim_node.do("start", 100)
        pid = sim_node.pid(100)
        assert pid is not None
        os.kill(pid, 9)
        service.wait_for(lambda: service.guest(100)["outcome"] == "")


@needs_two_cpus
def test_restarted_guest_finds_its_old_place(sim_node: Node) -> None:
    with Running(sim_node):
        for vmid in (100, 101):
            add_guest(sim_node, vmid)
            sim_node.do("start", vmid)
        before = single_cpu(sim_node, 100)
        for _ in range(3):
            sim_node.do("stop", 100)
            sim_node.do("start", 100)
            assert single_cpu(sim_node, 100) == before


@needs_two_cpus
def test_sigkill_of_the_service_costs_no_placement(sim_node: Node) -> None:
    with Running(sim_node) as service:
        for vmid in (100, 101):
            add_guest(sim_node, vmid)
            sim_node.do("start", vmid)
        before = {vmid: masks(sim_node, vmid) for vmid in (100, 101)}
        service.kill()
        assert {vmid: masks(sim_node, vmid) for vmid in (100, 101)} == before
        service.start()
        service.confirms(100, 101)
        assert {vmid: masks(sim_node, vmid) for vmid in (100, 101)} == before
        for vmid in (100, 101):
            assert service.guest(vmid)["cpus"] == str(single_cpu(sim_node, vmid))


@needs_two_cpus
@pytest.mark.parametrize("state", ["missing", "damaged"])
def test_lost_state_file_costs_no_placement(sim_node: Node, state: str) -> None:
    """Running guests are adopted from what the kernel says."""
    with Running(sim_node) as service:
        for vmid in (101, 100):  # placed in this order: adoption must not depend on it
            add_guest(sim_node, vmid)
            sim_node.do("start", vmid)
        before = {vmid: masks(sim_node, vmid) for vmid in (100, 101)}
        service.kill()
        file = sim_node.path("/var/lib/proxmox-cpu-affinity/state.json")
        if state == "missing":
            file.unlink()
        else:
            file.write_text(file.read_text().replace('"home":"', '"home":"7'))
        service.start()
        service.confirms(100, 101)
        assert {vmid: masks(sim_node, vmid) for vmid in (100, 101)} == before
        service.says("adopted")
        if state == "damaged":
            assert file.with_name("state.json.bad").exists()


@needs_two_cpus
def test_guest_started_while_the_service_was_down_is_placed_at_its_start(sim_node: Node) -> None:
    with Running(sim_node) as service:
        service.end()
        add_guest(sim_node, 100)
        said = sim_node.do("start", 100)
        assert "starts without it" in said
        assert set(CPUS) == set.union(*masks(sim_node, 100).values())
        service.start()
        service.confirms(100)
        single_cpu(sim_node, 100)


def test_sigterm_ends_it_and_leaves_guests_confined(sim_node: Node) -> None:
    with Running(sim_node) as service:
        add_guest(sim_node, 100)
        sim_node.do("start", 100)
        before = masks(sim_node, 100)
        assert service.end() == 0
        assert masks(sim_node, 100) == before
        assert not service.socket.exists()


@needs_two_cpus
def test_undo_gives_back_the_masks_that_were_there(sim_node: Node) -> None:
    with Running(sim_node) as service:
        add_guest(sim_node, 100, hook=False)
        sim_node.do("start", 100)
        found = masks(sim_node, 100)
        sim_node.do("set", 100, "--tags", "cpu-affinity")
        assert service.post("/api/v1/guests/100/reassign")["status"] == "success"
        single_cpu(sim_node, 100)
        row = service.post("/api/v1/guests/100/reassign", {"undo": True})
        assert row["status"] == "success"
        assert masks(sim_node, 100) == found
        assert service.guest(100)["outcome"] == ""
        # Left alone by scans, until it is asked for again.
        service.process.send_signal(signal.SIGHUP)  # scans
        service.wait_for(lambda: "settings read again" in service.log)
        assert masks(sim_node, 100) == found
        assert service.post("/api/v1/guests/100/reassign")["status"] == "success"
        single_cpu(sim_node, 100)


def test_a_guest_that_was_let_go_gives_no_cpu_back_when_it_stops(sim_node: Node) -> None:
    with Running(sim_node) as service:
        add_guest(sim_node, 100)
        sim_node.do("start", 100)
        assert service.post("/api/v1/guests/100/reassign", {"undo": True})["status"] == "success"
        assert "free again" not in sim_node.do("stop", 100)
        sim_node.do("start", 100)
        assert "is free again" in sim_node.do("stop", 100)


def told(node: Node, flag: str) -> "subprocess.CompletedProcess[str]":
    """What a run of the service that ends by itself comes to."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "proxmox_cpu_affinity.service.main"),
            *("--root", str(node.root), "--stdout", flag),
        ],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def release(node: Node) -> str:
    """What a removal of the package runs; what it said."""
    done = told(node, "--release")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def with_nobody_to_let_it_go(node: Node) -> None:
    """Guest 100 runs and is held; the service has ended."""
    with Running(node) as service:
        add_guest(node, 100)
        node.do("start", 100)
        single_cpu(node, 100)
        service.end()


@needs_two_cpus
def test_release_lets_every_guest_go(sim_node: Node) -> None:
    with_nobody_to_let_it_go(sim_node)
    release(sim_node)
    assert set(CPUS) == set.union(*masks(sim_node, 100).values())


@needs_two_cpus
def test_service_after_a_release_holds_the_guests_but_those_undone_by_hand(sim_node: Node) -> None:
    """A package that was removed and is installed again finds them running."""
    with Running(sim_node) as service:
        for vmid in (100, 101):
            add_guest(sim_node, vmid)
            sim_node.do("start", vmid)
            single_cpu(sim_node, vmid)
        assert service.post("/api/v1/guests/101/reassign", {"undo": True})["status"] == "success"
        service.end()
        release(sim_node)
    with Running(sim_node) as service:
        service.confirms(100)
        single_cpu(sim_node, 100)
        assert set(CPUS) == set.union(*masks(sim_node, 101).values())


@needs_two_cpus
def test_a_release_after_a_release_holds_nobody_for_a_moment(sim_node: Node) -> None:
    """It placed those that were let go before, and let them go again."""
    with_nobody_to_let_it_go(sim_node)
    assert "read back" in release(sim_node)
    assert "read back" not in release(sim_node)
    assert set(CPUS) == set.union(*masks(sim_node, 100).values())


@needs_two_cpus
def test_settings_that_cannot_be_used_keep_no_guest_from_being_let_go(sim_node: Node) -> None:
    """A removal left guests on their CPUs, and nobody to let them go."""
    with_nobody_to_let_it_go(sim_node)
    assert told(sim_node, "--check-settings").returncode == 0
    with sim_node.path("/etc/default/proxmox-cpu-affinity").open("a") as settings:
        settings.write("PCA_ROUNDS=-5\n")
    checked = told(sim_node, "--check-settings")
    assert (checked.returncode, checked.stdout) == (78, "")
    assert "PCA_ROUNDS" in checked.stderr
    assert "guests are let go all the same" in release(sim_node)
    assert set(CPUS) == set.union(*masks(sim_node, 100).values())


@needs_two_cpus
def test_guest_with_affinity_of_its_own_is_never_touched(sim_node: Node) -> None:
    with Running(sim_node, settings="PCA_MANAGE=all\n") as service:
        add_guest(sim_node, 100, cores=2, options={"affinity": f"{CPUS[1]}"})
        said = sim_node.do("start", 100)
        assert "left alone: `affinity:` is set" in said
        assert service.ask("POST", "/api/v1/reassign", {}).status == 200  # scans
        assert set(map(frozenset, masks(sim_node, 100).values())) == {frozenset({CPUS[1]})}


@needs_two_cpus
def test_hook_removed_from_a_running_guest_is_the_undo(sim_node: Node) -> None:
    with Running(sim_node) as service:
        add_guest(sim_node, 100)
        sim_node.do("start", 100)
        single_cpu(sim_node, 100)
        sim_node.do("set", 100, "--delete", "hookscript")
        assert service.post("/api/v1/guests/100/reassign")["status"] == "skipped"
        assert set(CPUS) == set.union(*masks(sim_node, 100).values())


@needs_two_cpus
def test_guest_larger_than_the_host_gets_all_with_a_warning(sim_node: Node) -> None:
    """PVE refuses to start such guests; CPUs reserved for the host make one all the same."""
    settings = f"PCA_RESERVED_CPUS={CPUS[0]}\n"
    with Running(sim_node, settings=settings) as service:
        add_guest(sim_node, 100, cores=2)
        said = sim_node.do("start", 100)
        assert f"2 vCPUs on {len(CPUS) - 1} usable CPU" in said or len(CPUS) > 2
        assert all(CPUS[0] not in mask for mask in masks(sim_node, 100).values())
        assert service.guest(100)["outcome"] == "full"


def test_everything_reserved_is_refused_with_the_reason(sim_node: Node) -> None:
    listed = ",".join(map(str, CPUS))
    with Running(sim_node, settings=f"PCA_RESERVED_CPUS={listed}\n") as service:
        add_guest(sim_node, 100)
        before = sim_node.do("start", 100)
        assert "not placed: no CPU may be used: all are reserved" in before
        service.says("all are reserved")
        assert set(CPUS) == set.union(*masks(sim_node, 100).values())


@needs_two_cpus
def test_sighup_takes_new_settings_and_keeps_the_old_ones_when_they_are_bad(
    sim_node: Node,
) -> None:
    with Running(sim_node) as service:
        add_guest(sim_node, 100, hook=False)
        sim_node.do("start", 100)
        file = sim_node.path("/etc/default/proxmox-cpu-affinity")
        file.write_text("PCA_MANAGE=everything\n")
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(lambda: "the settings in force stay" in service.log)
        service.says("line 1: PCA_MANAGE='everything' must be hook, tag or all")
        assert service.get("/api/v1/status").json["manage"] == "tag"
        file.write_text("PCA_MANAGE=all\n")
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(lambda: service.guest(100)["outcome"] == "full")
        single_cpu(sim_node, 100)


def test_sighup_switches_hotplug_off_and_on(sim_node: Node) -> None:
    """It was followed, or not, as the settings were at the start of the service."""

    def listens() -> bool:
        fds = Path(f"/proc/{service.process.pid}/fd")
        inodes = {os.readlink(fd) for fd in fds.iterdir()}
        rows = [line.split() for line in Path("/proc/net/netlink").read_text().splitlines()[1:]]
        return any(row[1] == "15" and f"socket:[{row[9]}]" in inodes for row in rows)

    file = sim_node.path("/etc/default/proxmox-cpu-affinity")
    with Running(sim_node, settings="PCA_CPU_HOTPLUG_WATCHDOG=false\n") as service:
        service.says("service 0.1.0 answers")
        assert not listens()
        for wanted in (True, False, True):
            file.write_text(f"PCA_CPU_HOTPLUG_WATCHDOG={str(wanted).lower()}\n")
            service.process.send_signal(signal.SIGHUP)
            service.wait_for(lambda wanted=wanted: listens() == wanted)


def test_sighup_reopens_the_log_file(sim_node: Node) -> None:
    with Running(sim_node) as service:
        log = sim_node.path("/var/log/proxmox-cpu-affinity.log")
        service.wait_for(lambda: "answers" in log.read_text())
        assert log.stat().st_mode & 0o777 == 0o600
        log.rename(log.with_name("rotated"))
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(log.exists)
        service.wait_for(lambda: "settings read again" in log.read_text())


def test_bad_setting_is_refused_at_start_with_78(sim_node: Node) -> None:
    with Running(sim_node, settings="\n# port\nPCA_PORT=99999\n") as service:
        # --port 0 wins over the file, so nothing is wrong yet.
        assert service.answers()
        service.end()
        service.flags = ("--log-level", "loud")
        service.start()
        assert service.process.returncode == 78
        service.says("PCA_LOG_LEVEL='loud' must be debug, info")


def test_second_service_leaves_the_first_alone(sim_node: Node) -> None:
    with Running(sim_node) as first, Running(sim_node) as second:
        second.wait_for(lambda: second.process.poll() is not None)
        assert second.process.returncode == 1
        assert f"another service runs on this node (end it with: kill {first.process.pid})" in (
            first.log
        )
        assert "systemctl" not in first.log
        assert first.answers()


def test_round_robin_selects_as_the_go_project_does(sim_node: Node) -> None:
    with Running(sim_node, settings="PCA_STRATEGY=round-robin\n"):
        for vmid in (100, 101, 102):
            add_guest(sim_node, vmid)
            sim_node.do("start", vmid)
        # The counter starts at 0 and moves on before each selection.
        turn = [CPUS[(1 + i) % len(CPUS)] for i in range(3)]
        assert [single_cpu(sim_node, vmid) for vmid in (100, 101, 102)] == turn


@pytest.mark.qemu
@needs_two_cpus
def test_real_qemu_is_confined_with_all_its_threads(qemu_node: Node) -> None:
    with Running(qemu_node) as service:
        for vmid in (100, 101):
            add_guest(qemu_node, vmid)
            assert "threads read back" in qemu_node.do("start", vmid)
        assert single_cpu(qemu_node, 100) != single_cpu(qemu_node, 101)
        names = {name.split(maxsplit=1)[1] for name in masks(qemu_node, 100)}
        assert any(name.startswith("CPU 0/") for name in names), names
        service.kill()
        service.start()
        service.confirms(100)
        assert single_cpu(qemu_node, 100) != single_cpu(qemu_node, 101)


def test_what_a_killed_service_left_half_done_is_gone_after_its_restart(sim_node: Node) -> None:
    """A temporary file and a reservation stayed on disk until something changed."""
    add_guest(sim_node, 100)
    with Running(sim_node) as service:
        service.post("/api/v1/guests/100/pre-start")
        service.kill()
        folder = sim_node.path("/var/lib/proxmox-cpu-affinity")
        assert "100" in json.loads((folder / "state.json").read_text())["content"]["tracked"]
        (folder / "state.json.new").write_text("{")
        (folder / "matrix.json.new").write_text("{")
        service.start()
        service.wait_for(lambda: '"tracked":{}' in (folder / "state.json").read_text())
        assert not list(folder.glob("*.new"))
