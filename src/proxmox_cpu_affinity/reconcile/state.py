"""What the brain remembers: the host, the guests it answers for, whose turn it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from proxmox_cpu_affinity.engine.facts import Host, Occupancy, Turn
from proxmox_cpu_affinity.engine.rebalance import Ration
from proxmox_cpu_affinity.engine.report import Reporter
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess, Manage, Policy
from proxmox_cpu_affinity.model.ids import Cpu, Tid, Vmid
from proxmox_cpu_affinity.model.placement import Confined, Held, Placement
from proxmox_cpu_affinity.reconcile.actions import Action
from proxmox_cpu_affinity.reconcile.strain import Strain

RESERVED_FOR = 120.0
"""Seconds that a placement is kept for a guest which was announced and has not appeared."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """A guest that has a placement: reserved for a start under way, or running."""

    placement: Placement
    process: GuestProcess | None = None  # None: announced, not seen yet
    since: float = 0.0  # when it was announced, or its process first seen
    confined: Confined | None = None  # what was last read back
    # Masks before we changed any, to undo; None: not looked yet; threads that are not in it had
    # all CPUs, or nobody knows what they had.
    found: tuple[tuple[Tid, CpuSet], ...] | None = None
    decision: Decision | None = None  # None for a guest that was adopted
    void: bool = False  # round-robin: measured anew since, so its next start selects anew
    held: Held | None = None  # None: nothing of this start has been seen yet
    policy: Policy = Policy.SHARED  # what its tags said when it was placed
    confined_at: float | None = None  # when this run was first held as wanted; None: not known
    drift: int = 0  # how often threads of it were found elsewhere and put back

    @property
    def running(self) -> bool:
        return self.process is not None


@dataclass(frozen=True, slots=True)
class Leaving:
    """A run that is to be held no more, until that is read back."""

    process: GuestProcess
    found: tuple[tuple[Tid, CpuSet], ...]  # as in Tracked
    told: bool = False  # that it failed


@dataclass(frozen=True, slots=True)
class State:
    """Everything step() needs beside the event. Occupancy is derived, never kept."""

    host: Host
    manage: Manage = Manage.TAG
    configs: Mapping[Vmid, GuestConfig] = field(default_factory=dict)
    tracked: Mapping[Vmid, Tracked] = field(default_factory=dict)
    released: frozenset[Vmid] = frozenset()  # undone by hand: left alone until the next start
    # The runs in which these were let go; not known of one that was before the service.
    released_runs: Mapping[Vmid, GuestProcess] = field(default_factory=dict)
    leaving: Mapping[Vmid, Leaving] = field(default_factory=dict)
    refused: Mapping[Vmid, str] = field(default_factory=dict)  # why a guest has no placement
    last_places: Mapping[Vmid, CpuSet] = field(default_factory=dict)  # of stopped guests
    turn: Turn = field(default_factory=Turn)
    ration: Ration = field(default_factory=Ration)  # of moves that nobody asks for
    adopt: bool = False  # the state was lost: believe the masks of running guests, once
    outside: tuple[tuple[Cpu, float], ...] = ()  # load that is not ours, in vCPUs
    wide: Mapping[CpuSet, float] = field(default_factory=dict)  # cache groups; when last shared
    strain: Mapping[Vmid, Strain] = field(default_factory=dict)  # of guests that float
    move_memory: bool = False  # memory follows a guest to another node
    scopes: bool = False  # systemd can be asked to confine guests' scopes

    def managed(self, vmid: Vmid) -> bool:
        config = self.configs.get(vmid)
        return config is not None and config.exclusion(self.manage) is None

    def excluded(self, vmid: Vmid) -> bool:
        """Known not to be ours. A guest whose configuration cannot be found is not."""
        return vmid in self.configs and not self.managed(vmid)

    def left_alone(self, process: GuestProcess) -> bool:
        """Whether this run of a guest was let go by hand."""
        vmid = process.vmid
        return vmid in self.released and self.released_runs.get(vmid, process) == process

    def occupancy(self) -> Occupancy:
        """Who holds which CPU now, and how many vCPUs all configured, managed guests have."""
        expected = sum(
            config.vcpu_count for vmid, config in self.configs.items() if self.managed(vmid)
        )
        placements = tuple(t.placement for t in self.tracked.values())
        return Occupancy(placements, expected, self.outside)

    def astray(self) -> frozenset[Vmid]:
        """Guests whose CPUs went offline while nobody looked: before the service began."""
        online = self.host.topology.online
        return frozenset(v for v, t in self.tracked.items() if not t.placement.home <= online)

    @property
    def strained(self) -> frozenset[Vmid]:
        """The guests that have their nodes, because they waited for CPUs."""
        return frozenset(vmid for vmid, strain in self.strain.items() if strain.wide)

    def reporter(self) -> Reporter:
        """Says what guests were given, and why."""
        return Reporter.of(self.host, self.occupancy(), self.wide.keys(), self.strained)

    def drop_ins(self) -> Mapping[Vmid, CpuSet]:
        """The drop-ins that have to stand, with their CPUs: of starts of which nothing was seen
        yet. One that stands longer breaks a later start."""
        if not self.scopes:
            return {}
        return {
            vmid: t.placement.applied
            for vmid, t in self.tracked.items()
            if t.process is None and t.held is None
        }

    def with_tracked(self, vmid: Vmid, tracked: Tracked) -> "State":
        return replace(self, tracked={**self.tracked, vmid: tracked})

    def without_tracked(self, vmid: Vmid) -> "State":
        """Forget a guest's placement; its place is remembered for its next start."""
        tracked = self.tracked.get(vmid)
        if tracked is None:
            return self
        place = {} if tracked.void else {vmid: tracked.placement.home}
        return replace(
            self,
            tracked={v: t for v, t in self.tracked.items() if v != vmid},
            last_places={**self.last_places, **place},
        )

    def without_selections(self) -> "State":
        """Forget where guests were; those that have a placement keep it until they stop."""
        tracked = {v: replace(t, void=True) for v, t in self.tracked.items()}
        return replace(self, tracked=tracked, last_places={})

    def with_released(self, process: GuestProcess) -> "State":
        """This run of a guest was let go by hand."""
        return replace(
            self,
            released=self.released | {process.vmid},
            released_runs={**self.released_runs, process.vmid: process},
        )

    def without_released(self, vmid: Vmid) -> "State":
        return replace(
            self,
            released=self.released - {vmid},
            released_runs={v: p for v, p in self.released_runs.items() if v != vmid},
        )

    def without_leaving(self, vmid: Vmid) -> "State":
        return replace(self, leaving={v: one for v, one in self.leaving.items() if v != vmid})

    def without_refusal(self, vmid: Vmid) -> "State":
        return replace(self, refused={v: t for v, t in self.refused.items() if v != vmid})


Result = tuple[State, tuple[Action, ...]]
"""What a step gives: the next state, and what is to be done, in this order."""
