"""The kernel's files that tell of CPUs and nodes: where they are, what one of them says, and what
was odd about them.

Paths are without the root: `sys/devices/system/cpu/cpu3/topology/core_id`. What the files hold is
said in the kernel's Documentation/ABI/stable/sysfs-devices-system-cpu and -node. Reading them is
linux.tree's work; what they say together, that of formats.sysfs.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault

CPU_DIR = "sys/devices/system/cpu"
NODE_DIR = "sys/devices/system/node"
HYPERVISOR = "sys/hypervisor/type"
MASK_FILES = tuple(f"{CPU_DIR}/{name}" for name in ("possible", "present", "online", "isolated"))
# The PMUs of hybrid x86 processors list the CPUs of each kind; other hosts have none of them.
KIND_FILES = tuple(f"sys/devices/{name}/cpus" for name in ("cpu_core", "cpu_atom", "cpu_lowpower"))
NODE_FILES = ("cpulist", "distance")

_CPU_FILE = re.compile(rf"{CPU_DIR}/cpu(0|[1-9][0-9]{{0,4}})/(cache/index[0-9]+/level)?")
_NODE_FILE = re.compile(rf"{NODE_DIR}/node(0|[1-9][0-9]{{0,4}})/")
_MEM_TOTAL = re.compile(r"^.*\bMemTotal:\s*([0-9]{1,18}) kB", re.MULTILINE)
_CPUS = {False: "CPU ", True: "CPUs "}  # how a note of one CPU begins, and one of several
_SIGNED = re.compile(r"-?[0-9]{1,10}")


def cpulist_or_none(text: str | None) -> CpuSet | None:
    """The set a kernel file spells; None for a missing or malformed one.

    `(null)` is empty: what the kernel prints for a mask that was never allocated (nohz_full).
    """
    return None if text is None else _cpulist(text.strip())


def reduced_meminfo(text: str) -> str:
    """The MemTotal line of a node's meminfo: all the others change every second."""
    match = _MEM_TOTAL.search(text)
    return match[0] if match else ""


@lru_cache(maxsize=4096)
def _cpulist(text: str) -> CpuSet | None:
    try:
        return EMPTY if text == "(null)" else CpuSet.parse(text)
    except SyntaxFault:
        return None


@dataclass(slots=True)
class HostFiles:
    """The files of one host, path to text, and notes of what was odd about them: one for each kind
    of oddity."""

    files: Mapping[str, str]
    notes: list[str] = field(default_factory=list)
    odd: dict[str, int] = field(default_factory=dict)  # what is odd -> mask of the CPUs

    def note(self, text: str) -> None:
        self.notes.append(text)

    def note_of(self, cpu: int, what: str) -> None:
        self.odd[what] = self.odd.get(what, 0) | 1 << cpu

    def all_notes(self) -> tuple[str, ...]:
        """Those of CPUs begin with their numbers: see noted."""
        of_cpus = ((CpuSet(mask), what) for what, mask in self.odd.items())
        return (*self.notes, *(f"{_CPUS[len(c) > 1]}{c}: {what}" for c, what in of_cpus))

    def cpus(self) -> CpuSet:
        """The CPUs that have files of their own."""
        return CpuSet.of(int(m[1]) for m in map(_CPU_FILE.match, self.files) if m)

    def nodes(self) -> list[int]:
        """The numbers of the NUMA nodes that have files, ascending."""
        return sorted({int(m[1]) for m in map(_NODE_FILE.match, self.files) if m})

    def caches(self) -> dict[int, list[str]]:
        """The folders of each CPU's caches. O(files)."""
        found: dict[int, list[str]] = {}
        for path in self.files:
            match = _CPU_FILE.match(path)
            if match and match[2]:
                found.setdefault(int(match[1]), []).append(path.removesuffix("/level"))
        return found

    def mask(self, name: str) -> CpuSet | None:
        """One of the kernel's CPU masks; None, with a note, for what is no cpulist."""
        text = self.files.get(f"{CPU_DIR}/{name}")
        cpus = cpulist_or_none(text)
        if cpus is None and text is not None:
            self.note(f"/{CPU_DIR}/{name} is no cpulist: treated as missing")
        return cpus

    def own_list(self, cpu: int, path: str) -> CpuSet | None:
        """A cpulist of one CPU, which must name that CPU itself."""
        text = self.files.get(path)
        cpus = cpulist_or_none(text)
        if text is not None and (cpus is None or cpu not in cpus):
            name = path.rpartition("/")[2]
            self.note_of(cpu, f"{name} is no list that names the CPU: treated as missing")
            return None
        return cpus

    def text(self, path: str) -> str:
        """What a file holds without the blanks around; empty for a missing one."""
        return self.files.get(path, "").strip()

    def number(self, path: str) -> int | None:
        """The number a file holds, None for anything else."""
        text = self.text(path)
        return int(text) if _SIGNED.fullmatch(text) else None

    def memory_mib(self, node: int) -> int | None:
        """MiB of memory that a node has, None where its meminfo does not say."""
        match = _MEM_TOTAL.search(self.text(f"{NODE_DIR}/node{node}/meminfo"))
        return int(match[1]) // 1024 if match else None


def noted(notes: Iterable[str], what: str) -> CpuSet:
    """The CPUs of which some of these notes, as all_notes makes them, say just that."""
    found = EMPTY
    for note in notes:
        cpus, colon, said = note.partition(": ")
        if colon and said == what:
            found |= CpuSet.parse(cpus.removeprefix(_CPUS[True]).removeprefix(_CPUS[False]))
    return found
