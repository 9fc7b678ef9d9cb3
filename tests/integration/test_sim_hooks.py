"""The simulated node's hooks: found, called, waited for; and what their failure does."""

import os
import subprocess
from pathlib import Path

import pytest

from proxmox_cpu_affinity.sim import processes
from proxmox_cpu_affinity.sim.node import Node

SET_BY_PVE = {"LC_ALL", "LVM_SUPPRESS_FD_WARNINGS", "PATH", "PVE_MIGRATED_FROM"}
SET_BY_SH = {"PWD", "OLDPWD", "SHLVL", "_"}
PHASES = ("pre-start", "post-start", "pre-stop", "post-stop")


def guest(node: Node, script: str, *, vmid: int = 100) -> Path:
    """A guest whose hook is this script; $OUT in it is a folder for what it has to say."""
    out = node.path("/tmp/out")
    out.mkdir(exist_ok=True)
    hook = node.add_snippet("hook", f"#!/bin/sh\nOUT={out}\n{script}\n")
    node.do("create", vmid, "--hookscript", hook)
    return out


def test_arguments_environment_and_streams(sim_node: Node) -> None:
    out = guest(sim_node, 'echo "$0 $*" > $OUT/$2; env > $OUT/$2.env; cat > $OUT/$2.stdin')
    env = {"PVE_SIM_TEST": "from the caller", "PATH": "/usr/bin:/bin", "LC_ALL": "de_DE.UTF-8"}
    assert sim_node.qm("start", 100, env=env).returncode == 0
    assert sim_node.qm("stop", 100, env=env).returncode == 0
    script = sim_node.path("/var/lib/vz/snippets/hook")
    for phase in PHASES:
        assert (out / phase).read_text().splitlines()[0] == f"{script} 100 {phase}"
        assert (out / f"{phase}.stdin").read_text() == ""
        words = dict(line.split("=", 1) for line in (out / f"{phase}.env").read_text().splitlines())
        assert words["LC_ALL"] == "C"
        assert words["LVM_SUPPRESS_FD_WARNINGS"] == "1"
        assert words["PATH"].endswith("/sbin:/bin:/usr/sbin:/usr/bin")
        assert words["PVE_SIM_TEST"] == "from the caller"
        migrated = words.get("PVE_MIGRATED_FROM")
        assert migrated == ("" if phase.endswith("-start") else None)
        assert set(words) - set(os.environ) - set(env) <= SET_BY_PVE | SET_BY_SH


def test_output_is_passed_on_and_kept_in_the_task_log(sim_node: Node) -> None:
    guest(sim_node, 'echo "out $2"; echo "err $2" >&2')
    said = sim_node.do("start", 100)
    assert {"out pre-start", "err pre-start", "out post-start"} < set(said.splitlines())
    (log,) = sim_node.path("/var/log/pve/tasks").glob("*:qmstart:100:*")
    assert log.read_text() == said


def test_output_comes_while_the_hook_runs(sim_node: Node) -> None:
    out = guest(sim_node, "echo waiting; until [ -e $OUT/go ]; do sleep 0.02; done")
    qm = str(sim_node.path("/usr/sbin/qm"))
    with subprocess.Popen([qm, "start", "100"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "waiting\n"
        assert sim_node.pid(100) is None
        (out / "go").touch()
        assert process.stdout.read() == "waiting\n"
    assert process.returncode == 0


def test_the_hook_runs_while_the_lock_is_held(sim_node: Node) -> None:
    """A hook that changes its own guest waits for the lock and fails; the start goes on."""
    sim_node.configure(lock_timeout=0.3)
    out = guest(sim_node, "qm set $1 --tags x > $OUT/$2 2>&1; echo $? >> $OUT/$2; qm config $1")
    said = sim_node.do("start", 100)
    shown = "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout\n4\n"
    assert (out / "pre-start").read_text() == shown
    assert (out / "post-start").read_text() == shown
    assert "hookscript: local:snippets/hook" in said  # reading takes no lock


@pytest.mark.parametrize("stream", [1, 2])
def test_a_child_that_holds_a_stream_makes_the_start_wait(sim_node: Node, stream: int) -> None:
    other = 3 - stream
    out = guest(sim_node, f"(sleep 0.3; touch $OUT/$2) {other}>/dev/null &")
    sim_node.do("start", 100)
    assert {path.name for path in out.iterdir()} == {"pre-start", "post-start"}


def test_a_child_in_the_hooks_group_is_ended_with_the_task(sim_node: Node) -> None:
    out = guest(sim_node, "sleep 60 >/dev/null 2>&1 & echo $! > $OUT/$2")
    sim_node.do("start", 100)
    for phase in ("pre-start", "post-start"):
        pid = int((out / phase).read_text())
        # Its parent is gone: it may stay a zombie, without arguments, until init has seen it.
        assert processes.arguments(pid) == []


def test_a_child_in_a_session_of_its_own_lives_on(sim_node: Node) -> None:
    # The hook waits until the child has its session: before, it would end with the hook's group.
    child = "setsid sh -c 'touch '$OUT/began-$2'; sleep 0.3; touch '$OUT/$2 >/dev/null 2>&1 &"
    out = guest(sim_node, f"{child} while [ ! -e $OUT/began-$2 ]; do sleep 0.02; done")
    sim_node.do("start", 100)
    assert processes.wait_until((out / "post-start").exists, seconds=10)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "exit code 3"),
        ("kill -9 $$", "got signal 9"),
    ],
)
def test_a_failing_pre_start_aborts_the_start(sim_node: Node, script: str, reason: str) -> None:
    out = guest(sim_node, f"touch $OUT/$2; {script}")
    done = sim_node.qm("start", 100)
    command = "command '/var/lib/vz/snippets/hook 100 pre-start'"
    assert done.returncode == 255
    assert f"hookscript error for 100 on pre-start: {command} failed: {reason}" in done.stdout
    assert sim_node.pid(100) is None
    assert [path.name for path in out.iterdir()] == ["pre-start"]  # no post-stop either


