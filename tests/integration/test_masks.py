"""Thread masks of real processes: given, and given back."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.linux.masks import ThreadMasks
from proxmox_cpu_affinity.linux.threads import own_cpus
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import RefusedError
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Pid, Tid, Vmid
from proxmox_cpu_affinity.model.placement import Outcome

CPUS = sorted(os.sched_getaffinity(0))
NOWHERE = 9999  # no host has it: to the kernel a CPU that is offline


@pytest.fixture
def process() -> Iterator[GuestProcess]:
    with subprocess.Popen(["sleep", "60"]) as started:
        yield GuestProcess(Vmid(100), Pid(started.pid), 1)
        started.kill()


@pytest.mark.parametrize(
    ("found", "becomes"), [((CPUS[0], NOWHERE), CPUS[:1]), ((NOWHERE,), CPUS), ((), CPUS)]
)
def test_a_mask_is_given_back_as_far_as_its_cpus_are_online(
    process: GuestProcess, found: tuple[int, ...], becomes: list[int]
) -> None:
    """Once letting go failed, again at each scan, where a CPU of the mask had gone offline."""
    os.sched_setaffinity(process.pid, CPUS[-1:])
    masks = ThreadMasks(Tree(Path("/")), lambda _: True)
    before = {Tid(process.pid): CpuSet.of(found)}
    done = masks.undo(process, before, CpuSet.of(CPUS))
    assert (done.outcome, done.faults) == (Outcome.FULL, ())
    assert sorted(os.sched_getaffinity(process.pid)) == becomes


def test_own_cpus_that_cannot_be_read_is_an_error_of_the_family(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A SIGHUP at that moment left a traceback in the log."""

    def refused(_: int) -> set[int]:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "sched_getaffinity", refused)
    with pytest.raises(RefusedError, match="may run on cannot be read: Operation not permitted"):
        own_cpus()
