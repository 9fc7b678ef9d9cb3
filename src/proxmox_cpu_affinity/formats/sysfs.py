"""The topology that the kernel's files tell: a mapping from path to text in, a Topology out.

A file that is missing, unreadable or contradicts another never fails: the level is filled from the
next source and a note says so. Out of scope: where the files are and what single ones say
(formats.sysfiles).
"""

from collections.abc import Hashable, Iterable, Mapping

from proxmox_cpu_affinity.formats import cpuinfo
from proxmox_cpu_affinity.formats.sysfiles import (
    CPU_DIR,
    HYPERVISOR,
    KIND_FILES,
    NODE_DIR,
    HostFiles,
    cpulist_or_none,
)
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.ids import Cpu, NodeId
from proxmox_cpu_affinity.model.topology import CoreKind, CpuPlace, NumaNode, Topology

UNKNOWN_ID = -1
"""What the kernel says for an id it does not know, and what we put where it says nothing."""

NO_PACKAGE = "no package id: all of these count as one package"
NO_CORE = "no core known: a core of its own"
NO_L2 = "no L2 cache or cluster known: the core counts as one"
NO_LAST = "no last-level cache known: the die counts as the cache group"
"""Notes of CPUs: what a level of theirs is, where nothing is known of it."""


_Folders = Mapping[int, list[str]]
"""CPU to the folders of its caches."""


def topology(files: Mapping[str, str]) -> Topology:
    """The topology these files tell; never an error: see Topology.notes. O(files + CPUs)."""
    reader = HostFiles(files)
    possible, present, online, isolated = _masks(reader)
    ids = {cpu: _ids(reader, cpu) for cpu in online}
    packages = _groups({cpu: package for cpu, (package, _, _) in ids.items()})
    dies = _groups({cpu: id_[:2] for cpu, id_ in ids.items()})
    cores = _cores(reader, online, ids)
    folders = reader.caches()
    l2_groups = _l2_groups(reader, folders, online, cores)
    caches = _cache_groups(reader, folders, online, dies)
    if len(cores) > 1 and caches == cores:
        reader.note("no cache is shared between cores: every core is a cache group")
    nodes = _nodes(reader, online)
    processor = cpuinfo.parse(files.get(cpuinfo.CPUINFO, ""))
    kinds = _kinds(reader, online)
    core_of, l2_of, llc_of = _indexes(cores), _indexes(l2_groups), _indexes(caches)
    die_of, package_of = _indexes(dies), _indexes(packages)
    node_of = {cpu: node.node for node in nodes for cpu in node.cpus}
    places = tuple(
        CpuPlace(
            cpu=cpu,
            core=core_of[cpu],
            l2=l2_of[cpu],
            llc=llc_of[cpu],
            die=die_of[cpu],
            package=package_of[cpu],
            node=node_of[cpu],
            core_id=ids[cpu][2],
            package_id=ids[cpu][0],
            kind=kinds.get(cpu, CoreKind.PERFORMANCE),
        )
        for cpu in online
    )
    return Topology(
        places=places,
        cores=cores,
        l2_groups=l2_groups,
        cache_groups=caches,
        dies=dies,
        packages=packages,
        nodes=nodes,
        possible=possible,
        present=present,
        online=online,
        isolated=isolated,
        model_name=processor.model_name,
        virtual=processor.hypervisor or bool(reader.text(HYPERVISOR)),
        notes=reader.all_notes(),
    )


def _masks(reader: HostFiles) -> tuple[CpuSet, CpuSet, CpuSet, CpuSet]:
    """Possible, present, online, isolated; a missing one is made from what the others say."""
    online = reader.mask("online")
    if online is None:
        reader.note("no list of online CPUs: those with files of their own are taken")
        online = CpuSet.of(
            cpu for cpu in reader.cpus() if reader.text(f"{CPU_DIR}/cpu{cpu}/online") != "0"
        )
    present = (reader.mask("present") or EMPTY) | online
    possible = (reader.mask("possible") or EMPTY) | present
    return possible, present, online, reader.mask("isolated") or EMPTY


