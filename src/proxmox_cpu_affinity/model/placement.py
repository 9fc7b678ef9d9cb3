"""Placements: the CPUs chosen for a guest, and what the kernel says became of them."""

from dataclasses import dataclass
from enum import StrEnum

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import GuestNode, GuestProcess
from proxmox_cpu_affinity.model.ids import Cpu, Tid, Vmid


class Strategy(StrEnum):
    """PCA_STRATEGY: how CPUs are chosen."""

    BALANCED = "balanced"
    ROUND_ROBIN = "round-robin"


class Fallback(StrEnum):
    """PCA_DEDICATED_FALLBACK: what becomes of a dedicated guest for which no CPUs are left."""

    REFUSE = "refuse"
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Weights:
    """What the score charges the average vCPU, as shares of its time (1.0 = 100 %).

    thread: per other vCPU on the same CPU. smt_cross, smt_own: per vCPU of another guest, or of
    its own guest, on the SMT sibling. lat_ns: per ns of mean latency inside the guest. ecore: for
    a vCPU on an efficiency core. The defaults assume a vCPU that is busy a quarter of the time
    and a yield of SMT of 1.3; smt_own is above the measured .12 because a guest's own vCPUs on two
    threads of one core while other cores idle are what exact sets lose most by.
    """

    thread: float = 0.25
    smt_cross: float = 0.15
    smt_own: float = 0.35
    lat_ns: float = 0.002
    ecore: float = 0.40


class Outcome(StrEnum):
    """What confining a guest came to, as read back."""

    FULL = "full"  # every thread runs where it should
    PART = "part"  # some do; the rest is named
    FAILED = "failed"  # none does


class Confinement(StrEnum):
    """By which means a guest is held on its CPUs."""

    NONE = "none"
    THREADS = "threads"  # sched_setaffinity on every thread
    SCOPE = "scope"  # AllowedCPUs of the systemd scope


class Width(StrEnum):
    """PCA_WIDTH: what a guest's threads may use."""

    EXACT = "exact"  # its own CPUs
    DOMAIN = "domain"  # the cache groups these lie in
    AUTO = "auto"  # its own, and a cache group as long as vCPUs share CPUs in it


class Widen(StrEnum):
    """PCA_WIDEN: when a guest that floats is given its NUMA nodes."""

    OFF = "off"
    PRESSURE = "pressure"  # while its threads wait for CPUs


@dataclass(frozen=True, slots=True)
class Widening:
    """When a guest that floats goes beyond its cache groups, and when it comes back. Shares of the
    time in which some thread of it waited for a CPU."""

    when: Widen = Widen.OFF
    above: float = 0.02  # its nodes, if it stays above
    below: float = 0.005  # its cache groups again, if it stays below
    stay: float = 60.0  # seconds; those below get longer for a guest that comes and goes


class Rebalance(StrEnum):
    """PCA_REBALANCE: what happens when moving a guest would pay."""

    OFF = "off"
    ADVISE = "advise"  # it is said
    ON = "on"  # it is done


class Held(StrEnum):
    """From when on a guest's run was held on its CPUs."""

    BIRTH = "first instruction"  # its scope was made with the limit already in it
    SCOPE = "scope"  # as soon as its scope had appeared
    LATER = "later"  # it ran already when it was found


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a guest belongs.

    `home` are the n CPUs chosen for it, which count as held; `applied` is what its threads may
    use (equal to home at width exact); `order` gives vCPU i the CPU order[i]; `parts` are the
    CPUs of each guest node (one part without virtual NUMA). With virtual NUMA `part_of` says to
    which part each vCPU belongs, and `spans` what the vCPU threads of each part may use.
    """

    vmid: Vmid
    home: CpuSet
    applied: CpuSet
    order: tuple[Cpu, ...]
    start: Cpu  # the starting CPU, whose near neighbours the others are
    parts: tuple[CpuSet, ...] = ()
    exclusive: bool = False  # nobody else on these CPUs nor on their siblings
    pinned: bool = False  # each vCPU thread on its own CPU of the set
    warnings: tuple[str, ...] = ()
    part_of: tuple[int, ...] = ()  # of each vCPU an index into parts; empty without virtual NUMA
    spans: tuple[CpuSet, ...] = ()  # like parts: these, or wider

    @property
    def guest_nodes(self) -> tuple[GuestNode, ...]:
        """The guest's nodes as they were when it was placed; empty without virtual NUMA."""
        nodes = ([v for v, k in enumerate(self.part_of) if k == i] for i in range(len(self.parts)))
        return tuple(GuestNode(tuple(vcpus)) for vcpus in nodes if vcpus)

    def mask_of(self, vcpu: int | None) -> CpuSet:
        """What a thread may use, by the vCPU that it runs; None for QEMU's other threads."""
        if vcpu is not None and self.pinned and vcpu < len(self.order):
            return CpuSet.of((self.order[vcpu],))
        if vcpu is not None and vcpu < len(self.part_of):
            return self.spans[self.part_of[vcpu]]
        return self.applied

    @property
    def masks(self) -> frozenset[CpuSet]:
        """All masks that threads of the guest have."""
        return frozenset((self.applied, *(self.mask_of(v) for v in range(len(self.order)))))


@dataclass(frozen=True, slots=True)
class ThreadFault:
    """A thread that could not be given its mask, or was read back with another."""

    tid: Tid
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Confined:
    """What was read back after a guest was confined (or set free)."""

    process: GuestProcess
    wanted: CpuSet
    outcome: Outcome
    confinement: Confinement
    threads: int  # threads seen in the last reading
    faults: tuple[ThreadFault, ...] = ()
    found: tuple[tuple[Tid, CpuSet], ...] = ()  # masks before anything was changed
    limit: CpuSet | None = None  # the scope's own before; None where it had none, or no scope
