"""Plain `lscpu`: counts of cores, packages and caches, and the CPUs of each node.

It does not say which CPUs share a core or a cache. They are laid out as the kernel numbers most
hosts, and `notes` names every such guess; where the counts allow no even layout it is refused.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from proxmox_cpu_affinity.formats.listed import Listed
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault

_LINE = re.compile(r"\s*([^:]{1,60}?)\s*:\s*(.*?)\s*")
_NODE = re.compile(r"NUMA node([0-9]{1,4}) CPU\(s\)")
_INSTANCES = re.compile(r".*\(([0-9]{1,5}) instances?\)")
_BETTER = "give lscpu -p instead: it names the CPUs of each core and cache"


@dataclass(frozen=True, slots=True)
class Summary:
    """The online CPUs as they are taken to lie, and what was guessed."""

    cpus: tuple[Listed, ...]
    present: CpuSet
    notes: tuple[str, ...]


def fields(lines: Iterable[str]) -> dict[str, str]:
    """The values by name, of several the first."""
    found: dict[str, str] = {}
    for line in lines:
        if match := _LINE.fullmatch(line):
            found.setdefault(match[1], match[2])
    return found


def summary(known: Mapping[str, str]) -> Summary:
    """The host of these values. SyntaxFault where they fit no even layout."""
    online, present = _cpus(known)
    threads = _count(known, "Thread(s) per core")
    nodes = _nodes(known, online)
    notes: list[str] = []
    cores: list[tuple[int | None, CpuSet]] = []
    for node, cpus in nodes.items():
        cores += [(node, core) for core in _cores(cpus, threads, several=len(nodes) > 1)]
    if threads > 1:
        notes.append(
            f"lscpu does not say which CPUs share a core: taken as {cores[0][1]} and so on"
        )
    packages = _packages(known, list(nodes), len(cores), notes)
    l2 = _caches(known, "L2 cache", len(cores), notes)
    l3 = _caches(known, "L3 cache", len(cores), notes)
    listed = []
    for number, (node, core) in enumerate(cores):
        listed += [
            Listed(cpu, packages[number], number, node, l2[number], l3[number]) for cpu in core
        ]
    return Summary(tuple(listed), present, tuple(notes))


def _cpus(known: Mapping[str, str]) -> tuple[CpuSet, CpuSet]:
    """Those that are online, and all."""
    if "On-line CPU(s) list" not in known:
        raise SyntaxFault(
            "lscpu: it does not say which CPUs are online", hint="run it with LC_ALL=C"
        )
    online = CpuSet.parse(known["On-line CPU(s) list"])
    if not online:
        raise SyntaxFault("lscpu: no CPU is online")
    return online, online | CpuSet.parse(known.get("Off-line CPU(s) list", ""))


def _count(known: Mapping[str, str], name: str) -> int:
    text = known.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text)):
        raise SyntaxFault(f"lscpu: {name!r} is {text[:20]!r}, no number", hint=_BETTER)
    return int(text)


def _nodes(known: Mapping[str, str], online: CpuSet) -> dict[int | None, CpuSet]:
    """The CPUs of each node that has some; all of them together where there are no nodes."""
    found: dict[int | None, CpuSet] = {}
    for name, text in known.items():
        if (match := _NODE.fullmatch(name)) and text:
            found[int(match[1])] = CpuSet.parse(text)
    if not found:
        return {None: online}
    together = CpuSet.of(cpu for cpus in found.values() for cpu in cpus)
    if together != online or sum(map(len, found.values())) != len(online):
        raise SyntaxFault("lscpu: its nodes do not hold each CPU that is online once")
    return found


def _cores(cpus: CpuSet, threads: int, *, several: bool) -> list[CpuSet]:
    """A node's CPUs as cores. Numbers in one run are taken as siblings side by side where there
    are several nodes, since first threads of all cores are numbered first otherwise."""
    numbers = list(cpus)
    if len(numbers) % threads:
        raise SyntaxFault(
            f"lscpu: CPUs {cpus} are no whole cores of {threads} threads each", hint=_BETTER
        )
    count = len(numbers) // threads
    one_run = numbers[-1] - numbers[0] + 1 == len(numbers)
    if several and one_run:
        return [CpuSet.of(numbers[i * threads : (i + 1) * threads]) for i in range(count)]
    return [CpuSet.of(numbers[i::count]) for i in range(count)]


def _packages(
    known: Mapping[str, str], nodes: Sequence[object], cores: int, notes: list[str]
) -> list[int]:
    """The package of each core."""
    count = _count(known, "Socket(s)")
    if cores % count or (len(nodes) > 1 and len(nodes) % count):
        raise SyntaxFault(
            f"lscpu: {cores} cores in {len(nodes)} nodes are not even in {count} sockets",
            hint=_BETTER,
        )
    if "Core(s) per socket" in known:
        told = _count(known, "Core(s) per socket") * count
        if told != cores:  # cores of several kinds have not the same number of threads
            raise SyntaxFault(
                f"lscpu: it tells of {told} cores, and its CPUs and threads make {cores}",
                hint=_BETTER,
            )
    if count > 1:
        notes.append("lscpu does not say which CPUs lie in which socket: taken in their order")
    return [number * count // cores for number in range(cores)]


def _caches(known: Mapping[str, str], name: str, cores: int, notes: list[str]) -> list[int | None]:
    """The cache of each core; None for all where their number is not said, or uneven."""
    level = name.partition(" ")[0]
    if name not in known:
        return [None] * cores
    match = _INSTANCES.fullmatch(known[name])
    count = int(match[1]) if match else 0
    if not count or cores % count:
        notes.append(f"lscpu does not say which CPUs share an {level} cache: left out")
        return [None] * cores
    if 1 < count < cores:
        notes.append(
            f"lscpu does not say which CPUs share an {level} cache: "
            f"{cores // count} cores each, in their order"
        )
    return [number * count // cores for number in range(cores)]