def _ids(reader: HostFiles, cpu: int) -> tuple[int, int, int]:
    """(package, die, core_id) of a CPU: together they name a core, core_id alone repeats."""
    folder = f"{CPU_DIR}/cpu{cpu}/topology"
    names = ("physical_package_id", "die_id", "core_id")
    numbers = (reader.number(f"{folder}/{name}") for name in names)
    package, die, core = (UNKNOWN_ID if n is None or n < 0 else n for n in numbers)
    if package == UNKNOWN_ID:  # some ARM firmware says nothing
        reader.note_of(cpu, NO_PACKAGE)
    elif die == UNKNOWN_ID:
        reader.note_of(cpu, "no die id: the package counts as the die")
    return package, die, core


def _cores(
    reader: HostFiles, online: CpuSet, ids: Mapping[Cpu, tuple[int, int, int]]
) -> tuple[CpuSet, ...]:
    claims: dict[Cpu, CpuSet | None] = {}
    for cpu in online:
        folder = f"{CPU_DIR}/cpu{cpu}/topology"
        claims[cpu] = reader.own_list(cpu, f"{folder}/core_cpus_list")
        if claims[cpu] is None:  # its name before Linux 5.3
            claims[cpu] = reader.own_list(cpu, f"{folder}/thread_siblings_list")
    keys: dict[Cpu, Hashable] = {}
    for cpu, mask in _agreed(reader, online, claims, what="core").items():
        if mask is not None:
            keys[cpu] = mask
        elif ids[cpu][2] != UNKNOWN_ID:
            keys[cpu] = ids[cpu]
        else:
            reader.note_of(cpu, NO_CORE)
            keys[cpu] = (cpu,)
    return _groups(keys)


def _l2_groups(
    reader: HostFiles, folders: _Folders, online: CpuSet, cores: tuple[CpuSet, ...]
) -> tuple[CpuSet, ...]:
    claims: dict[Cpu, CpuSet | None] = {}
    for cpu in online:
        claims[cpu] = _cache_list(reader, folders, cpu, level=2)
        if claims[cpu] is None:
            path = f"{CPU_DIR}/cpu{cpu}/topology/cluster_cpus_list"
            claims[cpu] = reader.own_list(cpu, path)
    return _groups_or(
        _agreed(reader, online, claims, what="L2 cache"),
        reader=reader,
        otherwise=cores,
        note=NO_L2,
    )


def _cache_groups(
    reader: HostFiles, folders: _Folders, online: CpuSet, dies: tuple[CpuSet, ...]
) -> tuple[CpuSet, ...]:
    claims = {cpu: _cache_list(reader, folders, cpu, level=None) for cpu in online}
    return _groups_or(
        _agreed(reader, online, claims, what="last-level cache"),
        reader=reader,
        otherwise=dies,
        note=NO_LAST,
    )


def _cache_list(
    reader: HostFiles, folders: _Folders, cpu: int, *, level: int | None
) -> CpuSet | None:
    """The CPUs sharing a CPU's cache of this level (None: of its highest from level 2 on).

    Found by level, not by id: ids repeat between the core kinds of hybrid processors.
    """
    best, found = 0, ""
    for folder in folders.get(cpu, ()):
        here = reader.number(f"{folder}/level") or 0
        if here < 2 or reader.text(f"{folder}/type") == "Instruction":
            continue
        path = f"{folder}/shared_cpu_list"
        if path in reader.files and here > best and level in (None, here):
            best, found = here, path
    return reader.own_list(cpu, found) if found else None


def _agreed(
    reader: HostFiles, online: CpuSet, claims: Mapping[Cpu, CpuSet | None], *, what: str
) -> dict[Cpu, int | None]:
    """The mask of each CPU's group, None where nothing is said or the CPUs contradict each other.

    A CPU that says nothing joins those that name it. CPUs that are offline leave every list.
    """
    masks = {cpu: claim.mask & online.mask for cpu, claim in claims.items() if claim is not None}
    silent = (online - CpuSet.of(masks)).mask
    for mask in set(masks.values()):
        masks |= dict.fromkeys(CpuSet(mask & silent), mask)
    members: dict[int, int] = {}
    for cpu, mask in masks.items():
        members[mask] = members.get(mask, 0) | 1 << cpu
    disputed = 0
    for mask, by in members.items():
        disputed |= mask | by if mask != by else 0
    grown = -1
    while grown != disputed:  # whoever shares a group with a disputed CPU is disputed
        grown = disputed
        for mask in members:
            disputed |= mask if mask & disputed else 0
    for cpu in CpuSet(disputed):
        reader.note_of(cpu, f"the lists of the CPUs of one {what} contradict each other")
    return {cpu: None if disputed >> cpu & 1 else masks.get(cpu) for cpu in online}


