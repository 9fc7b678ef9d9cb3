"""The simulated node: starting, stopping, crashing guests, with stand-ins and with real QEMU."""

import contextlib
import fcntl
import os
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxmox_cpu_affinity.model.cpuset import EMPTY
from proxmox_cpu_affinity.model.guest import Thread
from proxmox_cpu_affinity.model.ids import Tid
from proxmox_cpu_affinity.sim import processes, qmp
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import PostStop

from .conftest import Recorder

MODELS = pytest.mark.parametrize("model", PostStop)


def started(node: Node, *words: object, vmid: int = 100) -> int:
    """Create and start a guest with these words for `qm create`; its pid."""
    node.do("create", vmid, *words)
    node.do("start", vmid)
    pid = node.pid(vmid)
    assert pid is not None
    return pid


def tasks(pid: int) -> Iterator[Path]:
    """The /proc folders of a process's threads, as far as they are still there."""
    for path in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # QEMU's pool threads come and go
            (path / "comm").read_text()
            yield path


def names(pid: int) -> set[str]:
    return {(path / "comm").read_text().strip() for path in tasks(pid)}


def vcpus(pid: int) -> dict[int, int]:
    """Thread ids by vCPU, from the threads' names."""
    threads = [
        Thread(Tid(int(path.name)), (path / "comm").read_text().strip(), EMPTY)
        for path in tasks(pid)
    ]
    return {thread.vcpu: thread.tid for thread in threads if thread.vcpu is not None}


def test_a_started_guest_looks_like_pves(any_node: Node) -> None:
    pid = started(any_node, "--cores", 2, "--name", "web")
    argv = processes.arguments(pid)
    assert argv[0] == str(any_node.path("/usr/bin/kvm"))
    pidfile = any_node.path("/var/run/qemu-server/100.pid")
    assert processes.option(argv, "-pidfile") == str(pidfile)
    assert processes.option(argv, "-name") == "web,debug-threads=on"
    assert processes.option(argv, "-smp") == "2,sockets=1,cores=2,maxcpus=2"
    assert Path(f"/proc/{pid}/comm").read_text() == "kvm\n"
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    assert os.getsid(pid) != os.getsid(0)
    assert {"call_rcu", "IO mon_iothread", "kvm"} < names(pid)
    assert set(vcpus(pid)) == {0, 1}


def test_pidfile(any_node: Node) -> None:
    pid = started(any_node)
    pidfile = any_node.path("/run/qemu-server/100.pid")
    assert pidfile.read_text() == f"{pid}\n"
    assert stat.S_IMODE(pidfile.stat().st_mode) == 0o600
    with pidfile.open("r+") as file, pytest.raises(BlockingIOError):
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    any_node.do("stop", 100)
    assert not pidfile.exists()
    assert not any_node.path("/run/qemu-server/100.qmp").exists()


def test_qmp_names_the_vcpu_threads_and_serves_one_client_at_a_time(any_node: Node) -> None:
    pid = started(any_node, "--cores", 1, "--sockets", 2)
    path = any_node.path("/run/qemu-server/100.qmp")
    with qmp.Monitor(path) as first:
        answer = first.ask("query-cpus-fast")
        assert isinstance(answer, list)
        assert {entry["cpu-index"]: entry["thread-id"] for entry in answer} == vcpus(pid)
        assert [entry["props"]["socket-id"] for entry in answer] == [0, 1]
        with socket.socket(socket.AF_UNIX) as second:
            second.connect(str(path))
            second.settimeout(0.2)
            with pytest.raises(TimeoutError):
                second.recv(1)  # connected, not greeted
    assert qmp.run_state(path) == "running"


@MODELS
def test_stop(any_node: Node, model: PostStop) -> None:
    any_node.configure(post_stop=model)
    hook = Recorder(any_node)
    started(any_node, "--hookscript", hook.volume)
    assert hook.calls() == ["100 pre-start", "100 post-start"]
    assert any_node.do("status", 100) == "status: running\n"
    assert any_node.do("stop", 100) == ""
    assert any_node.pid(100) is None
    if model is PostStop.PVE9:
        assert hook.calls()[-1] == "100 post-stop"  # before `qm stop` returned
    hook.wait_for("100 pre-start", "100 post-start", "100 pre-stop", "100 post-stop")
    assert any_node.do("status", 100) == "status: stopped\n"


