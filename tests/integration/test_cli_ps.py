"""`ps` against real processes: what it prints is what the kernel and PVE's files say."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running

COLUMNS = ["VMID", "PID", "Cores", "Sockets", "NUMA", "Hook-Status", "Affinity", "Managed"]
NOT_RUNNING = "VM is not running (PID file not found)"


class Ps:
    """Runs `ps` on a node."""

    def __init__(self, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
        self.node = node
        self._capsys = capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        status = main(["--root", str(self.node.root), "ps", *words])
        return status, *self._capsys.readouterr()

    def rows(self, *words: str) -> list[list[str]]:
        status, out, err = self.run(*words)
        assert (status, err) == (0, "")
        return [re.split("  +", line) for line in out.splitlines()]

    def documents(self, *words: str) -> list[dict[str, object]]:
        status, out, _ = self.run("--json", *words)
        assert status == 0
        found = json.loads(out)
        assert isinstance(found, list)
        return found


@pytest.fixture
def ps(sim_node: Node, capsys: pytest.CaptureFixture[str]) -> Ps:
    return Ps(sim_node, capsys)


def start(node: Node, vmid: int, *words: object) -> int:
    node.do("create", vmid, *words)
    node.do("start", vmid)
    pid = node.pid(vmid)
    assert pid is not None
    return pid


def cpulist(pid: int) -> str:
    """The kernel's own list of a thread."""
    text = Path(f"/proc/{pid}/status").read_text()
    return text.partition("Cpus_allowed_list:\t")[2].partition("\n")[0]


def test_running_guests_by_vmid_in_the_inherited_columns(ps: Ps) -> None:
    hook = ps.node.add_snippet("proxmox-cpu-affinity-hook", "#!/bin/sh\n")
    late = start(ps.node, 1000, "--cores", 2, "--numa", 1, "--hookscript", hook)
    early = start(ps.node, 200, "--sockets", 2)
    ps.node.do("create", 300)
    os.sched_setaffinity(early, {min(os.sched_getaffinity(0))})
    assert ps.rows() == [
        COLUMNS,
        ["200", str(early), "1", "2", "0", "Disabled", cpulist(early), "no: not chosen"],
        ["1000", str(late), "2", "1", "1", "Enabled", cpulist(late), "hook"],
    ]
    assert ps.rows("1000") == [COLUMNS, ["1000", *ps.rows()[2][1:]]]
    first, second = ps.documents()
    assert first == {
        "vmid": 200,
        "pid": early,
        "hook_status": "Disabled",
        "cores": 1,
        "sockets": 2,
        "numa": False,
        "affinity": cpulist(early),
        "managed_by": "",
        "reason_code": "not chosen",
    }
    assert (second["vmid"], second["hook_status"], second["numa"]) == (1000, "Enabled", True)


def test_fields_stand_in_the_inherited_order(ps: Ps) -> None:
    pid = start(ps.node, 100, "--cores", 2)
    (found,) = ps.documents("-v", "100")
    fields = ["vmid", "pid", "hook_status", "cores", "sockets", "numa", "affinity"]
    behind = ["managed_by", "reason_code"]
    assert list(found) == [*fields, "threads", "children", *behind]
    assert list(ps.documents("100")[0]) == [*fields, *behind]
    threads = found["threads"]
    assert isinstance(threads, list)
    assert {thread["tid"] for thread in threads} == set(os.listdir(f"/proc/{pid}/task"))
    for thread in threads:
        assert list(thread)[:3] == ["tid", "psr", "command"]
        assert thread["psr"].isdigit()
        tid = int(thread["tid"])
        assert thread["affinity"] == cpulist(tid)
        assert thread["command"] == Path(f"/proc/{pid}/task/{tid}/comm").read_text().rstrip("\n")
    assert [t["command"] for t in threads].count("CPU 1/KVM") == 1
    assert found["children"] == []


def test_verbose_shows_each_thread_below_the_guests(ps: Ps) -> None:
    pid = start(ps.node, 100)
    status, out, err = ps.run("-v")
    assert (status, err) == (0, "")
    guests, _, threads = out.partition("\n\nThreads of VM 100:\n")
    assert len(guests.splitlines()) == 2
    rows = [re.split("  +", line) for line in threads.splitlines()]
    assert rows[0] == ["TID", "CPU", "Affinity", "Name"]
    assert {row[0] for row in rows[1:]} == set(os.listdir(f"/proc/{pid}/task"))
    assert all(row[2] == cpulist(int(row[0])) for row in rows[1:])


