"""Pidfiles that lie: no process but a proved guest is ever listed, confined or ended for one."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.linux.masks import ThreadMasks
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import RefusedError
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Cpu, Pid, Vmid
from proxmox_cpu_affinity.model.placement import Outcome, Placement
from proxmox_cpu_affinity.pve.guests import NodeGuests
from proxmox_cpu_affinity.sim import hookscript
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind
from tests.integration.conftest import make_node
from tests.integration.running import Running, add_guest

SLEEP = "import sys; print(flush=True); sys.stdin.read()"
CPUS = sorted(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    """A service on a node with guest 100, which does not run, and guest 101, which does."""
    for node in make_node(GuestKind.STANDIN):
        hookscript.install(node)
        add_guest(node, 100)
        add_guest(node, 101, hook=False)
        node.do("start", 101)
        with Running(node) as running:
            yield running


@contextlib.contextmanager
def process(*argv: str) -> Iterator[int]:
    """A process of ours that has these arguments and does nothing."""
    words = [argv[0], "-c", SLEEP, *argv[1:]]
    with subprocess.Popen(
        words, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as started:
        assert started.stdout is not None
        started.stdout.readline()
        yield started.pid


@pytest.fixture
def pidfile(service: Running) -> Iterator[Path]:
    """Guest 100's."""
    file = service.node.path("/run/qemu-server/100.pid")
    yield file
    if file.is_dir():
        file.rmdir()
    file.unlink(missing_ok=True)


def affinities(*pids: int) -> dict[int, set[int]]:
    tids = [int(tid) for pid in pids for tid in os.listdir(f"/proc/{pid}/task")]
    return {tid: os.sched_getaffinity(tid) for tid in tids}


def assert_nobody_is_taken_for_guest_100(
    service: Running, capsys: pytest.CaptureFixture[str], *beside: int
) -> None:
    """Neither by the service, when it is told that the guest started, nor by `ps`; and the masks
    of this process and of those beside stay."""
    before = affinities(os.getpid(), 1, *beside)
    answer = service.post("/api/v1/guests/100/post-start")
    assert answer["outcome"] in ("", "reserved")
    found = service.guest(100)
    assert (found["running"], found["pid"]) == (False, None)
    assert affinities(os.getpid(), 1, *beside) == before
    service.post("/api/v1/guests/100/post-stop")
    root = str(service.node.root)
    assert main(["--root", root, "ps", "--json"]) == 0
    assert [guest["vmid"] for guest in json.loads(capsys.readouterr().out)] == [101]
    assert main(["--root", root, "ps", "100", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["error"].startswith("VM is not running (PID file ")
    assert "pid" not in row
    row_status = main(["--root", root, "reassign", "100", "--json"])
    assert row_status == 0
    assert json.loads(capsys.readouterr().out)[0]["notes"] == "VM is not running"


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n", "0\n", "-{pid}\n", "{pid}\n", "abc\n", "{pid} 2\n", "0x{pid:x}\n", " {pid}\n"),
        *("4194305\n", "99999999999999999999\n", "\0\n", "1" * 5000, "{arabic}\n"),
    ],
)
def test_a_pidfile_that_names_nobody(
    service: Running, pidfile: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers are those of a process of ours. Whoever believed one of init's would confine all that
    runs on the machine."""
    with process("/usr/bin/sleeper") as pid:
        arabic = "".join(chr(ord("\N{ARABIC-INDIC DIGIT ZERO}") + int(n)) for n in str(pid))
        pidfile.write_text(text.format(pid=pid, arabic=arabic))
        assert_nobody_is_taken_for_guest_100(service, capsys, pid)


def test_a_pidfile_that_is_a_directory_or_a_fifo(
    service: Running, pidfile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pidfile.mkdir()
    assert_nobody_is_taken_for_guest_100(service, capsys)
    pidfile.rmdir()
    os.mkfifo(pidfile)  # must hold nobody up
    assert_nobody_is_taken_for_guest_100(service, capsys)


def test_a_stale_pidfile(
    service: Running, pidfile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with process("/usr/bin/kvm", "-pidfile", str(pidfile)) as pid:
        pass
    pidfile.write_text(f"{pid}\n")
    assert_nobody_is_taken_for_guest_100(service, capsys)


@pytest.mark.parametrize(
    "argv",
    [
        ("/usr/bin/sleeper", "-pidfile", "{own}"),
        ("/usr/bin/kvm", "-pidfile", "{other}"),
        ("/usr/bin/kvm", "-pidfile", "{own}.new"),
        ("/usr/bin/kvm", "-pidfile", "/run/qemu-server/100.pid"),  # of the host, not of this node
        ("/usr/bin/kvm", "-pidfile"),
        ("/usr/bin/kvm", "-id", "100"),
        ("/usr/bin/kvm", "-name", "x -pidfile {own}"),
        ("/usr/bin/kvm-nx", "-pidfile", "{own}"),
    ],
)
def test_a_pidfile_that_names_another_process(
    service: Running, pidfile: Path, argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    other = pidfile.with_name("101.pid")
    words = [word.format(own=pidfile, other=other) for word in argv]
    with process(*words) as pid:
        pidfile.write_text(f"{pid}\n")
        assert_nobody_is_taken_for_guest_100(service, capsys, pid)


def test_a_pidfile_that_names_another_guest(
    service: Running, pidfile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = service.node.pid(101)
    assert running is not None
    pidfile.write_text(f"{running}\n")
    assert_nobody_is_taken_for_guest_100(service, capsys, running)


@pytest.mark.parametrize("name", ["-1.pid", "qsd-101.pid", "101.swtpm.pid", "0100.pid", "99.pid"])
def test_a_pidfile_of_no_guest_s_name(
    service: Running, pidfile: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = pidfile.with_name(name)
    with process("/usr/bin/kvm", "-pidfile", str(file)) as pid:
        file.write_text(f"{pid}\n")
        assert_nobody_is_taken_for_guest_100(service, capsys, pid)
    file.unlink()


def test_a_pid_that_was_used_again_is_another_process(sim_node: Node) -> None:
    """Pid and arguments are right, the start time is not: nothing is changed."""
    sim_node.do("create", 100)
    sim_node.do("start", 100)
    guests = NodeGuests(Tree(sim_node.root))
    now = guests.process(Vmid(100))
    assert now is not None
    before = affinities(now.pid)
    earlier = GuestProcess(Vmid(100), Pid(now.pid), now.start_time - 1)
    assert not guests.proven(earlier)
    home = CpuSet.of([CPUS[-1]])
    placement = Placement(Vmid(100), home, home, (Cpu(CPUS[-1]),), Cpu(CPUS[-1]))
    confined = ThreadMasks(guests.tree, guests.proven).confine(earlier, placement)
    assert confined.outcome is Outcome.FAILED
    assert [fault.reason for fault in confined.faults] == ["no process is proved to be this guest"]
    assert affinities(now.pid) == before


def test_a_folder_that_cannot_be_read_is_not_one_without_guests(tmp_path: Path) -> None:
    """An error of the disk ended in a traceback, or with a newer Python in no guests at all."""
    guests = NodeGuests(Tree(tmp_path))
    assert guests.processes() == {}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/qemu-server").symlink_to("qemu-server")  # ELOOP
    with pytest.raises(RefusedError, match=r"symbolic links: no telling which guests run"):
        guests.processes()
