"""The threads of a process, as the kernel shows them, and CPUs that this process may use.

Masks are read by sched_getaffinity(2): one call a thread, where /proc would be a file to open,
read and parse. They are the real kernel's even where /proc hangs below another root.
"""

import os
from collections.abc import Iterator

from proxmox_cpu_affinity.formats import procfs
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import RefusedError, SyntaxFault
from proxmox_cpu_affinity.model.guest import Thread
from proxmox_cpu_affinity.model.ids import Pid, Tid


def own_cpus() -> CpuSet:
    """CPUs that this process may be run on. RefusedError where the kernel does not say."""
    try:
        return CpuSet.of(os.sched_getaffinity(0))
    except OSError as error:
        text = f"which CPUs this process may run on cannot be read: {error.strerror or error}"
        raise RefusedError(text, hint="see: journalctl --dmesg") from error


def stat_of(tree: Tree, pid: Pid) -> procfs.Stat | None:
    """A live process's stat; None where it is gone or a zombie."""
    text = tree.text(f"proc/{pid}/stat")
    if text is None:
        return None
    try:
        found = procfs.stat(text)
    except SyntaxFault:
        return None
    return None if found.state in "ZX" else found


def tids_of(tree: Tree, pid: Pid) -> tuple[Tid, ...]:
    """Thread ids of a process, ascending; empty where it is gone."""
    return tuple(sorted(Tid(int(n)) for n in tree.listing(f"proc/{pid}/task") if n.isdigit()))


def children_of(tree: Tree, pid: Pid) -> tuple[Pid, ...]:
    """Direct children of all threads of a process (needs CONFIG_PROC_CHILDREN, as Debian has)."""
    return tuple(
        Pid(child)
        for tid in tids_of(tree, pid)
        for child in procfs.tids(tree.text(f"proc/{pid}/task/{tid}/children") or "")
    )


def family_of(tree: Tree, pid: Pid) -> Iterator[Pid]:
    """A process and everything below it."""
    yield pid
    for child in children_of(tree, pid):
        yield from family_of(tree, child)


def affinity_of(tid: Tid) -> CpuSet | None:
    """A thread's mask; None where it is gone."""
    try:
        return CpuSet.of(os.sched_getaffinity(tid))
    except ProcessLookupError:
        return None


def threads_of(tree: Tree, pid: Pid) -> tuple[Thread, ...]:
    """The threads of one process with names, masks and the CPUs they ran on last."""
    found = []
    for tid in tids_of(tree, pid):
        affinity = affinity_of(tid)
        text = tree.text(f"proc/{pid}/task/{tid}/stat")
        if affinity is None or text is None:
            continue
        try:
            seen = procfs.stat(text)
        except SyntaxFault:
            continue
        found.append(Thread(tid, seen.comm, affinity, seen.last_cpu))
    return tuple(found)
