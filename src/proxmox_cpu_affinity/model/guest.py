"""Guests: what their configuration says, the process that runs, its threads, what is asked for."""

import re
from dataclasses import dataclass
from enum import StrEnum

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Cpu, Pid, Tid, Vmid

_VCPU_NAME = re.compile(r"CPU ([0-9]{1,5})/(?:KVM|TCG)")


class Policy(StrEnum):
    """What a guest wants of its CPUs; the values are the tags without their `cpu-` prefix."""

    SHARED = "shared"
    DEDICATED = "dedicated"
    PINNED = "pinned"
    PERFORMANCE = "performance"
    EFFICIENCY = "efficiency"


class Manage(StrEnum):
    """PCA_MANAGE: which guests are ours."""

    HOOK = "hook"
    TAG = "tag"
    ALL = "all"


class Exclusion(StrEnum):
    """Why a guest is not managed."""

    TEMPLATE = "template"
    AFFINITY = "affinity"
    TAG_OFF = "tag cpu-affinity-off"
    NOT_CHOSEN = "not chosen"


TAG_ON, TAG_OFF = "cpu-affinity", "cpu-affinity-off"
VCPUS_MOST = 8192
"""A guest of more cannot start, whatever its configuration says: it may ask for any number."""
HOOK_FILE = "proxmox-cpu-affinity-hook"


@dataclass(frozen=True, slots=True)
class GuestNode:
    """A NUMA node that a guest sees: its vCPUs, ascending, and the host's nodes that it may lie
    on by its configuration (none: any)."""

    vcpus: tuple[int, ...]
    hosts: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """The facts of a guest's main section that decide about its CPUs.

    `affinity` is the text of the `affinity:` key, kept as typed (None: no such key): its presence
    alone makes the guest foreign, whatever PVE thinks of the value.
    """

    vmid: Vmid
    node: str = ""  # the node's folder that the file lies in
    name: str = ""
    cores: int = 1
    sockets: int = 1
    vcpus: int | None = None
    numa: bool = False
    nodes: tuple[GuestNode, ...] = ()  # of all cores * sockets; empty where the guest sees one
    affinity: str | None = None
    hookscript: str | None = None
    tags: tuple[str, ...] = ()
    template: bool = False
    lock: str = ""
    hotplug_cpu: bool = False

    @property
    def vcpu_count(self) -> int:
        """vCPUs the guest starts with: `vcpus` if set (never above cores * sockets), else those;
        VCPUS_MOST at most."""
        most = min(self.cores * self.sockets, VCPUS_MOST)
        return most if self.vcpus is None else min(self.vcpus, most)

    @property
    def guest_nodes(self) -> tuple[GuestNode, ...]:
        """The guest's nodes with the vCPUs that it runs; empty where one that may lie on any host
        node has them all."""
        return running_nodes(self.nodes, self.vcpu_count)

    @property
    def has_hook(self) -> bool:
        """Whether the hookscript is ours: the volume's file name is, on whatever storage."""
        return self.hookscript is not None and self.hookscript.rpartition("/")[2] == HOOK_FILE

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies its tags name, in the order of the enumeration."""
        return tuple(policy for policy in Policy if f"cpu-{policy}" in self.tags)

    @property
    def policy(self) -> Policy:
        """The policy in force: the one its tags name; shared for none and for more than one."""
        named = self.policies
        return named[0] if len(named) == 1 else Policy.SHARED

    def exclusion(self, manage: Manage) -> Exclusion | None:
        """Why this guest is not managed, None if it is.

        Precedence: template, `affinity:`, tag cpu-affinity-off, then what PCA_MANAGE chooses.
        """
        if self.template:
            return Exclusion.TEMPLATE
        if self.affinity is not None:
            return Exclusion.AFFINITY
        if TAG_OFF in self.tags:
            return Exclusion.TAG_OFF
        return None if self.chosen_by(manage) else Exclusion.NOT_CHOSEN

    def chosen_by(self, manage: Manage) -> Manage | None:
        """What makes a guest ours, the narrowest first: its hookscript, its tag, PCA_MANAGE=all."""
        if self.has_hook:
            return Manage.HOOK
        if manage is not Manage.HOOK and TAG_ON in self.tags:
            return Manage.TAG
        return Manage.ALL if manage is Manage.ALL else None


@dataclass(frozen=True, slots=True)
class GuestProcess:
    """A QEMU process proved to be a guest's; (pid, start_time) names it for ever."""

    vmid: Vmid
    pid: Pid
    start_time: int  # clock ticks after boot: field 22 of /proc/PID/stat


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread as the kernel shows it."""

    tid: Tid
    name: str
    affinity: CpuSet
    last_cpu: Cpu | None = None  # the CPU it ran on last

    @property
    def vcpu(self) -> int | None:
        """The vCPU that this thread runs, by its name; None for QEMU's other threads."""
        match = _VCPU_NAME.fullmatch(self.name)
        return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class Request:
    """The shape wanted for a guest."""

    vmid: Vmid
    vcpus: int
    policy: Policy = Policy.SHARED
    guest_nodes: tuple[GuestNode, ...] = ()  # each to be put on one host node; none: no such wish
    previous: CpuSet | None = None  # where it was last: kept if nothing better appeared
    previous_parts: tuple[CpuSet, ...] = ()  # the same of each guest node, if it runs
    warnings: tuple[str, ...] = ()


def socket_nodes(cores: int, sockets: int) -> tuple[GuestNode, ...]:
    """The nodes of a guest with `numa: 1`: one for each of its sockets, in order."""
    starts = range(0, cores * sockets, cores)
    return tuple(GuestNode(tuple(range(start, start + cores))) for start in starts)


def described(
    vmid: Vmid, vcpus: int, *, sockets: int = 1, numa: bool = False, tags: tuple[str, ...] = ()
) -> GuestConfig:
    """The configuration of a guest of that many vCPUs; the last socket may have some less."""
    cores = -(-vcpus // sockets)
    return GuestConfig(
        vmid,
        cores=cores,
        sockets=sockets,
        vcpus=vcpus,
        numa=numa,
        nodes=socket_nodes(cores, sockets) if numa and sockets > 1 else (),
        tags=tags,
    )


def running_nodes(nodes: tuple[GuestNode, ...], vcpus: int) -> tuple[GuestNode, ...]:
    """Of these nodes those that have some of the first `vcpus` vCPUs; none where one has all, and
    may lie on any host node.

    vCPUs that no node names belong to the first, as QEMU has it (hw/core/numa.c).
    """
    if not nodes:
        return ()
    named = {vcpu for node in nodes for vcpu in node.vcpus}
    loose = tuple(vcpu for vcpu in range(vcpus) if vcpu not in named)
    found = []
    for node in nodes:
        first = loose if node is nodes[0] else ()
        own = sorted({v for v in node.vcpus if v < vcpus}.union(first))
        if own:
            found.append(GuestNode(tuple(own), node.hosts))
    return tuple(found) if len(found) > 1 or (found and found[0].hosts) else ()
