"""Fixtures of the integration tests: simulated nodes, switched off and removed after each test."""

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.sim import layout, node, processes
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind, PostStop
from tests.integration.running import Running, add_guest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One more run for what real processes on a busy machine do (tests/run.py counts them)."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.flaky(reruns=1))


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


def make_node(kind: GuestKind, *, peers: tuple[str, ...] = ()) -> Iterator[Node]:
    """A node that is switched off and removed after its use."""
    with short_root() as root:
        made = node.create(root, guest=kind, peers=peers)
        try:
            yield made
        finally:
            made.destroy()


def with_a_guest() -> Iterator[Running]:
    """A service on a node of its own, where guest 100 runs."""
    for made in make_node(GuestKind.STANDIN):
        with Running(made) as running:
            add_guest(made, 100)
            made.do("start", 100)
            running.says("latency measured")  # else a guest's score may change meanwhile
            yield running


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


KINDS = [GuestKind.STANDIN, pytest.param(GuestKind.QEMU, marks=pytest.mark.qemu)]


@pytest.fixture(params=KINDS)
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


class Cast:
    """Guests on a node that a module's tests share; each test makes its own, with a hookscript.

    `PEER` is the other node of the cluster, of which there is the folder only.
    """

    PEER = "pve2"

    def __init__(self, node: Node) -> None:
        self.node = node
        self.hook = Recorder(node)
        self._vmids = itertools.count(100)
        self._seen: dict[int, int] = {}

    def guest(self, *words: object, hook: bool = True, start: bool = False) -> int:
        """Create a guest with these words for `qm create`."""
        vmid = next(self._vmids)
        hooked = ("--hookscript", self.hook.volume) if hook else ()
        self.node.do("create", vmid, *hooked, *words)
        if start:
            self.node.do("start", vmid)
        return vmid

    def calls(self, vmid: int) -> list[str]:
        """The phases in which a guest's hook was called since this was last asked."""
        found = self._unseen(vmid)
        self._seen[vmid] = self._seen.get(vmid, 0) + len(found)
        return found

    def comes(self, vmid: int, *phases: str) -> None:
        """Wait for exactly these calls in this order; whoever is late has ten seconds."""
        processes.wait_until(lambda: len(self._unseen(vmid)) >= len(phases), seconds=10)
        assert self.calls(vmid) == list(phases)

    def _unseen(self, vmid: int) -> list[str]:
        mine = [call.split() for call in self.hook.calls()]
        return [phase for who, phase in mine if who == str(vmid)][self._seen.get(vmid, 0) :]

    def file(self, vmid: int, *, node: str = "pve") -> Path:
        return self.node.path(f"/etc/pve/nodes/{node}/qemu-server/{vmid}.conf")

    def status(self, vmid: int) -> str:
        return self.node.do("status", vmid).removeprefix("status: ").strip()

    def refused(self, *words: object, status: int, says: str) -> None:
        """A command fails with this status, and this on stdout (tasks) or stderr (all else)."""
        done = self.node.qm(*words)
        assert (done.returncode, says in done.stdout + done.stderr) == (status, True), done


def make_cast(kind: GuestKind) -> Iterator[Cast]:
    if kind is GuestKind.QEMU and layout.qemu_program() is None:
        pytest.skip("QEMU is not installed")
    for made in make_node(kind, peers=(Cast.PEER,)):
        yield Cast(made)


@pytest.fixture(scope="module")
def cast() -> Iterator[Cast]:
    """Stand-ins on a node that the tests of a module share."""
    yield from make_cast(GuestKind.STANDIN)


@pytest.fixture(scope="module", params=KINDS)
def any_cast(request: pytest.FixtureRequest) -> Iterator[Cast]:
    """Both kinds of guests, one after the other."""
    yield from make_cast(request.param)


@pytest.fixture(params=PostStop)
def model(request: pytest.FixtureRequest) -> PostStop:
    """Both ways of running post-stop; the test configures its node."""
    found = request.param
    assert isinstance(found, PostStop)
    return found
