"""What is believed of a scope: the kernel's files, whatever systemd answered. On a real process.

A real systemd is asked in tests/e2e; here one that answers and does something else.
"""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from proxmox_cpu_affinity.linux.masks import ThreadMasks
from proxmox_cpu_affinity.linux.scopes import Scopes
from proxmox_cpu_affinity.linux.threads import own_cpus
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Pid, Vmid
from proxmox_cpu_affinity.model.placement import Confinement, Outcome, Placement

if TYPE_CHECKING:
    from proxmox_cpu_affinity.linux.systemd import Systemd

VMID = Vmid(100)
ONE = CpuSet.of((own_cpus().first(),))
PLACEMENT = Placement(VMID, ONE, ONE, (ONE.first(),), ONE.first())


@dataclass(slots=True)
class Stage:
    """A scope's files, and a process that is taken for the guest in it."""

    root: Path
    process: GuestProcess
    gives: str | None = None  # what the kernel makes of a limit; None: what was asked for
    beside: bool = False  # another scope is limited, and systemd writes nothing for one that is not
    lingers: int = 0  # how often a limit that was taken off is still seen
    deaf: int = 0  # how many limits are not written, or not yet
    looks: int = 0
    asked: list[CpuSet] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.root / "sys/fs/cgroup/qemu.slice/100.scope"

    @property
    def scopes(self) -> Scopes:
        tree = Tree(self.root)
        return Scopes(tree, cast("Systemd", self), ThreadMasks(tree, self.proven))

    def hold_another(self) -> None:
        self.beside = True
        other = self.folder.parent / "101.scope"
        other.mkdir()
        (other / "cpuset.cpus").write_text(f"{ONE}\n")

    def possible(self, cpus: CpuSet) -> None:
        folder = self.root / "sys/devices/system/cpu"
        folder.mkdir(parents=True)
        (folder / "possible").write_text(f"{cpus}\n")

    async def allow(self, unit: str, cpus: CpuSet) -> None:
        """As systemd does it."""
        assert unit == "100.scope"
        self.asked.append(cpus)
        if cpus and self.deaf:
            self.deaf -= 1
        elif cpus:
            (self.folder / "cpuset.cpus").write_text(f"{cpus}\n")
            effective = str(cpus) if self.gives is None else self.gives
            (self.folder / "cpuset.cpus.effective").write_text(f"{effective}\n")

    def proven(self, process: GuestProcess) -> bool:
        """Asked at each look at the threads."""
        self.looks += 1
        if self.looks > self.lingers and not self.beside:
            (self.folder / "cpuset.cpus").write_text("\n")
        return process == self.process


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    (tmp_path / "proc").symlink_to("/proc")
    with subprocess.Popen(["sleep", "600"]) as sleeping:
        try:
            made = Stage(tmp_path, GuestProcess(VMID, Pid(sleeping.pid), 1), lingers=1)
            made.folder.mkdir(parents=True)
            yield made
        finally:
            sleeping.kill()


def test_a_scope_that_is_limited_as_wished_is_whole(stage: Stage) -> None:
    done = asyncio.run(stage.scopes.confine(stage.process, PLACEMENT))
    assert (done.outcome, done.confinement) == (Outcome.FULL, Confinement.SCOPE)
    assert os.sched_getaffinity(stage.process.pid) == set(ONE)


@pytest.mark.parametrize("gives", ["0-4095", ""])
def test_a_scope_that_has_other_cpus_than_wished_is_a_part(gives: str, stage: Stage) -> None:
    """Its threads are where they should be: later ones would not be."""
    stage.gives = gives
    done = asyncio.run(stage.scopes.confine(stage.process, PLACEMENT))
    assert done.outcome is Outcome.PART
    assert [fault.name for fault in done.faults] == ["scope"]
    assert os.sched_getaffinity(stage.process.pid) == set(ONE)


@pytest.mark.parametrize("lingers", [1, 5])
@pytest.mark.parametrize("possible", [own_cpus(), None])
def test_undoing_waits_until_the_limit_is_gone(
    possible: CpuSet | None, lingers: int, stage: Stage
) -> None:
    """systemd takes it off when it gets to it, and what was read back before was too early: masks
    that were given back go with the controller, before Linux 6.2."""
    if possible is not None:
        stage.possible(possible)
    asyncio.run(stage.scopes.confine(stage.process, PLACEMENT))
    (stage.folder / "cpuset.cpus").write_text(f"{ONE}\n")
    stage.looks, stage.lingers = 0, lingers
    done = asyncio.run(stage.scopes.undo(stage.process, {}, own_cpus()))
    assert done.outcome is Outcome.FULL
    assert stage.looks == lingers + 2, "one that sees it go, and one that sees it gone"
    assert os.sched_getaffinity(stage.process.pid) == set(own_cpus())


def test_undoing_goes_well_while_another_scope_is_limited(stage: Stage) -> None:
    """systemd leaves the last limit in force then: guests stayed held until nobody else was."""
    everything = own_cpus()
    stage.possible(everything)
    stage.hold_another()
    asyncio.run(stage.scopes.confine(stage.process, PLACEMENT))
    stage.looks = 0
    done = asyncio.run(stage.scopes.undo(stage.process, {}, everything))
    assert done.outcome is Outcome.FULL
    assert (stage.folder / "cpuset.cpus").read_text() == f"{everything}\n"
    assert os.sched_getaffinity(stage.process.pid) == set(everything)
    assert stage.asked == [ONE, everything, EMPTY]
    assert stage.looks == 2, "its limit stays as long as that one: nothing to wait for"


@pytest.mark.skipif(len(own_cpus()) < 2, reason="with one CPU nothing is limited")
def test_a_limit_that_stays_is_said_and_is_lifted_by_the_next_try(stage: Stage) -> None:
    """Emptied before all CPUs were written, it would stay for good. The threads' masks are given
    back meanwhile, and a scope that still holds later ones was taken for free."""
    everything = own_cpus()
    stage.possible(everything)
    stage.hold_another()
    asyncio.run(stage.scopes.confine(stage.process, PLACEMENT))
    stage.deaf = 1
    done = asyncio.run(stage.scopes.undo(stage.process, {}, everything))
    assert done.outcome is Outcome.PART
    assert [fault.reason for fault in done.faults] == ["its scope is limited still"]
    assert stage.asked == [ONE, everything]
    assert asyncio.run(stage.scopes.undo(stage.process, {}, everything)).outcome is Outcome.FULL
    assert stage.asked == [ONE, everything, everything, EMPTY]


def test_a_limit_of_the_slice_is_not_the_scope_s(stage: Stage) -> None:
    stage.possible(own_cpus())
    stage.hold_another()
    stage.gives = f"{ONE}"
    asyncio.run(stage.scopes.confine(stage.process, PLACEMENT))
    done = asyncio.run(stage.scopes.undo(stage.process, {}, own_cpus()))
    assert done.outcome is Outcome.FULL


def test_a_scope_without_a_process_is_let_go_the_same_way(stage: Stage) -> None:
    stage.possible(own_cpus())
    stage.hold_another()
    asyncio.run(stage.scopes.enclose(VMID, ONE))
    assert asyncio.run(stage.scopes.enclose(VMID, EMPTY)) is None
    assert (stage.folder / "cpuset.cpus").read_text() == f"{own_cpus()}\n"
