"""Confinement by thread masks: sched_setaffinity(2) on every thread of a guest and its children.

Used where there is no systemd scope to confine. Threads come and go meanwhile: rounds are made
until one finds nothing left to do, and the outcome is what the last reading says.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from proxmox_cpu_affinity.linux.threads import affinity_of, family_of, own_cpus, tids_of
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.guest import GuestProcess, Thread
from proxmox_cpu_affinity.model.ids import Tid
from proxmox_cpu_affinity.model.placement import (
    Confined,
    Confinement,
    Outcome,
    Placement,
    ThreadFault,
)

ROUNDS = 5  # more would mean a guest that starts threads faster than they can be counted


@dataclass(slots=True)
class _Pass:
    """What is learned on the way through the threads."""

    found: dict[Tid, CpuSet] = field(default_factory=dict)
    refused: dict[Tid, str] = field(default_factory=dict)
    changed: int = 0


@dataclass(frozen=True, slots=True)
class ThreadMasks:
    """Holds guests on CPUs thread by thread. `proven` looks again whether a process is the guest
    it is taken for: nothing is changed where it says no."""

    tree: Tree
    proven: Callable[[GuestProcess], bool]

    def confine(self, process: GuestProcess, placement: Placement) -> Confined:
        """Give every thread the placement's CPUs; vCPU threads of pinned guests their own, those
        of guests with virtual NUMA their guest node's."""

        def wanted(thread: Thread) -> CpuSet:
            return placement.mask_of(thread.vcpu)

        return self._apply(process, wanted, placement.applied, Confinement.THREADS)

    def undo(self, process: GuestProcess, found: Mapping[Tid, CpuSet], free: CpuSet) -> Confined:
        """Give every thread the mask it had before, as far as its CPUs are still online (`free`);
        all others get `free`, as far as this process's own cpuset goes."""
        online, free = free, free & own_cpus() or free

        def wanted(thread: Thread) -> CpuSet:
            return found.get(thread.tid, EMPTY) & online or free

        return self._apply(process, wanted, free, Confinement.NONE)

    def found(self, process: GuestProcess) -> tuple[tuple[Tid, CpuSet], ...]:
        """The masks as they are now, to be put back later."""
        return tuple((thread.tid, thread.affinity) for thread in self.threads(process))

    def threads(self, process: GuestProcess) -> tuple[Thread, ...]:
        """The threads of the guest and its children with their masks."""
        return tuple(
            Thread(tid, self._name(tid), mask)
            for pid in family_of(self.tree, process.pid)
            for tid in tids_of(self.tree, pid)
            if (mask := affinity_of(tid)) is not None
        )

    def _name(self, tid: Tid) -> str:
        return (self.tree.text(f"proc/{tid}/comm") or "").rstrip("\n")

    def _apply(
        self,
        process: GuestProcess,
        wanted: Callable[[Thread], CpuSet],
        target: CpuSet,
        confinement: Confinement,
    ) -> Confined:
        if not self.proven(process):
            fault = ThreadFault(Tid(process.pid), "", "no process is proved to be this guest")
            return Confined(process, target, Outcome.FAILED, Confinement.NONE, 0, (fault,))
        done = _Pass()
        for _ in range(ROUNDS):
            before = done.changed
            for thread in self.threads(process):
                self._give(thread, wanted(thread), done)
            if done.changed == before:
                break
        return self._read_back(process, wanted, target, done, confinement)

    @staticmethod
    def _give(thread: Thread, mask: CpuSet, done: _Pass) -> None:
        done.found.setdefault(thread.tid, thread.affinity)
        if thread.affinity == mask or thread.tid in done.refused:
            return
        try:
            os.sched_setaffinity(thread.tid, mask)
            done.changed += 1
        except ProcessLookupError:
            return
        except OSError as error:
            # io_uring workers refuse before Linux 6.4 (EINVAL): one thread's matter, not the end.
            done.refused[thread.tid] = error.strerror or str(error)

    def _read_back(
        self,
        process: GuestProcess,
        wanted: Callable[[Thread], CpuSet],
        target: CpuSet,
        done: _Pass,
        confinement: Confinement,
    ) -> Confined:
        threads = self.threads(process)
        faults = tuple(
            ThreadFault(
                thread.tid,
                thread.name,
                done.refused.get(thread.tid)
                or f"has {thread.affinity or 'no CPU'} in place of {wanted(thread) or EMPTY}",
            )
            for thread in threads
            if thread.affinity != wanted(thread)
        )
        if not threads or len(faults) == len(threads):
            outcome = Outcome.FAILED
        else:
            outcome = Outcome.PART if faults else Outcome.FULL
        return Confined(
            process=process,
            wanted=target,
            outcome=outcome,
            confinement=confinement,
            threads=len(threads),
            faults=faults,
            found=tuple(done.found.items()),
        )