def test_a_failure_in_the_other_phases_is_a_warning(sim_node: Node) -> None:
    guest(sim_node, "[ $2 = pre-start ]")
    for command, phases in (("start", ("post-start",)), ("stop", ("pre-stop", "post-stop"))):
        done = sim_node.qm(command, 100)
        assert done.returncode == 0
        for phase in phases:
            assert f"hookscript error for 100 on {phase}: " in done.stdout
    assert sim_node.pid(100) is None


def _remove(path: Path) -> None:
    path.unlink()


def _dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _disarm(path: Path) -> None:
    path.chmod(0o644)


BROKEN = pytest.mark.parametrize("damage", [_remove, _dangle, _folder, _disarm])


@BROKEN
def test_a_broken_hook_stops_the_start(sim_node: Node, damage: object) -> None:
    guest(sim_node, "true")
    assert callable(damage)
    damage(sim_node.path("/var/lib/vz/snippets/hook"))
    done = sim_node.qm("start", 100)
    assert done.returncode == 255
    assert "hookscript error for 100 on pre-start: script 'local:snippets/hook' " in done.stdout
    assert sim_node.pid(100) is None


@BROKEN
def test_a_hook_broken_later_only_warns(sim_node: Node, damage: object) -> None:
    guest(sim_node, "true")
    sim_node.do("start", 100)
    assert callable(damage)
    damage(sim_node.path("/var/lib/vz/snippets/hook"))
    done = sim_node.qm("stop", 100)
    assert done.returncode == 0
    assert done.stdout.count("hookscript error for 100 on p") == 2
    assert sim_node.pid(100) is None


@pytest.mark.parametrize(
    "volume", ["gone:snippets/hook", "local:iso/hook", "local:snippets/../hook", "local:hook"]
)
def test_a_volume_id_that_names_no_snippet_stops_the_start(sim_node: Node, volume: str) -> None:
    sim_node.do("create", 100)
    config = sim_node.path("/etc/pve/qemu-server/100.conf")
    config.write_text(f"hookscript: {volume}\n")
    assert sim_node.qm("start", 100).returncode == 255


@pytest.mark.parametrize(
    "storage",
    [
        "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n",  # snippets are not among its content
        "dir: local\n\tpath /var/lib/vz\n\tcontent snippets\n\tdisable\n",
        "",
    ],
)
def test_not_checked_at_run_time(sim_node: Node, storage: str) -> None:
    out = guest(sim_node, "touch $OUT/$2")
    sim_node.path("/etc/pve/storage.cfg").write_text(storage)
    sim_node.do("start", 100)
    assert (out / "pre-start").exists()


def test_a_link_to_a_script_and_one_without_an_interpreter_line_run(sim_node: Node) -> None:
    sim_node.add_snippet("real", f"echo $1 $2 >> {sim_node.path('/tmp/calls')}\n")
    sim_node.path("/var/lib/vz/snippets/link").symlink_to("real")
    sim_node.do("create", 100, "--hookscript", "local:snippets/link")
    sim_node.do("start", 100)
    assert sim_node.path("/tmp/calls").read_text() == "100 pre-start\n100 post-start\n"


def test_a_config_changed_in_pre_start_counts_from_the_next_start(sim_node: Node) -> None:
    guest(sim_node, "[ $2 != pre-start ] || echo 'name: later' >> $CONF")
    config = sim_node.path("/etc/pve/qemu-server/100.conf")
    assert sim_node.qm("start", 100, env={"CONF": str(config)}).returncode == 0
    pid = sim_node.pid(100)
    assert pid is not None
    assert "vm100,debug-threads=on" in processes.arguments(pid)
    sim_node.do("stop", 100)
    assert sim_node.qm("start", 100, env={"CONF": "/dev/null"}).returncode == 0
    pid = sim_node.pid(100)
    assert pid is not None
    assert "later,debug-threads=on" in processes.arguments(pid)
