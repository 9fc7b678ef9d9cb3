"""Memory that follows a guest: when it is moved, and what is said. The move itself is the kernel's,
of this very process; what really moves is seen on a booted Debian with two nodes (tests/e2e)."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxmox_cpu_affinity.linux import memory
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Pid, Vmid
from proxmox_cpu_affinity.reconcile.actions import MoveMemory
from proxmox_cpu_affinity.reconcile.events import Event, MemoryMoved
from proxmox_cpu_affinity.service.memory import MemoryMover

PROCESS = GuestProcess(Vmid(100), Pid(os.getpid()), 1)


@dataclass(slots=True)
class Node:
    """A host of which the files are made up; the process is real."""

    root: Path
    there: bool = True

    def memory_is(self, *, free_mib: int, on_others_mib: int) -> None:
        maps = self.root / f"proc/{PROCESS.pid}/numa_maps"
        maps.parent.mkdir(parents=True, exist_ok=True)
        maps.write_text(f"7f00 default anon=1 N1={on_others_mib * 256} kernelpagesize_kB=4\n")
        info = self.root / "sys/devices/system/node/node0/meminfo"
        info.parent.mkdir(parents=True, exist_ok=True)
        fields = {"MemTotal": 10_000, "MemFree": free_mib, "Inactive(file)": 0}
        info.write_text("".join(f"Node 0 {k}: {v * 1024} kB\n" for k, v in fields.items()))

    def moved(self) -> MemoryMoved:
        """What the brain is told of moving all to node 0."""
        told: list[Event] = []

        async def feed(event: Event) -> None:
            told.append(event)

        mover = MemoryMover(Tree(self.root), lambda _process, _nodes: self.there, feed)
        action = MoveMemory(PROCESS, off=frozenset({0}), onto=frozenset({0}))
        asyncio.run(mover.move(action))
        (event,) = told
        assert isinstance(event, MemoryMoved)
        return event


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_what_is_elsewhere_is_moved_where_there_is_room(node: Node) -> None:
    try:
        memory.move_pages_of(PROCESS.pid, off=frozenset({0}), onto=frozenset({0}))
    except OSError as error:  # as in a container that filters system calls
        pytest.skip(f"migrate_pages: {error.strerror}")
    node.memory_is(free_mib=5000, on_others_mib=512)
    event = node.moved()
    assert (event.process, event.problem) == (PROCESS, "")
    assert event.elsewhere == 512, "as its file goes on saying"


def test_a_full_node_is_not_filled_further(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of it stays free, for a full node kills the guest."""
    monkeypatch.setattr(memory, "_NUMBERS", {})  # whoever moves in spite of it fails otherwise
    node.memory_is(free_mib=1100, on_others_mib=512)
    assert node.moved().problem == "1100 MiB are free there, and 10% are to stay free"


def test_a_guest_that_is_not_there_any_more_is_left_alone(node: Node) -> None:
    node.memory_is(free_mib=5000, on_others_mib=512)
    node.there = False
    assert node.moved().problem == "it is not there any more"
