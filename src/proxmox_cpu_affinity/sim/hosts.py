"""Hosts made from a few numbers, as the files that a kernel would show of them.

A spec is PACKAGESxL3xCORESxTHREADS (packages, cache groups in each, cores in each, threads in
each) and additions, in any order, each after a plus sign:

    +4e              efficiency cores per package: one thread, L2 caches of four, the last L3
    +2lp             low-power cores per package: one thread, L2 caches of two, no L3
    +nodes=4         NUMA nodes per package (default 1): of whole cache groups, or inside of them
    +dies=2          dies per package (default 1)
    +memory=16384    MiB of memory in each node
    +memoryless=1    nodes (a list) that have CPUs and no memory
    +cpuless=1       further nodes that have memory and no CPUs
    +numbering=split the first threads of all cores, then the second ones, as most servers number
                     (default), or `adjacent`, siblings side by side (default on hybrid hosts)
    +gaps=4-7        numbers that no CPU has
    +offline=5,7     CPUs that are offline
    +isolated=2-3    CPUs of the isolcpus parameter
    +nocache         no cache files
    +vm              itself a virtual machine

`2x8x8x2+nodes=4+offline=5`: 256 CPUs, two packages of four nodes each. Latencies are not made
here: latency.predict knows them from the topology.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from proxmox_cpu_affinity.formats.cpuinfo import CPUINFO
from proxmox_cpu_affinity.formats.sysfiles import CPU_DIR, KIND_FILES, NODE_DIR
from proxmox_cpu_affinity.model.cpuset import CPUS_MOST, EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault, UsageError
from proxmox_cpu_affinity.model.topology import NODES_MOST, CoreKind

_HINT = "write it like 2x4x8x2 (packages, cache groups, cores, threads), +nodes=2, +offline=5,7"
_COUNTS = re.compile(r"([0-9]{1,5})x([0-9]{1,5})x([0-9]{1,5})x([0-9]{1,5})")
_EXTRA_CORES = re.compile(r"([0-9]{1,4})(e|lp)")
# Distances as BIOSes of two-package servers tell them: own, same package, other package; a node
# without CPUs is as far as a memory card on PCIe.
_LOCAL, _NEAR, _FAR, _CARD = 10, 12, 32, 24


class Numbering(StrEnum):
    """How SMT siblings are numbered."""

    SPLIT = "split"
    ADJACENT = "adjacent"


@dataclass(frozen=True, slots=True)
class HostSpec:
    """What a host is made of; see the module's text. UsageError where the numbers do not fit."""

    packages: int
    groups: int  # cache groups per package
    cores: int  # cores per cache group
    threads: int  # threads per core
    efficiency: int = 0
    low_power: int = 0
    nodes: int = 1
    dies: int = 1
    memory: int = 16384
    memoryless: CpuSet = EMPTY  # node numbers
    cpuless: int = 0
    numbering: Numbering | None = None
    gaps: CpuSet = EMPTY
    offline: CpuSet = EMPTY
    isolated: CpuSet = EMPTY
    nocache: bool = False
    vm: bool = False

    def __post_init__(self) -> None:
        for name in ("packages", "groups", "cores", "threads", "nodes", "dies"):
            _require(getattr(self, name) >= 1, f"{name}: must be at least 1")
        _require(self.count <= CPUS_MOST, f"{self.count} CPUs: more than {CPUS_MOST}")
        own = self.groups * self.cores
        _require(self.groups % self.dies == 0, f"dies={self.dies}: must divide the cache groups")
        _require(
            self.nodes % self.groups == 0 or self.groups % self.nodes == 0,
            f"nodes={self.nodes}: must divide the cache groups of a package, or be divided by them",
        )
        _require(own % self.nodes == 0, f"nodes={self.nodes}: must divide the cores of a package")
        nodes = self.packages * self.nodes
        _require(nodes + self.cpuless <= NODES_MOST, f"more than {NODES_MOST} nodes")
        _known(self.memoryless, CpuSet.of(range(nodes)), "memoryless: no such node")
        present = self.present()
        _known(self.gaps, CpuSet((1 << present.mask.bit_length()) - 1), "gaps: after the last CPU")
        _known(self.offline, present, "offline: no such CPU")
        _known(self.isolated, present, "isolated: no such CPU")
        _require(self.offline != present, "offline: one CPU must stay online")

    @property
    def count(self) -> int:
        """The number of CPUs, offline ones too."""
        own = self.groups * self.cores * self.threads
        return self.packages * (own + self.efficiency + self.low_power)

    def present(self) -> CpuSet:
        """The numbers of all CPUs: ascending from 0, without the gaps."""
        cpus = CpuSet.of(range(self.count + len(self.gaps))) - self.gaps
        return CpuSet.of(list(cpus)[: self.count])

    def siblings_adjacent(self) -> bool:
        if self.numbering is None:
            return bool(self.efficiency or self.low_power)
        return self.numbering is Numbering.ADJACENT

    def __str__(self) -> str:
        text = f"{self.packages}x{self.groups}x{self.cores}x{self.threads}"
        text += f"+{self.efficiency}e" if self.efficiency else ""
        text += f"+{self.low_power}lp" if self.low_power else ""
        for name in _VALUES:
            value = getattr(self, name)
            text += f"+{name}={value}" if value != _DEFAULTS[name] else ""
        return text + "".join(f"+{name}" for name in _FLAGS if getattr(self, name))


