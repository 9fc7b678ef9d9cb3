"""Fixtures of the integration tests: simulated nodes, switched off and removed after each test."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.sim import layout, node, processes
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind


@contextlib.contextmanager
def short_root() -> Iterator[Path]:
    """A directory with a short name: pytest's are too long for sockets (107 bytes). No process
    that names it may be left at the end."""
    root = Path(tempfile.mkdtemp(prefix="pca-", dir="/tmp"))
    try:
        yield root
        assert not list(processes.found(lambda argv: any(str(root) in word for word in argv)))
    finally:
        shutil.rmtree(root, ignore_errors=True)


def make_node(kind: GuestKind) -> Iterator[Node]:
    """A node that is switched off and removed after its use."""
    with short_root() as root:
        made = node.create(root, guest=kind)
        try:
            yield made
        finally:
            made.destroy()


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


@pytest.fixture(
    params=[
        GuestKind.STANDIN,
        pytest.param(GuestKind.QEMU, marks=pytest.mark.qemu),
    ]
)
def any_node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """Both of them, one after the other: what holds for one must hold for the other."""
    if request.param is GuestKind.QEMU and layout.qemu_program() is None:
        pytest.skip("QEMU is not installed")
    yield from make_node(request.param)


class Recorder:
    """A hookscript on a node that notes each call as `VMID PHASE`."""

    def __init__(self, node: Node) -> None:
        self.log = node.path("/tmp/hooks")
        self.volume = node.add_snippet("record", f"#!/bin/sh\necho $1 $2 >> {self.log}\n")

    def calls(self) -> list[str]:
        """What was called so far."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_for(self, *calls: str) -> None:
        """Wait for exactly these calls in this order; whoever is late has ten seconds."""
        processes.wait_until(lambda: len(self.calls()) >= len(calls), seconds=10)
        assert self.calls() == list(calls)
