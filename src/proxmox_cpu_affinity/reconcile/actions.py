"""What the brain wants done. Effects are asynchronous; those that change the kernel's state come
back as an event with what was read back."""

from dataclasses import dataclass
from enum import StrEnum

from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Tid, Vmid
from proxmox_cpu_affinity.model.placement import Placement


class Level(StrEnum):
    """How much a line matters; the values are those of the log and of the stream of events."""

    INFO = "info"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Confine:
    """Hold this process on its placement; answered by Confirmed."""

    process: GuestProcess
    placement: Placement


@dataclass(frozen=True, slots=True)
class Undo:
    """Put back the masks found first, give `free` to the rest; answered by SetFree."""

    process: GuestProcess
    found: tuple[tuple[Tid, CpuSet], ...]
    free: CpuSet


@dataclass(frozen=True, slots=True)
class Inspect:
    """Read the threads of these processes; answered by one Inspected."""

    processes: tuple[GuestProcess, ...]


@dataclass(frozen=True, slots=True)
class Watch:
    """Say ProcessEnded when this process is gone."""

    process: GuestProcess


@dataclass(frozen=True, slots=True)
class Enclose:
    """Confine a guest's scope, whatever runs in it; answered by Enclosed."""

    vmid: Vmid
    cpus: CpuSet


@dataclass(frozen=True, slots=True)
class WriteDropIn:
    """Let the guest's next scope be made with these CPUs."""

    vmid: Vmid
    cpus: CpuSet


@dataclass(frozen=True, slots=True)
class DeleteDropIn:
    """The drop-in has served, or never will."""

    vmid: Vmid


@dataclass(frozen=True, slots=True)
class MoveMemory:
    """Let a guest's memory follow it to its nodes, in the background; answered by MemoryMoved."""

    process: GuestProcess
    off: frozenset[int]
    onto: frozenset[int]


@dataclass(frozen=True, slots=True)
class LookForMoves:
    """Look for moves that pay, in the background, in the state as it is when the search begins;
    answered by MovesFound. `asked`: by hand, so guests that have just started are moved, too."""

    asked: bool = False


@dataclass(frozen=True, slots=True)
class Save:
    """Something worth keeping over a restart changed."""


@dataclass(frozen=True, slots=True)
class Record:
    """Keep this decision for those who ask."""

    vmid: Vmid
    decision: Decision


@dataclass(frozen=True, slots=True)
class Tell:
    """One line for the log that an administrator understands."""

    level: Level
    vmid: Vmid | None
    text: str


Action = (
    Confine
    | Undo
    | Inspect
    | Watch
    | Enclose
    | WriteDropIn
    | DeleteDropIn
    | MoveMemory
    | LookForMoves
    | Save
    | Record
    | Tell
)