def parse_spec(text: str) -> HostSpec:
    """The spec a text spells. UsageError naming the part that is wrong."""
    counts, *additions = text.strip().split("+")
    match = _COUNTS.fullmatch(counts)
    if not match:
        raise UsageError(f"{counts!r} is not PACKAGESxL3xCORESxTHREADS", hint=_HINT)
    changes: dict[str, object] = {}
    for addition in additions:
        name, value = _addition(addition)
        if name in changes:
            raise UsageError(f"+{addition}: {name} is given twice", hint=_HINT)
        changes[name] = value
    packages, groups, cores, threads = map(int, match.groups())
    bare = HostSpec(packages, groups, cores, threads)
    return replace(bare, **changes)  # type: ignore[arg-type]  # each is made by its field's parser


def _addition(addition: str) -> tuple[str, object]:
    if match := _EXTRA_CORES.fullmatch(addition):
        return ("efficiency" if match[2] == "e" else "low_power"), int(match[1])
    if addition in _FLAGS:
        return addition, True
    name, sign, value = addition.partition("=")
    if name not in _VALUES or not sign:
        known = ", ".join([*(f"{name}=" for name in _VALUES), *_FLAGS, "4e", "2lp"])
        raise UsageError(f"+{addition} is no addition to a host", hint=f"known are: {known}")
    try:
        return name, _VALUES[name](value)
    except (ValueError, SyntaxFault) as error:
        raise UsageError(f"+{addition}: {error}", hint=_HINT) from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError(f"{text!r} is no number")
    return int(text)


def _numbering(text: str) -> Numbering:
    if text not in tuple(Numbering):  # StrEnum: `in` itself takes texts from 3.12 on
        raise ValueError(f"the numbering is {' or '.join(Numbering)}")
    return Numbering(text)


_VALUES: dict[str, Callable[[str], object]] = {
    "nodes": _number,
    "dies": _number,
    "memory": _number,
    "memoryless": CpuSet.parse,
    "cpuless": _number,
    "numbering": _numbering,
    "gaps": CpuSet.parse,
    "offline": CpuSet.parse,
    "isolated": CpuSet.parse,
}
_FLAGS = ("nocache", "vm")
_DEFAULTS = {field.name: field.default for field in fields(HostSpec)}


@dataclass(frozen=True, slots=True)
class _Core:
    """One core, with what it shares; groups are named by keys that are equal within the group."""

    package: int
    die: int
    core_id: int
    threads: int
    node: int
    l2: tuple[int, ...]
    llc: tuple[int, ...] | None  # None: the L2 cache is the last
    kind: CoreKind = CoreKind.PERFORMANCE


def generate(spec: HostSpec) -> dict[str, str]:
    """The files of this host, path to text, as formats.sysfs.topology reads them."""
    present = spec.present()
    online = present - spec.offline
    cores = tuple(_cores(spec))
    held = [cpus & online for cpus in _numbered(spec, cores)]
    cpuinfo = f"model name\t: Generated {spec}\nmicrocode\t: 0x1"
    return {
        f"{CPU_DIR}/possible": str(present),
        f"{CPU_DIR}/present": str(present),
        f"{CPU_DIR}/online": str(online),
        f"{CPU_DIR}/isolated": str(spec.isolated),
        CPUINFO: cpuinfo + ("\nflags\t: hypervisor" if spec.vm else ""),
        **_kind_files(spec, cores, held),
        **_cpu_files(spec, cores, held),
        **_node_files(spec, cores, held),
    }


