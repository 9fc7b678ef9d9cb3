"""Threads that refuse a mask: one is its own matter, all of them are a failure. Real threads."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.linux.masks import ThreadMasks
from proxmox_cpu_affinity.linux.threads import own_cpus, tids_of
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Cpu, Pid, Vmid
from proxmox_cpu_affinity.model.placement import Outcome, Placement

TREE = Tree(Path("/"))
MASKS = ThreadMasks(TREE, lambda _: True)
TWO_THREADS = """
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print("up", flush=True)
time.sleep(600)
"""


def on(cpu: int) -> Placement:
    cpus = CpuSet.of((Cpu(cpu),))
    return Placement(Vmid(100), cpus, cpus, (Cpu(cpu),), Cpu(cpu))


@pytest.fixture
def process() -> Iterator[GuestProcess]:
    """One with two threads."""
    words = [sys.executable, "-c", TWO_THREADS]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "up\n"
            yield GuestProcess(Vmid(100), Pid(running.pid), 1)
        finally:
            running.kill()


def test_a_cpu_that_is_not_there_is_a_failure_in_the_kernels_words(process: GuestProcess) -> None:
    done = MASKS.confine(process, on(60000))
    assert (done.outcome, done.threads) == (Outcome.FAILED, 2)
    assert {fault.reason for fault in done.faults} == {os.strerror(errno.EINVAL)}


@pytest.mark.skipif(len(own_cpus()) < 2, reason="needs two CPUs")
def test_one_thread_that_refuses_makes_it_a_part(
    process: GuestProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As io_uring's workers do before Linux 6.4."""
    first, second = tids_of(TREE, process.pid)
    give = os.sched_setaffinity

    def refusing(tid: int, cpus: Iterable[int]) -> None:
        if tid == second:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        give(tid, cpus)

    monkeypatch.setattr(os, "sched_setaffinity", refusing)
    cpu = own_cpus().first()
    done = MASKS.confine(process, on(cpu))
    assert (done.outcome, done.threads) == (Outcome.PART, 2)
    assert [(fault.tid, fault.reason) for fault in done.faults] == [
        (second, os.strerror(errno.EINVAL))
    ]
    assert os.sched_getaffinity(first) == {cpu}
    assert os.sched_getaffinity(second) == set(own_cpus())