def _groups_or(
    agreed: Mapping[Cpu, int | None],
    *,
    reader: HostFiles,
    otherwise: tuple[CpuSet, ...],
    note: str,
) -> tuple[CpuSet, ...]:
    """The agreed groups; CPUs without one go by the group they have in `otherwise`."""
    fallback = _indexes(otherwise)
    keys: dict[Cpu, Hashable] = {}
    for cpu, mask in agreed.items():
        if mask is None:
            reader.note_of(cpu, note)
        keys[cpu] = (fallback[cpu],) if mask is None else mask
    return _groups(keys)


def _groups(keys: Mapping[Cpu, Hashable]) -> tuple[CpuSet, ...]:
    """The CPUs of equal key together, groups by their first CPU; `keys` ascends by CPU."""
    masks: dict[Hashable, int] = {}
    for cpu, key in keys.items():
        masks[key] = masks.get(key, 0) | 1 << cpu
    return tuple(map(CpuSet, masks.values()))


def _indexes(groups: Iterable[CpuSet]) -> dict[Cpu, int]:
    return {cpu: index for index, group in enumerate(groups) for cpu in group}


def _nodes(reader: HostFiles, online: CpuSet) -> tuple[NumaNode, ...]:
    """All nodes by number; every online CPU in exactly one."""
    numbers = reader.nodes()
    if not numbers:
        reader.note("no NUMA information: all CPUs count as node 0")
        return (NumaNode(NodeId(0), online, None),)
    masks: dict[int, int] = {}
    left = online.mask
    for number in numbers:
        text = reader.files.get(f"{NODE_DIR}/node{number}/cpulist")
        cpus = cpulist_or_none(text)
        if cpus is None:
            reader.note(f"node {number} has no readable cpulist: it counts as without CPUs")
        named = (cpus or EMPTY).mask & online.mask
        for cpu in CpuSet(named & ~left):
            reader.note_of(cpu, "in several NUMA nodes: counted to the first")
        masks[number] = named & left
        left &= ~named
    for cpu in CpuSet(left):
        reader.note_of(cpu, f"in no NUMA node: counted to node {numbers[0]}")
    masks[numbers[0]] |= left
    return tuple(
        NumaNode(NodeId(n), CpuSet(masks[n]), reader.memory_mib(n), _distances(reader, n, numbers))
        for n in numbers
    )


def _distances(reader: HostFiles, node: int, numbers: list[int]) -> tuple[tuple[NodeId, int], ...]:
    """The distances from a node: the kernel prints one for each online node, ascending."""
    words = reader.text(f"{NODE_DIR}/node{node}/distance").split()
    sound = all(w.isascii() and w.isdigit() and len(w) < 10 for w in words)
    if len(words) != len(numbers) or not sound:
        if words:
            reader.note(f"the distances of node {node} do not fit the nodes: left out")
        return ()
    return tuple((NodeId(n), int(word)) for n, word in zip(numbers, words, strict=True))


def _kinds(reader: HostFiles, online: CpuSet) -> dict[Cpu, CoreKind]:
    """The CPUs that are not of a performance core."""
    core, atom, low_power = (cpulist_or_none(reader.files.get(path)) for path in KIND_FILES)
    if core is None and atom is None and low_power is None:
        return _kinds_by_capacity(reader, online)
    kinds = dict.fromkeys((atom or EMPTY) & online, CoreKind.EFFICIENCY)
    return kinds | dict.fromkeys((low_power or EMPTY) & online, CoreKind.LOW_POWER)


def _kinds_by_capacity(reader: HostFiles, online: CpuSet) -> dict[Cpu, CoreKind]:
    """cpu_capacity is 1024 for the strongest CPUs of a host.

    Less than about 5 % below is no other kind but a favoured core: the same margin as
    capacity_greater() in the kernel's kernel/sched/fair.c.
    """
    capacity = {cpu: reader.number(f"{CPU_DIR}/cpu{cpu}/cpu_capacity") for cpu in online}
    known = {cpu: value for cpu, value in capacity.items() if value is not None}
    top = max(known.values(), default=0)
    return {cpu: CoreKind.EFFICIENCY for cpu, value in known.items() if top * 1024 > value * 1078}