def _cores(spec: HostSpec) -> Iterator[_Core]:
    """All cores in the order in which firmware lists them: package, cache group, core."""
    own = spec.groups * spec.cores
    for package in range(spec.packages):
        for i in range(own):
            group = i // spec.cores
            yield _Core(
                package=package,
                die=group * spec.dies // spec.groups,
                core_id=i,
                threads=spec.threads,
                node=package * spec.nodes + i * spec.nodes // own,
                l2=(package, i),
                llc=(package, group),
            )
        for i in range(spec.efficiency + spec.low_power):
            low_power = i >= spec.efficiency
            cluster = spec.efficiency + (i - spec.efficiency) // 2 if low_power else i // 4
            yield _Core(
                package=package,
                die=spec.dies - 1,
                core_id=own + i,
                threads=1,
                node=(package + 1) * spec.nodes - 1,
                l2=(package, own + cluster),
                llc=None if low_power else (package, spec.groups - 1),
                kind=CoreKind.LOW_POWER if low_power else CoreKind.EFFICIENCY,
            )


def _numbered(spec: HostSpec, cores: tuple[_Core, ...]) -> list[CpuSet]:
    """The CPUs of each core."""
    slots = [(thread, i) for i, core in enumerate(cores) for thread in range(core.threads)]
    if not spec.siblings_adjacent():
        slots.sort()
    masks = [0] * len(cores)
    for cpu, (_, i) in zip(spec.present(), slots, strict=True):
        masks[i] |= 1 << cpu
    return [CpuSet(mask) for mask in masks]


def _joined(keys: Iterable[Hashable], held: list[CpuSet]) -> dict[Hashable, CpuSet]:
    """The CPUs of the cores of equal key."""
    groups: dict[Hashable, CpuSet] = {}
    for key, cpus in zip(keys, held, strict=True):
        groups[key] = groups.get(key, EMPTY) | cpus
    return groups


def _kind_files(spec: HostSpec, cores: tuple[_Core, ...], held: list[CpuSet]) -> dict[str, str]:
    if not (spec.efficiency or spec.low_power):
        return {}
    groups = _joined((core.kind for core in cores), held)
    kinds = (CoreKind.PERFORMANCE, CoreKind.EFFICIENCY, CoreKind.LOW_POWER)
    paths = zip(KIND_FILES, kinds, strict=True)
    return {path: str(groups[kind]) for path, kind in paths if kind in groups}


def _cpu_files(spec: HostSpec, cores: tuple[_Core, ...], held: list[CpuSet]) -> dict[str, str]:
    l2_groups = _joined((core.l2 for core in cores), held)
    caches = _joined((core.llc for core in cores), held)
    files: dict[str, str] = {}
    for core, cpus in zip(cores, held, strict=True):
        shown = {
            "topology/physical_package_id": str(core.package),
            "topology/die_id": str(core.die),
            "topology/core_id": str(core.core_id),
            "topology/core_cpus_list": str(cpus),
        }
        if not spec.nocache:
            shown |= _cache_files(2, l2_groups[core.l2])
        if not spec.nocache and core.llc is not None:
            shown |= _cache_files(3, caches[core.llc])
        for cpu in cpus:
            files |= {f"{CPU_DIR}/cpu{cpu}/{name}": text for name, text in shown.items()}
    return files


def _cache_files(level: int, cpus: CpuSet) -> dict[str, str]:
    """A unified cache; index 0 and 1 are the two caches of level 1, which nothing here needs."""
    folder = f"cache/index{level}"
    return {
        f"{folder}/level": str(level),
        f"{folder}/type": "Unified",
        f"{folder}/shared_cpu_list": str(cpus),
    }


def _node_files(spec: HostSpec, cores: tuple[_Core, ...], held: list[CpuSet]) -> dict[str, str]:
    groups = _joined((core.node for core in cores), held)
    count = spec.packages * spec.nodes + spec.cpuless
    files: dict[str, str] = {}
    for node in range(count):
        kib = 0 if node in spec.memoryless else spec.memory * 1024
        folder = f"{NODE_DIR}/node{node}"
        files[f"{folder}/cpulist"] = str(groups.get(node, EMPTY))
        distances = (_distance(spec, node, other) for other in range(count))
        files[f"{folder}/distance"] = " ".join(map(str, distances))
        files[f"{folder}/meminfo"] = f"Node {node} MemTotal: {kib} kB"
    return files


def _distance(spec: HostSpec, node: int, other: int) -> int:
    if node == other:
        return _LOCAL
    if max(node, other) >= spec.packages * spec.nodes:
        return _CARD
    return _NEAR if node // spec.nodes == other // spec.nodes else _FAR


def _require(holds: bool, text: str) -> None:  # noqa: FBT001 - an assertion with words
    if not holds:
        raise UsageError(text, hint=_HINT)


def _known(named: CpuSet, there: CpuSet, text: str) -> None:
    _require(named <= there, f"{text}: {named - there}")