@MODELS
def test_shutdown(any_node: Node, model: PostStop) -> None:
    any_node.configure(post_stop=model)
    hook = Recorder(any_node)
    started(any_node, "--hookscript", hook.volume)
    any_node.do("shutdown", 100)
    assert any_node.pid(100) is None
    hook.wait_for("100 pre-start", "100 post-start", "100 pre-stop", "100 post-stop")


@MODELS
def test_poweroff_in_the_guest_fires_post_stop_alone(any_node: Node, model: PostStop) -> None:
    any_node.configure(post_stop=model)
    hook = Recorder(any_node)
    started(any_node, "--hookscript", hook.volume)
    qmp.ask(any_node.path("/run/qemu-server/100.qmp"), "system_powerdown")
    hook.wait_for("100 pre-start", "100 post-start", "100 post-stop")
    assert any_node.pid(100) is None


@MODELS
def test_kill_fires_post_stop_alone(any_node: Node, model: PostStop) -> None:
    any_node.configure(post_stop=model)
    hook = Recorder(any_node)
    os.kill(started(any_node, "--hookscript", hook.volume), signal.SIGKILL)
    hook.wait_for("100 pre-start", "100 post-start", "100 post-stop")
    assert not any_node.path("/run/qemu-server/100.pid").exists()


def test_without_qmeventd_a_killed_guest_leaves_its_pidfile(any_node: Node) -> None:
    pid = started(any_node)
    daemon = int(any_node.path("/run/qmeventd.pid").read_text())
    os.kill(daemon, signal.SIGTERM)
    socket_path = any_node.path("/run/qmeventd.sock")
    assert processes.wait_until(lambda: not socket_path.exists(), seconds=5)
    os.kill(pid, signal.SIGKILL)
    assert processes.wait_until(lambda: not processes.arguments(pid), seconds=5)
    assert any_node.path("/run/qemu-server/100.pid").read_text() == f"{pid}\n"
    assert any_node.do("status", 100) == "status: stopped\n"
    any_node.do("start", 100)  # a stale pidfile does not hinder
    assert any_node.pid(100) not in {None, pid}


@MODELS
def test_reboot_is_a_new_process(any_node: Node, model: PostStop) -> None:
    any_node.configure(post_stop=model)
    hook = Recorder(any_node)
    pid = started(any_node, "--hookscript", hook.volume)
    any_node.do("reboot", 100)
    stopped = ("100 pre-start", "100 post-start", "100 pre-stop", "100 post-stop")
    hook.wait_for(*stopped, *stopped[:2])
    assert processes.wait_until(lambda: any_node.pid(100) not in {None, pid}, seconds=5)


def test_reset_suspend_and_resume_fire_no_hook(any_node: Node) -> None:
    hook = Recorder(any_node)
    pid = started(any_node, "--hookscript", hook.volume)
    any_node.do("reset", 100)
    any_node.do("suspend", 100)
    assert any_node.do("status", 100) == "status: paused\n"
    paused = any_node.qm("shutdown", 100)
    assert (paused.returncode, paused.stderr) == (255, "VM is paused - cannot shutdown\n")
    any_node.do("resume", 100)
    assert any_node.do("status", 100) == "status: running\n"
    assert any_node.pid(100) == pid
    assert hook.calls() == ["100 pre-start", "100 post-start"]


def test_a_guest_that_ignores_the_button(any_node: Node) -> None:
    any_node.configure(stop_timeout=0.4)
    pid = started(any_node, "--acpi", 0)
    done = any_node.qm("shutdown", 100)
    assert done.returncode == 255
    assert "VM quit/powerdown failed - got timeout" in done.stdout
    assert any_node.pid(100) == pid
    forced = any_node.qm("shutdown", 100, "--forceStop")
    assert forced.returncode == 0
    assert "terminating now with SIGTERM" in forced.stdout
    assert any_node.pid(100) is None


