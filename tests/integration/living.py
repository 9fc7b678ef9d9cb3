"""Guests under a real service, for tests of their lives: what the kernel, the API and the service's
file must say of one that runs, of one that rests, and of one that is gone."""

import itertools
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from proxmox_cpu_affinity.sim import hookscript, layout, node
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind, PostStop

from .conftest import Cast, short_root
from .running import Running, cpus_of, masks_of

CPUS = frozenset(os.sched_getaffinity(0))
REAL = GuestKind.QEMU if layout.qemu_program() else GuestKind.STANDIN
COMPLAINTS = ("without it", "left alone", "hook failed", "not confined", "hookscript error")


class Way(Enum):
    """How the service comes to know of guests."""

    HOOK = "hook"
    TAG = "tag"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Place:
    """Where guests live: how they are known, what they are, and how PVE runs post-stop."""

    way: Way
    kind: GuestKind
    model: PostStop

    def __str__(self) -> str:
        return f"{self.way.value}-{self.model.name.lower()}-{self.kind.value}"


PLACES = (
    Place(Way.HOOK, REAL, PostStop.PVE9),
    Place(Way.HOOK, GuestKind.STANDIN, PostStop.PVE8),
    Place(Way.TAG, GuestKind.STANDIN, PostStop.PVE9),
    Place(Way.ALL, REAL, PostStop.PVE8),
)


class Life:
    """A node with its service, and the guests of one test after the other."""

    PEER = Cast.PEER

    def __init__(self, host: Node, service: Running, place: Place) -> None:
        self.node = host
        self.service = service
        self.place = place
        self.hook = hookscript.install(host)
        self.mine: list[int] = []
        self._vmids = itertools.count(100)

    @property
    def hooked(self) -> bool:
        return self.place.way is Way.HOOK

    # -- what happens ------------------------------------------------------------------------------

    def guest(self, *words: object, cores: int = 1, start: bool = True) -> int:
        """A guest that the service is to manage."""
        vmid = next(self._vmids)
        self.mine.append(vmid)
        self.node.do("create", vmid, "--cores", cores, "--memory", 64, *self.wish(), *words)
        if start:
            self.do("start", vmid)
        return vmid

    def wish(self) -> tuple[str, ...]:
        """What in a guest's configuration makes it ours."""
        if self.place.way is Way.ALL:
            return ()
        return ("--hookscript", self.hook) if self.hooked else ("--tags", "cpu-affinity")

    def do(self, *words: object) -> str:
        """Run `qm`; it neither fails nor do we complain in its task log."""
        said = self.node.do(*words)
        assert not [line for line in COMPLAINTS if line in said], said
        return said

    def look(self) -> None:
        """Have the service look for itself, and wait until it has."""
        done = "settings read again"
        before = self.service.log.count(done)
        self.service.process.send_signal(signal.SIGHUP)
        self.service.wait_for(lambda: self.service.log.count(done) > before)

    def notices(self) -> None:
        """Nothing, where hooks tell; else the service looks."""
        if not self.hooked:
            self.look()

    # -- what must be so ---------------------------------------------------------------------------

    def runs(self, vmid: int, *, cpus: int = 1) -> frozenset[int]:
        """A guest that runs is noticed and confined; on which CPUs."""
        self.notices()
        return self.confined(vmid, cpus=cpus)

    def confined(self, vmid: int, *, cpus: int) -> frozenset[int]:
        """Every thread of a guest has the same so many CPUs, as the API says; which they are."""
        pid = self.node.pid(vmid)
        assert pid is not None, f"guest {vmid} does not run"
        self.service.wait_for(lambda: self._is(vmid, pid=pid, outcome="full"))
        row = self.row(vmid)
        given = frozenset(cpus_of(str(row["cpus"])))
        assert len(given) == cpus, row
        assert masks(pid) == {given}
        return given

    def unheld(self, vmid: int, *, cpus: frozenset[int] = CPUS) -> None:
        """A guest that runs is not ours: its threads have the mask that PVE started it with."""
        self.notices()
        pid = self.node.pid(vmid)
        assert pid is not None, f"guest {vmid} does not run"
        self.service.wait_for(lambda: self._is(vmid, pid=pid, outcome=""))
        assert not self.row(vmid)["managed"]
        assert masks(pid) == {cpus}

    def rests(self, vmid: int) -> None:
        """A guest of this node that does not run holds no CPU."""
        assert self.node.pid(vmid) is None
        self.service.wait_for(lambda: self._is(vmid, pid=None, outcome=""))
        assert self.row(vmid)["cpus"] == ""
        assert str(vmid) not in self.placed()

    def gone(self, vmid: int) -> None:
        """A guest that is not on this node any more is nowhere."""
        assert self.node.pid(vmid) is None
        self.service.wait_for(lambda: str(vmid) not in self.placed())
        self.look()
        assert vmid not in {row["vmid"] for row in self.rows()}
        assert str(vmid) not in self.placed()

    def row(self, vmid: int) -> dict[str, object]:
        """What the list of guests says of one."""
        (found,) = [row for row in self.rows() if row["vmid"] == vmid]
        return found

    def rows(self) -> list[dict[str, object]]:
        found = json.loads(self.service.get("/api/v1/guests").body)
        assert isinstance(found, list)
        return found

    def placed(self) -> dict[str, object]:
        return self.service.get("/api/v1/core-vm-affinity").json

    def kept(self) -> dict[str, dict[str, object]]:
        """What the service keeps for its next life."""
        file = self.node.path("/var/lib/proxmox-cpu-affinity/state.json")
        found = json.loads(file.read_text())["content"]
        assert isinstance(found, dict)
        return found

    def _is(self, vmid: int, *, pid: int | None, outcome: str) -> bool:
        row = self.row(vmid)
        return (row["pid"], row["outcome"]) == (pid, outcome)

    # -- the end -----------------------------------------------------------------------------------

    def bury(self) -> None:
        """Remove this test's guests; then nothing may be recorded of any."""
        self.node.path("/etc/pve/ha/resources.cfg").write_text("")
        for vmid in self.mine:
            if self.node.pid(vmid):
                self.node.do("stop", vmid, "--skiplock")
            self.node.path(f"/etc/pve/qemu-server/{vmid}.conf").unlink(missing_ok=True)
        self.mine.clear()
        self.look()
        assert self.placed() == {}
        assert "Traceback" not in self.service.log


def masks(pid: int) -> set[frozenset[int]]:
    """The different masks of a process's threads."""
    return {frozenset(mask) for mask in masks_of(pid).values()}


def lives(place: Place) -> Iterator[Life]:
    """A node of a cluster, and a service on it."""
    with short_root() as root:
        peers = (Cast.PEER,)
        host = node.create(root, guest=place.kind, post_stop=place.model, peers=peers)
        try:
            with Running(host, settings=f"PCA_MANAGE={place.way.value}\n") as service:
                yield Life(host, service, place)
        finally:
            host.destroy()