def test_a_guest_managed_by_its_tag_or_like_all_says_so(ps: Ps) -> None:
    for vmid, tags in ((100, "cpu-affinity"), (101, "other"), (102, "cpu-affinity-off")):
        start(ps.node, vmid, "--tags", tags)
    for manage, managed in {
        "tag": ["tag", "no: not chosen", "no: tag cpu-affinity-off"],
        "all": ["tag", "all", "no: tag cpu-affinity-off"],
    }.items():
        ps.node.path("/etc/default/proxmox-cpu-affinity").write_text(f"PCA_MANAGE={manage}\n")
        assert [row[5:8:2] for row in ps.rows()[1:]] == [["Disabled", by] for by in managed]
    ps.node.path("/etc/default/proxmox-cpu-affinity").write_text("PCA_MANAGE=some\n")
    status, out, err = ps.run()
    assert (status, [line.split()[-1] for line in out.splitlines()[1:]]) == (0, ["-"] * 3)
    assert err.startswith("Warning: not known which guests are managed: ")


def test_settings_that_cannot_be_read_are_not_taken_for_the_defaults(ps: Ps) -> None:
    ps.node.do("create", 100, "--tags", "cpu-affinity")
    ps.node.path("/etc/default/proxmox-cpu-affinity").mkdir(parents=True)
    _, out, err = ps.run("100")
    assert out.splitlines()[1].split()[-1] == "-"
    cannot = "/etc/default/proxmox-cpu-affinity cannot be read"
    assert err.startswith(f"Warning: not known which guests are managed: {cannot}\n")
    for words in (["topology"], ["plan"]):
        assert main(["--root", str(ps.node.root), *words]) == 1


def test_nothing_running_is_an_empty_list(ps: Ps) -> None:
    assert ps.run() == (0, "  ".join(COLUMNS) + "\n", "no guest is running\n")
    assert ps.run("-q") == (0, "  ".join(COLUMNS) + "\n", "")
    assert ps.documents() == []


def test_a_guest_that_is_not_running_is_an_entry_with_an_error(ps: Ps) -> None:
    ps.node.do("create", 100, "--cores", 3)
    (found,) = ps.documents("100", "-v")
    assert list(found.items()) == [
        *{"vmid": 100, "hook_status": "Disabled", "cores": 3, "sockets": 1}.items(),
        *{"numa": False, "error": NOT_RUNNING}.items(),
        *{"managed_by": "", "reason_code": "not chosen"}.items(),
    ]
    status, out, err = ps.run("100")
    assert status == 0
    assert re.split("  +", out.splitlines()[1]) == [
        *("100", "-", "3", "1", "0", "Disabled", "-", "no: not chosen"),
    ]
    assert err == f"VM 100: {NOT_RUNNING}\n"


def test_a_guest_that_is_not_there_is_an_error(ps: Ps) -> None:
    status, out, err = ps.run("999", "--json")
    assert (status, out) == (1, "")
    assert err.startswith("Error: there is no guest 999 on this node\nHint: ")


def test_a_stale_or_foreign_pidfile_is_no_running_guest(ps: Ps) -> None:
    pid = start(ps.node, 100)
    os.kill(pid, signal.SIGKILL)
    pidfile = ps.node.path("/run/qemu-server/100.pid")
    Running.wait_for(lambda: not pidfile.exists())  # qmeventd cleans up behind it
    for text in (f"{pid}\n", f"{os.getpid()}\n", "rubbish", "", "1\n"):
        pidfile.write_text(text)
        assert ps.documents() == []
        (found,) = ps.documents("100")
        assert "pid" not in found
        assert found["error"] == "VM is not running (PID file names no process of it)"


ODD = r"""
import os, sys
open("/proc/self/comm", "w").write("a\x1b[2J\nb")
if not (child := os.fork()):
    open("/proc/self/comm", "w").write("child of it")
    sys.stdin.read()
    os._exit(0)
print(child, flush=True)
os.waitpid(child, 0)
"""


