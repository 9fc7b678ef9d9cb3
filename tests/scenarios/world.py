"""A node in memory: guests' files, processes with threads, and a kernel that keeps their masks.

It answers Confine, Undo and Inspect as the kernel would, partial failures included, and knows
nothing of the brain. Out of scope: PVE's programs, sysfs, time.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from proxmox_cpu_affinity.formats.pveconf import guest_config
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess, Thread
from proxmox_cpu_affinity.model.ids import Cpu, Pid, Tid, Vmid
from proxmox_cpu_affinity.model.placement import (
    Confined,
    Confinement,
    Outcome,
    Placement,
    ThreadFault,
)

NODE, ELSEWHERE = "pve1", "pve2"


@dataclass(slots=True)
class _Task:
    """One thread: the mask it was given, of which the kernel shows the CPUs that are online."""

    tid: Tid
    name: str
    mask: CpuSet
    refuses: bool = False  # as io_uring's workers do before Linux 6.4


@dataclass(slots=True)
class _Guest:
    """A guest's file, by key; and its process, if it runs."""

    keys: dict[str, str]
    node: str = NODE
    readable: bool = True


def mask_of(thread: Thread, placement: Placement) -> CpuSet:
    """The mask of a thread: a pinned guest's vCPUs have one CPU each, those of a guest with
    virtual NUMA what their guest node has."""
    if placement.pinned and thread.vcpu is not None and thread.vcpu < len(placement.order):
        return CpuSet.of((placement.order[thread.vcpu],))
    if thread.vcpu is not None and thread.vcpu < len(placement.part_of):
        return placement.spans[placement.part_of[thread.vcpu]]
    return placement.applied


