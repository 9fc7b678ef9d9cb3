"""Fixtures of the integration tests: simulated nodes, switched off and removed after each test."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.sim import layout, node, processes
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind


def make_node(kind: GuestKind) -> Iterator[Node]:
    """A node in a directory with a short name: pytest's are too long for sockets (107 bytes)."""
    root = Path(tempfile.mkdtemp(prefix="pca-", dir="/tmp"))
    try:
        made = node.create(root, guest=kind)
        try:
            yield made
        finally:
            made.destroy()
        assert not list(processes.found(lambda argv: any(str(root) in word for word in argv)))
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def sim_node() -> Iterator[Node]:
    """A node whose guests are stand-ins: quick, needs nothing installed."""
    yield from make_node(GuestKind.STANDIN)


@pytest.fixture
def qemu_node() -> Iterator[Node]:
    """A node whose guests are real QEMUs; mark its tests with `qemu`."""
    if layout.qemu_program() is None:
        pytest.skip("QEMU is not installed")
    yield from make_node(GuestKind.QEMU)