@contextmanager
def odd_guest(node: Node, vmid: int) -> Iterator[tuple[int, int]]:
    """A process that passes for a guest, with a name to mislead terminals, and its child."""
    pidfile = node.path(f"/run/qemu-server/{vmid}.pid")
    with subprocess.Popen(
        ["/usr/bin/kvm", "-c", ODD, "-pidfile", str(pidfile)],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        pidfile.write_text(f"{process.pid}\n")
        yield process.pid, child


def test_names_cannot_move_the_cursor_and_children_are_shown(ps: Ps) -> None:
    ps.node.do("create", 100)
    with odd_guest(ps.node, 100) as (pid, child):
        status, out, _ = ps.run("100", "-v")
        (found,) = ps.documents("100", "-v")
    assert status == 0
    assert "\x1b" not in out
    assert r"a\x1b[2J\nb" in out
    rows = out.partition("Child processes of VM 100:\n")[2].splitlines()
    assert rows[0].split() == ["PID", "CPU", "Affinity", "Name"]
    assert rows[1].split()[0] == str(child)
    threads, children = found["threads"], found["children"]
    assert isinstance(threads, list)
    assert isinstance(children, list)
    assert [(t["tid"], t["command"]) for t in threads] == [(str(pid), "a\x1b[2J\nb")]
    assert [list(c)[:3] for c in children] == [["pid", "psr", "command"]]
    assert (children[0]["pid"], children[0]["command"]) == (str(child), "child of it")


def test_a_running_guest_without_a_configuration_is_still_listed(ps: Ps) -> None:
    pid = start(ps.node, 100)
    file = ps.node.path("/etc/pve/qemu-server/100.conf")
    file.unlink()
    assert ps.documents()[0]["pid"] == pid
    assert ps.documents()[0]["error"] == "its configuration is not found"
    file.write_text("cores: 1\n")


def test_of_a_guest_whose_configuration_cannot_be_read_nothing_is_made_up(ps: Ps) -> None:
    pid = start(ps.node, 100)
    file = ps.node.path("/etc/pve/qemu-server/100.conf")
    text = file.read_text()
    file.unlink()
    file.mkdir()
    for words in ([], ["100"]):
        status, out, err = ps.run(*words)
        assert (status, err) == (0, "VM 100: its configuration cannot be read\n")
        row = out.splitlines()[1].split()
        assert row == ["100", str(pid), "-", "-", "-", "-", cpulist(pid), "-"]
    (found,) = ps.documents()
    assert [found[name] for name in ("hook_status", "cores", "sockets", "numa")] == [
        *("Unknown", None, None, None),
    ]
    assert (found["managed_by"], found["reason_code"]) == ("", "")
    file.rmdir()
    file.write_text(text)


def test_verbose_says_that_a_guest_was_let_go_by_hand(ps: Ps) -> None:
    start(ps.node, 100, "--tags", "cpu-affinity")
    with Running(ps.node) as service:
        assert "released" not in ps.documents("-v")[0]
        assert service.post("/api/v1/guests/100/reassign", {"undo": True})["status"] == "success"
        _, out, _ = ps.run("-v")
        assert "\nThreads of VM 100 (let go by hand until its next start):\n" in out
        assert ps.documents("-v")[0]["released"] == "let go by hand until its next start"
        assert service.end() == 0


def test_a_guest_on_its_way_to_this_node_has_its_configuration_elsewhere(ps: Ps) -> None:
    start(ps.node, 100)
    folder = ps.node.path("/etc/pve/nodes/two/qemu-server")
    folder.mkdir(parents=True)
    ps.node.path("/etc/pve/qemu-server/100.conf").rename(folder / "100.conf")
    (folder / "100.conf").write_text("cores: 7\n")
    assert ps.documents()[0]["cores"] == 7
    (folder / "100.conf").rename(ps.node.path("/etc/pve/qemu-server/100.conf"))


@pytest.mark.qemu
def test_a_real_qemu_shows_its_vcpus(qemu_node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    ps = Ps(qemu_node, capsys)
    pid = start(qemu_node, 100, "--cores", 2)
    (found,) = ps.documents("-v")
    assert found["pid"] == pid
    threads = found["threads"]
    assert isinstance(threads, list)
    vcpus = [t["command"] for t in threads if re.fullmatch(r"CPU [01]/(KVM|TCG)", t["command"])]
    assert len(vcpus) == 2


def test_outside_of_a_pve_node(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--root", str(tmp_path), "ps"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Error: /etc/pve is missing")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_may_not_read_is_not_told_that_nothing_runs(sim_node: Node) -> None:
    sim_node.do("create", 100)
    sim_node.do("start", 100)
    sim_node.root.chmod(0o755)
    sim_node.path("/run/qemu-server").chmod(0o750)
    command = [sys.executable, "-m", "proxmox_cpu_affinity", "--root", str(sim_node.root), "ps"]
    done = subprocess.run(
        command, capture_output=True, text=True, user=65534, group=65534, cwd="/", check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "may not be read" in done.stderr
    assert "no guest is running" not in done.stdout + done.stderr
