"""What can happen. Every event carries the time (seconds, monotonic): the brain has no clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from proxmox_cpu_affinity.engine.facts import Host
from proxmox_cpu_affinity.engine.rebalance import Move, Question
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess, Manage, Thread
from proxmox_cpu_affinity.model.ids import Cpu, Vmid
from proxmox_cpu_affinity.model.placement import Confined


class Phase(StrEnum):
    """The four calls of a hookscript."""

    PRE_START = "pre-start"
    POST_START = "post-start"
    PRE_STOP = "pre-stop"
    POST_STOP = "post-stop"


@dataclass(frozen=True, slots=True)
class HookCalled:
    """A hint from PVE, with what was true when it came. Hints may be late, doubled or missing."""

    time: float
    vmid: Vmid
    phase: Phase
    config: GuestConfig | None
    process: GuestProcess | None


@dataclass(frozen=True, slots=True)
class Scanned:
    """The truth, read every 30 seconds: all guests of this node and all that run."""

    time: float
    configs: Mapping[Vmid, GuestConfig]
    processes: Mapping[Vmid, GuestProcess]
    unreadable: frozenset[Vmid] = frozenset()  # a config is there and could not be read
    outside: tuple[tuple[Cpu, float], ...] = ()  # load that is not ours, in vCPUs: containers


@dataclass(frozen=True, slots=True)
class Inspected:
    """Answer to Inspect: the threads of running guests that are not tracked."""

    time: float
    guests: tuple[tuple[GuestProcess, tuple[Thread, ...]], ...]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Answer to Confine: what was read back."""

    time: float
    confined: Confined


@dataclass(frozen=True, slots=True)
class SetFree:
    """Answer to Undo: what was read back."""

    time: float
    confined: Confined


@dataclass(frozen=True, slots=True)
class Waited:
    """For what share of the time since the last of these some thread of a guest had to wait for a
    CPU; a guest of which that is not known is not in it."""

    time: float
    shares: Mapping[Vmid, float]


@dataclass(frozen=True, slots=True)
class ProcessEnded:
    """A guest's process is gone."""

    time: float
    process: GuestProcess


@dataclass(frozen=True, slots=True)
class HostChanged:
    """Another topology, matrix or set of rules."""

    time: float
    host: Host
    measured: bool = False  # the matrix is a new measurement
    switched: bool = False  # CPUs came or went: the kernel may have changed threads' masks


@dataclass(frozen=True, slots=True)
class MemoryMoved:
    """Answer to MoveMemory, as read back: MiB that came to the nodes, and MiB that are not there;
    why nothing or not all was moved."""

    time: float
    process: GuestProcess
    onto: frozenset[int]
    moved: float
    elsewhere: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ManageChanged:
    """PCA_MANAGE or PCA_MOVE_MEMORY was set anew."""

    time: float
    manage: Manage
    move_memory: bool = False


@dataclass(frozen=True, slots=True)
class ReassignAsked:
    """An administrator wants a guest placed anew, or let go."""

    time: float
    vmid: Vmid
    undo: bool = False


@dataclass(frozen=True, slots=True)
class MovesFound:
    """Answer to LookForMoves: the moves that pay in the state that the question was made from."""

    time: float
    question: Question
    moves: tuple[Move, ...]
    asked: bool = False


@dataclass(frozen=True, slots=True)
class ScopesReached:
    """systemd can be asked to confine scopes."""

    time: float


@dataclass(frozen=True, slots=True)
class ScopesLost:
    """systemd does not answer any more."""

    time: float


@dataclass(frozen=True, slots=True)
class ScopeAppeared:
    """A scope in PVE's slice has a guest's name. `process` is what is proved to be that guest
    now: none, in a true start. `allowed`: the CPUs it was made with, None for no limit."""

    time: float
    vmid: Vmid
    config: GuestConfig | None
    process: GuestProcess | None
    allowed: CpuSet | None = None


@dataclass(frozen=True, slots=True)
class Enclosed:
    """Answer to Enclose: the scope's CPUs as read back, None for no limit, and what went wrong."""

    time: float
    vmid: Vmid
    wanted: CpuSet
    effective: CpuSet | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ScopeRemoved:
    """A guest's scope is gone."""

    time: float
    vmid: Vmid


ScopeEvent = ScopesReached | ScopesLost | ScopeAppeared | Enclosed | ScopeRemoved

Event = (
    HookCalled
    | Scanned
    | Waited
    | Inspected
    | Confirmed
    | SetFree
    | ProcessEnded
    | HostChanged
    | MemoryMoved
    | ManageChanged
    | ReassignAsked
    | MovesFound
    | ScopeEvent
)
