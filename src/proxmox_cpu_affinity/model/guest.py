"""Guests: what their configuration says, the process that runs, its threads, what is asked for."""

import re
from dataclasses import dataclass, field
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
HOOK_FILE = "proxmox-cpu-affinity-hook"


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
    affinity: str | None = None
    hookscript: str | None = None
    tags: tuple[str, ...] = ()
    template: bool = False
    lock: str = ""
    hotplug_cpu: bool = False

    @property
    def vcpu_count(self) -> int:
        """vCPUs the guest starts with: `vcpus` if set (never above cores * sockets), else those."""
        most = self.cores * self.sockets
        return most if self.vcpus is None else min(self.vcpus, most)

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
    guest_nodes: int = 1  # virtual NUMA nodes, each to be put on one host node
    previous: CpuSet | None = None  # where it was last: kept if nothing better appeared
    warnings: tuple[str, ...] = field(default=())
