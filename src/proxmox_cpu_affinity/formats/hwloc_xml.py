"""A topology and its latencies written as hwloc's XML (version 2), for lstopo and its kin.

Reading it is hwloc's work. What sysfs does not tell us, like the sizes of caches, is 0. A level
that is only a guess (see Topology.notes) is left out, a guessed cache group a group without a
meaning. A last cache that is an L2 is written as an L3 too: the topology does not know which it is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

from proxmox_cpu_affinity.formats.hwloc import IN_PS, MEANS_LATENCY
from proxmox_cpu_affinity.formats.sysfiles import noted
from proxmox_cpu_affinity.formats.sysfs import NO_CORE, NO_L2, NO_LAST, NO_PACKAGE, UNKNOWN_ID
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.latency import LatencyMatrix
from proxmox_cpu_affinity.model.topology import NumaNode, Topology

FROM_USER = 2  # hwloc/distances.h, HWLOC_DISTANCES_KIND_FROM_USER
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE topology SYSTEM "hwloc2.dtd">\n'
_GROUP = 'kind="0" subkind="0"'
_L2, _L3 = (
    f'cache_size="0" depth="{level}" cache_linesize="64" cache_associativity="0" cache_type="0"'
    for level in (2, 3)
)


@dataclass(slots=True)
class _Object:
    """An object of the tree. `number` is the kernel's, None where there is none, or it is not known
    as with dies."""

    kind: str
    cpus: CpuSet
    number: int | None = None
    more: str = ""
    info: str = ""
    inside: list["_Object"] = field(default_factory=list)
    memory: list[NumaNode] = field(default_factory=list)


def to_text(topology: Topology, matrix: LatencyMatrix) -> str:
    """The document. The matrix's CPUs must be online; latencies are written in ps."""
    guessed = noted(topology.notes, NO_PACKAGE)
    model = topology.model_name if guessed else ""  # elsewhere the packages have it
    root = _Object("Machine", topology.online, 0, info=model)
    for made in sorted(_objects(topology), key=lambda each: -len(each.cpus)):
        _insert(root, made)
    for node in topology.nodes:
        _home(root, node.cpus).memory.append(node)
    writer = _Writer(topology)
    writer.write(root, 1)
    writer.lines += _distances(matrix)
    return f'{_HEAD}<topology version="2.0">\n' + "\n".join(writer.lines) + "\n</topology>\n"


def _objects(topology: Topology) -> Iterator[_Object]:
    """All objects, of those with the same CPUs the outer first."""
    unknown = noted(topology.notes, NO_PACKAGE)
    for package in topology.packages:
        if not package <= unknown:
            number = topology.place(package.first()).package_id
            yield _Object("Package", package, number, info=topology.model_name)
    yield from (_Object("Group", node.cpus, more=_GROUP) for node in topology.nodes if node.cpus)
    if len(topology.dies) > len(topology.packages):
        yield from (_Object("Die", die) for die in topology.dies)
    unknown = noted(topology.notes, NO_LAST)
    for group in topology.cache_groups:
        known = not group <= unknown
        yield _Object("L3Cache" if known else "Group", group, more=_L3 if known else _GROUP)
    unknown = noted(topology.notes, NO_L2)
    yield from (_Object("L2Cache", l2, more=_L2) for l2 in topology.l2_groups if not l2 <= unknown)
    yield from _cores(topology)
    yield from (_Object("PU", CpuSet.of([cpu]), cpu) for cpu in topology.online)


def _cores(topology: Topology) -> Iterator[_Object]:
    unknown = noted(topology.notes, NO_CORE)
    for core in topology.cores:
        if not core <= unknown:
            number = topology.place(core.first()).core_id
            yield _Object("Core", core, None if number == UNKNOWN_ID else number)