@dataclass(slots=True)
class World:
    """The node. `online` are the CPUs that can run something."""

    online: CpuSet
    guests: dict[Vmid, _Guest] = field(default_factory=dict)
    tasks: dict[GuestProcess, list[_Task]] = field(default_factory=dict)
    mounted: bool = True  # /etc/pve is there
    deaf: bool = False  # systemd does not answer
    containers: dict[Vmid, CpuSet] = field(default_factory=dict)
    drop_ins: dict[Vmid, CpuSet] = field(default_factory=dict)
    scopes: dict[Vmid, CpuSet | None] = field(default_factory=dict)  # and their limit
    _last: int = 1000

    # -- what PVE's files say ----------------------------------------------------------------------

    def configs(self) -> tuple[dict[Vmid, GuestConfig], frozenset[Vmid]]:
        here = {vmid: guest for vmid, guest in self.guests.items() if guest.node == NODE}
        bad = frozenset(vmid for vmid, guest in here.items() if not guest.readable)
        return {v: self._parsed(v, g) for v, g in sorted(here.items()) if v not in bad}, bad

    def config(self, vmid: Vmid) -> GuestConfig | None:
        guest = self.guests.get(vmid)
        return self._parsed(vmid, guest) if guest is not None and guest.readable else None

    @staticmethod
    def _parsed(vmid: Vmid, guest: _Guest) -> GuestConfig:
        text = "".join(f"{key}: {value}\n" for key, value in guest.keys.items())
        return guest_config(text, vmid=vmid, node=guest.node)

    def processes(self) -> dict[Vmid, GuestProcess]:
        return {process.vmid: process for process in self.tasks}

    def process(self, vmid: Vmid) -> GuestProcess | None:
        return self.processes().get(vmid)

    def outside(self) -> tuple[tuple[Cpu, float], ...]:
        load = Counter(cpu for cpus in self.containers.values() for cpu in cpus)
        return tuple((cpu, float(count)) for cpu, count in sorted(load.items()))

    # -- what happens ------------------------------------------------------------------------------

    def write(self, vmid: Vmid, lines: Iterable[str]) -> None:
        pairs = (line.partition(":") for line in lines)
        self.guests[vmid] = _Guest({key: value.strip() for key, _, value in pairs})

    def run(self, vmid: Vmid, *, vcpus: int | None = None) -> GuestProcess:
        """QEMU comes up, with every CPU to run on."""
        config = self.config(vmid)
        count = vcpus or (config.vcpu_count if config is not None else 1)
        process = GuestProcess(vmid, Pid(self._number()), self._last * 100)
        self.tasks[process] = []
        names = ("kvm", "call_rcu", *(f"CPU {i}/KVM" for i in range(count)))
        for name in names:
            self.spawn(process, name)
        return process

    def spawn(self, process: GuestProcess, name: str) -> None:
        """A thread is born with the mask of the first one."""
        tasks = self.tasks[process]
        mask = tasks[0].mask if tasks else self.scopes.get(process.vmid) or self.online
        tid = Tid(self._number()) if tasks else Tid(process.pid)
        tasks.append(_Task(tid, name, mask))

    def exit(self, process: GuestProcess, name: str) -> None:
        self.tasks[process] = [task for task in self.tasks[process] if task.name != name]

    def refuse(self, process: GuestProcess, name: str) -> None:
        for task in self.tasks[process]:
            task.refuses = task.refuses or task.name == name

    def drift(self, process: GuestProcess, cpus: CpuSet) -> None:
        """Somebody else changes all masks."""
        for task in self.tasks[process]:
            task.mask = cpus

    def switch(self, online: CpuSet) -> None:
        """CPUs go on and off. A thread without any gets all, and keeps them (sched(7))."""
        self.online = online
        for tasks in self.tasks.values():
            for task in tasks:
                if not task.mask.overlaps(online):
                    task.mask = CpuSet((1 << 64) - 1)

    # -- systemd -----------------------------------------------------------------------------------

    def open_scope(self, vmid: Vmid) -> CpuSet | None:
        """PVE makes the guest's scope, by its drop-in."""
        self.scopes[vmid] = self.drop_ins.get(vmid)
        return self.scopes[vmid]

    def enclose(self, vmid: Vmid, cpus: CpuSet) -> CpuSet | None:
        if vmid not in self.scopes or self.deaf:
            return None
        self.scopes[vmid] = cpus
        return cpus & self.online

    def _number(self) -> int:
        self._last += 1
        return self._last

    # -- what the service asks for -----------------------------------------------------------------

    def threads(self, process: GuestProcess) -> tuple[Thread, ...]:
        return tuple(
            Thread(task.tid, task.name, task.mask & self.online)
            for task in self.tasks.get(process, ())
        )

    def confine(self, process: GuestProcess, placement: Placement) -> Confined:
        masks = {t.tid: mask_of(t, placement) for t in self.threads(process)}
        done = self._given(process, masks, placement.applied, Confinement.THREADS)
        return replace(done, limit=self.scopes.get(process.vmid))

    def undo(self, process: GuestProcess, found: Mapping[Tid, CpuSet], free: CpuSet) -> Confined:
        masks = {task.tid: found.get(task.tid, free) for task in self.tasks.get(process, ())}
        return self._given(process, masks, free, Confinement.NONE)

    def _given(
        self,
        process: GuestProcess,
        masks: Mapping[Tid, CpuSet],
        target: CpuSet,
        confinement: Confinement,
    ) -> Confined:
        if process not in self.tasks or self.deaf:
            gone, deaf = "no process is proved to be this guest", "systemd does not answer"
            fault = ThreadFault(Tid(process.pid), "scope", deaf if self.deaf else gone)
            return Confined(process, target, Outcome.FAILED, Confinement.NONE, 0, (fault,))
        before = self.threads(process)
        for task in self.tasks[process]:
            if not task.refuses and masks[task.tid].overlaps(self.online):
                task.mask = masks[task.tid]
        after = self.threads(process)
        faults = tuple(
            ThreadFault(thread.tid, thread.name, "Invalid argument")
            for thread in after
            if thread.affinity != masks[thread.tid]
        )
        some = Outcome.FAILED if len(faults) == len(after) else Outcome.PART
        return Confined(
            process=process,
            wanted=target,
            outcome=some if faults else Outcome.FULL,
            confinement=confinement,
            threads=len(after),
            faults=faults,
            found=tuple((thread.tid, thread.affinity) for thread in before),
        )

    def moved_to(self, vmid: Vmid, node: str) -> None:
        """The guest's file goes to another node's folder, as at the end of a migration."""
        self.guests[vmid] = replace(self.guests[vmid], node=node)
