"""What the outer layers must be able to do for the inner ones, as narrow protocols.

Each has at most four methods, beside a property that says what it is, and is named for what its
user needs. The production adapters are in linux, pve, latency and store; the substitutes in the
tests are small working worlds, never lists of expected calls. Whatever changes the kernel's state
returns what was read back from it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess, Thread
from proxmox_cpu_affinity.model.ids import Tid, Vmid
from proxmox_cpu_affinity.model.placement import Confined, Confinement, Placement


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a file gave: its content, or why there is none (empty text: there was no file)."""

    content: Mapping[str, object] | None
    problem: str = ""


class GuestReader(Protocol):
    """The guests of this node, from PVE's files."""

    @property
    def node(self) -> str:
        """This node's name. NotPveHostError where /etc/pve is not there."""
        ...

    def configs(self) -> tuple[Mapping[Vmid, GuestConfig], frozenset[Vmid]]:
        """Every guest whose configuration lies on this node, and those that cannot be read.
        NotPveHostError where /etc/pve is not there, RefusedError where it does not tell them."""
        ...

    def config(self, vmid: Vmid) -> GuestConfig:
        """One guest, also from another node's folder (a migration's target). GuestNotFoundError,
        RefusedError where it cannot be read, NotPveHostError."""
        ...

    def processes(self) -> Mapping[Vmid, GuestProcess]:
        """The running guests: pidfile, argv and start time agree. ForbiddenError where the
        pidfiles may not be read, RefusedError where they cannot."""
        ...

    def process(self, vmid: Vmid) -> GuestProcess | None:
        """One running guest, None where nothing is proved to be it."""
        ...


class Confiner(Protocol):
    """Holds a guest's threads on CPUs, and lets go."""

    @property
    def means(self) -> Confinement:
        """By what a guest is usually held here."""
        ...

    async def confine(self, process: GuestProcess, placement: Placement) -> Confined:
        """Give every thread its mask; proved again to be the guest first, read back after."""
        ...

    async def undo(
        self, process: GuestProcess, found: Mapping[Tid, CpuSet], free: CpuSet
    ) -> Confined:
        """Put back the masks found first; threads that are new since get `free`."""
        ...

    async def threads(self, process: GuestProcess) -> Sequence[Thread]:
        """The guest's threads and those of its children as the kernel shows them now."""
        ...


class WaitingReader(Protocol):
    """How much guests wait for CPUs."""

    @property
    def by_threads(self) -> bool:
        """Whether some guest's control group could not be asked, and its threads were."""
        ...

    def waited(self, processes: Iterable[GuestProcess], now: float) -> Mapping[Vmid, float]:
        """For what share of the time since the last call some thread of each guest waited; without
        those that were not known then. `now`: seconds, monotonic."""
        ...


class StateKeeper(Protocol):
    """Keeps the service's state over restarts."""

    def load(self) -> Loaded:
        """What was saved; a damaged file is set aside."""
        ...

    def save(self, state: Mapping[str, object]) -> None:
        """Replace the file atomically. StoreError."""
        ...