def _insert(parent: _Object, made: _Object) -> None:
    """Put an object where it belongs, unless it crosses another one or says nothing new."""
    for child in parent.inside:
        if made.cpus <= child.cpus:
            _insert(child, made)
            return
    crosses = any(made.cpus.overlaps(child.cpus) for child in parent.inside)
    repeats = made.kind == "Group" and made.cpus == parent.cpus
    if not crosses and not repeats:
        parent.inside.append(made)


def _home(parent: _Object, cpus: CpuSet) -> _Object:
    """The outermost object with just these CPUs, else the innermost that has them all."""
    if not cpus or parent.cpus == cpus:
        return parent
    for child in parent.inside:
        if cpus <= child.cpus:
            return _home(child, cpus)
    return parent


def _bitmap(mask: int) -> str:
    """hwloc's form of a set: words of 32 bits, the highest first."""
    words = [mask >> shift & 0xFFFFFFFF for shift in range(0, max(mask.bit_length(), 1), 32)]
    return ",".join(f"0x{word:08x}" for word in reversed(words))


@dataclass(slots=True)
class _Writer:
    topology: Topology
    lines: list[str] = field(default_factory=list)
    count: int = 0

    def write(self, made: _Object, depth: int) -> None:
        pad = "  " * depth
        extra = f" {made.more}" if made.more else ""
        if made.kind == "Machine":
            extra = f' allowed_cpuset="{_bitmap(made.cpus.mask)}" '
            extra += f'allowed_nodeset="{_bitmap(self._nodes(made.cpus))}"'
        head = f"{pad}<object {self._attributes(made.kind, made.cpus, made.number)}{extra}"
        if not (made.inside or made.memory or made.info):
            self.lines.append(f"{head}/>")
            return
        self.lines.append(f"{head}>")
        if made.info:
            self.lines.append(f'{pad}  <info name="CPUModel" value={quoteattr(made.info)}/>')
        for node in made.memory:
            self._node(node, pad)
        for child in sorted(made.inside, key=lambda each: each.cpus.first()):
            self.write(child, depth + 1)
        self.lines.append(f"{pad}</object>")

    def _node(self, node: NumaNode, pad: str) -> None:
        attributes = self._attributes("NUMANode", node.cpus, int(node.node), 1 << node.node)
        memory = (node.memory_mib or 0) << 20
        self.lines.append(f'{pad}  <object {attributes} local_memory="{memory}"/>')

    def _attributes(
        self, kind: str, cpus: CpuSet, number: int | None, nodes: int | None = None
    ) -> str:
        self.count += 1
        index = "" if number is None else f' os_index="{number}"'
        sets = {"cpuset": cpus.mask, "nodeset": self._nodes(cpus) if nodes is None else nodes}
        said = " ".join(
            f'{prefix}{name}="{_bitmap(mask)}"'
            for name, mask in sets.items()
            for prefix in ("", "complete_")
        )
        return f'type="{kind}"{index} {said} gp_index="{self.count}"'

    def _nodes(self, cpus: CpuSet) -> int:
        """The nodes of these CPUs; those without CPUs belong to all."""
        near = (n.node for n in self.topology.nodes if not n.cpus or n.cpus.overlaps(cpus))
        return CpuSet.of(near).mask


def _distances(matrix: LatencyMatrix) -> Iterable[str]:
    count = len(matrix.cpus)
    if count < 2:
        return
    yield (
        f'  <distances2 type="PU" nbobjs="{count}" kind="{FROM_USER | MEANS_LATENCY}" '
        f'name="{IN_PS}" indexing="os">'
    )
    yield _numbers("indexes", matrix.cpus)
    for row in range(count):
        values = matrix.ns[row * count : (row + 1) * count]
        yield _numbers("u64values", (round(1000 * ns) for ns in values))
    yield "  </distances2>"


def _numbers(name: str, numbers: Iterable[int]) -> str:
    text = "".join(f"{number} " for number in numbers)
    return f'    <{name} length="{len(text)}">{text}</{name}>'