def test_a_stopped_process_is_killed(sim_node: Node) -> None:
    """SIGSTOP makes a QEMU that answers neither QMP nor SIGTERM."""
    tree = sim_node.tree
    quick = replace(tree.settings, qmp_timeout=0.3, kill_timeout=0.3)
    tree.settings_file.write_text(quick.to_json())
    pid = started(sim_node)
    os.kill(pid, signal.SIGSTOP)
    done = sim_node.qm("stop", 100)
    assert done.returncode == 0
    assert "terminating now with SIGKILL" in done.stdout
    assert sim_node.pid(100) is None


def test_pve8_skips_post_stop_when_the_guest_runs_again(sim_node: Node) -> None:
    sim_node.configure(post_stop=PostStop.PVE8)
    hook = Recorder(sim_node)
    started(sim_node, "--hookscript", hook.volume)
    late = sim_node.qm("cleanup", 100, 1, 0)
    assert (late.returncode, late.stderr) == (255, "vm still running\n")
    assert "100 post-stop" not in hook.calls()


def test_pve9_runs_post_stop_once_whoever_comes_first(sim_node: Node) -> None:
    hook = Recorder(sim_node)
    started(sim_node, "--hookscript", hook.volume)
    sim_node.do("stop", 100)
    sim_node.do("cleanup", 100, 1, 0)
    sim_node.do("cleanup", 100, 0, 0)
    assert hook.calls().count("100 post-stop") == 1


def test_cleanup_of_a_guest_that_moved_away_does_nothing(sim_node: Node) -> None:
    assert sim_node.do("cleanup", 100, 1, 0) == ""


def test_guests_start_side_by_side(sim_node: Node) -> None:
    vmids = range(100, 106)
    for vmid in vmids:
        sim_node.do("create", vmid)
    workers = [threading.Thread(target=sim_node.do, args=("start", vmid)) for vmid in vmids]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert None not in {sim_node.pid(vmid) for vmid in vmids}


def test_switching_the_node_off_and_on(any_node: Node) -> None:
    hook = Recorder(any_node)
    pid = started(any_node, "--hookscript", hook.volume)
    any_node.close()
    assert processes.wait_until(lambda: not processes.arguments(pid), seconds=5)
    assert hook.calls() == ["100 pre-start", "100 post-start"]
    assert list(any_node.path("/run/qemu-server").iterdir()) == []
    any_node.boot()
    assert any_node.do("status", 100) == "status: stopped\n"
    any_node.do("start", 100)


def test_affinity_is_inherited_by_every_thread(any_node: Node) -> None:
    cpu = max(os.sched_getaffinity(0))
    pid = started(any_node, "--affinity", f"{cpu},900", "--cores", 2)
    masks = {frozenset(os.sched_getaffinity(int(path.name))) for path in tasks(pid)}
    assert masks == {frozenset((cpu,))}


def test_affinity_0_is_no_affinity(any_node: Node) -> None:
    pid = started(any_node, "--affinity", "0")
    assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)


def test_affinity_without_a_usable_cpu_fails_the_start_without_post_stop(any_node: Node) -> None:
    hook = Recorder(any_node)
    any_node.do("create", 100, "--affinity", "900", "--hookscript", hook.volume)
    done = any_node.qm("start", 100)
    assert done.returncode == 255
    assert done.stdout.endswith("start failed: QEMU exited with code 1\n")
    assert hook.calls() == ["100 pre-start"]
    assert any_node.pid(100) is None


def test_a_qemu_that_fails(any_node: Node) -> None:
    any_node.do("create", 100)
    any_node.path("/usr/bin/kvm").unlink()
    any_node.path("/usr/bin/kvm").symlink_to("/bin/false")
    done = any_node.qm("start", 100)
    assert (done.returncode, done.stdout) == (255, "start failed: QEMU exited with code 1\n")


def test_too_many_vcpus_are_refused_after_pre_start(sim_node: Node) -> None:
    hook = Recorder(sim_node)
    limit = sim_node.tree.cpus()
    sim_node.do("create", 100, "--cores", limit, "--sockets", 2, "--hookscript", hook.volume)
    done = sim_node.qm("start", 100)
    assert (done.returncode, done.stdout) == (
        255,
        f"MAX {limit} vcpus allowed per VM on this node\n",
    )
    assert hook.calls() == ["100 pre-start"]
