"""How long guests wait for CPUs, from cpu.pressure and schedstat."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats.pressure import run_delay, some_waited, some_waits
from proxmox_cpu_affinity.linux.pressure import WaitingMeter
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Pid, Vmid
from proxmox_cpu_affinity.model.placement import Widening

# As Linux 6.1 writes it; the line `full` came to CPU pressure with 5.13.
PRESSURE = (
    "some avg10=1.23 avg60=0.45 avg300=0.12 total={}\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
)
RULES = Widening()
GUEST = GuestProcess(Vmid(100), Pid(4242), 1)
SCOPE = "sys/fs/cgroup/qemu.slice/100.scope"


def test_the_line_some_is_read() -> None:
    assert some_waited(PRESSURE.format(2_500_000)) == 2.5
    assert some_waited("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n") == 0.0
    assert some_waits(PRESSURE.format(0)) == pytest.approx(0.0123)


@pytest.mark.parametrize(
    "text", ["", "full avg10=0.00 total=3\n", "some avg10=0.00\n", "some total=-1"]
)
def test_what_says_nothing_is_a_fault(text: str) -> None:
    for read in (some_waited, some_waits):
        with pytest.raises(SyntaxFault):
            read(text)


@given(st.text())
def test_any_text_is_a_number_or_a_fault(text: str) -> None:
    for read in (some_waited, some_waits, run_delay):
        try:
            found = read(text)
        except SyntaxFault:
            continue
        assert found >= 0


def test_run_delay_is_the_second_number() -> None:
    assert run_delay("98765432 1500000000 321\n") == 1.5
    with pytest.raises(SyntaxFault):
        run_delay("1 2\n")


def write(root: Path, total: int) -> None:
    (root / SCOPE).mkdir(parents=True, exist_ok=True)
    (root / SCOPE / "cpu.pressure").write_text(PRESSURE.format(total))


def test_shares_are_differences_over_time(tmp_path: Path) -> None:
    meter = WaitingMeter(Tree(tmp_path))
    write(tmp_path, 10_000_000)
    assert meter.waited([GUEST], 100.0) == {}  # the first look: nothing to compare with
    write(tmp_path, 10_600_000)
    assert meter.waited([GUEST], 130.0) == {100: pytest.approx(0.02)}
    assert meter.waited([GUEST], 160.0) == {100: 0.0}
    assert not meter.by_threads


def test_another_run_of_a_guest_begins_anew(tmp_path: Path) -> None:
    meter = WaitingMeter(Tree(tmp_path))
    write(tmp_path, 10_000_000)
    meter.waited([GUEST], 100.0)
    again = GuestProcess(Vmid(100), Pid(4243), 2)
    write(tmp_path, 5)
    assert meter.waited([again], 130.0) == {}
    assert meter.waited([], 160.0) == {}
    assert meter.waited([again], 190.0) == {}


def test_a_total_that_goes_back_or_leaps_is_no_share(tmp_path: Path) -> None:
    meter = WaitingMeter(Tree(tmp_path))
    write(tmp_path, 10_000_000)
    meter.waited([GUEST], 100.0)
    write(tmp_path, 1_000_000)
    assert meter.waited([GUEST], 130.0) == {100: 0.0}
    write(tmp_path, 900_000_000)
    assert meter.waited([GUEST], 160.0) == {100: 1.0}


def test_a_guest_that_is_gone_is_left_out(tmp_path: Path) -> None:
    meter = WaitingMeter(Tree(tmp_path))
    assert meter.waited([GUEST], 100.0) == {}
    assert meter.waited([GUEST], 130.0) == {}
    assert not meter.by_threads


def test_a_thread_that_is_new_has_waited_for_nothing_yet(tmp_path: Path) -> None:
    """A vCPU that was plugged in: its first figure is no difference."""

    def waits(tid: int, number: int, seconds: float) -> None:
        folder = tmp_path / f"proc/{GUEST.pid}/task/{tid}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stat").write_text(f"{tid} (CPU {number}/KVM) S {' 0' * 49}\n")
        (folder / "schedstat").write_text(f"1 {seconds * 1e9:.0f} 1\n")

    meter, end = WaitingMeter(Tree(tmp_path)), threading.Event()
    plugged = threading.Thread(target=end.wait)  # the masks that are read are the kernel's
    plugged.start()
    try:
        waits(os.getpid(), 0, 1.0)
        meter.waited([GUEST], 100.0)
        waits(plugged.native_id or 0, 1, 20.0)
        assert meter.waited([GUEST], 130.0) == {100: 0.0}
        waits(plugged.native_id or 0, 1, 23.0)
        assert meter.waited([GUEST], 160.0) == {100: pytest.approx(0.1)}
    finally:
        end.set()
        plugged.join()


BUSY = """
import os, sys
open("/proc/self/comm", "w").write("CPU 0/TCG")
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(flush=True)
while True:
    pass
"""


@pytest.fixture
def busy() -> Iterator[Pid]:
    """Two processes that want the same CPU, with a thread named like a vCPU's; one's pid."""
    command = (sys.executable, "-I", "-S", "-c", BUSY)
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for one in both:
            assert one.stdout is not None
            assert one.stdout.readline() == b"\n"
        yield Pid(both[0].pid)
    finally:
        for one in both:
            one.kill()
            one.communicate()


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="this kernel keeps no schedstat"
)
def test_without_pressure_threads_of_vcpus_tell(tmp_path: Path, busy: Pid) -> None:
    """The real kernel's figures of a thread that shares its CPU, and so waits half of the time."""
    (tmp_path / "proc").symlink_to("/proc")
    meter = WaitingMeter(Tree(tmp_path))
    guest = GuestProcess(Vmid(100), busy, 1)
    assert meter.waited([guest], time.monotonic()) == {}
    assert meter.by_threads
    share = 0.0
    for _ in range(200):
        time.sleep(0.05)
        share = meter.waited([guest], time.monotonic())[Vmid(100)]
        if share > RULES.above:
            break
    assert RULES.above < share <= 1.0
