"""A host with its latencies as hwloc's XML (version 2): read as a snapshot, and written.

The format is what hwloc's own programs export and take. The latencies are its `distances2` between
PUs, of which hwloc knows whole numbers without a unit: ours are in ps, and their name says so;
others are taken as ns. Entities, external references and processing instructions are refused: a
file from elsewhere must name nothing on this host. Writing is hwloc_xml's work.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from proxmox_cpu_affinity.formats.cpuinfo import CPUINFO
from proxmox_cpu_affinity.formats.snapshot import Latencies, Snapshot
from proxmox_cpu_affinity.formats.sysfiles import CPU_DIR, NODE_DIR
from proxmox_cpu_affinity.model.cpuset import CPU_LIMIT, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault

ORIGIN = "hwloc"
DTDS = ("hwloc.dtd", "hwloc2.dtd")
IN_PS = "CpuLatency-ps"
MEANS_LATENCY = 4  # hwloc/distances.h, HWLOC_DISTANCES_KIND_MEANS_LATENCY
_DEPTH_MOST = 200
# Of packages and cores: where firmware gives no ids, Linux takes offsets in ACPI's PPTT (kernel:
# drivers/acpi/pptt.c, topology_get_acpi_cpu_tag).
_ID_MOST = (1 << 31) - 1
_CACHES = {"L2Cache": "2", "L3Cache": "3"}
_TEXT_OF = ("indexes", "u64values")


@dataclass(slots=True)
class _Pu:
    """A PU and the objects around it, by type: their number in the file."""

    cpu: int
    around: dict[str, int]


@dataclass(slots=True)
class _Distances:
    attributes: Mapping[str, str]
    texts: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in _TEXT_OF})


@dataclass(slots=True)
class _Reader:
    """What the file said so far."""

    where: str
    open: list[str] = field(default_factory=list)  # elements, as they nest
    around: list[tuple[str, int]] = field(default_factory=list)  # objects: type and number
    objects: list[Mapping[str, str]] = field(default_factory=list)
    pus: list[_Pu] = field(default_factory=list)
    nodes: list[Mapping[str, str]] = field(default_factory=list)
    model: str = ""
    matrices: list[_Distances] = field(default_factory=list)

    def fail(self, text: str) -> NoReturn:
        raise SyntaxFault(text, where=self.where)

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        if not self.open and name != "topology":
            self.fail(f"no hwloc topology: it begins with <{name[:40]}>")
        self.open.append(name)
        if len(self.open) > _DEPTH_MOST:
            self.fail("nested too deeply")
        if name == "object":
            self._object(attributes)
        elif name == "info" and attributes.get("name") == "CPUModel" and not self.model:
            self.model = attributes.get("value", "").strip()
        elif name == "distances2":
            self.matrices.append(_Distances(attributes))

    def end(self, name: str) -> None:
        self.open.pop()
        if name == "object":
            self.around.pop()

    def text(self, data: str) -> None:
        if self.open[-1] in _TEXT_OF and self.open[-2:-1] == ["distances2"]:
            self.matrices[-1].texts[self.open[-1]].append(data)

    def _object(self, attributes: dict[str, str]) -> None:
        kind = {"Socket": "Package"}.get(attributes.get("type", ""), attributes.get("type", ""))
        self.around.append((kind, len(self.objects)))
        self.objects.append(attributes)
        if kind == "PU":
            self.pus.append(_Pu(self.index(attributes), dict(self.around)))
        elif kind == "NUMANode":
            self.nodes.append(attributes)

    def index(self, attributes: Mapping[str, str], most: int = CPU_LIMIT - 1) -> int:
        text = attributes.get("os_index", "")
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= most):
            what = f"{attributes.get('type', '')[:20]} from 0 to {most}"
            self.fail(f"os_index={text[:20]!r} is no number of a {what}")
        return int(text)


def parse(text: str, *, where: str = "") -> Snapshot:
    """The host an XML file describes. SyntaxFault, located by `where`, for everything else."""
    reader = _Reader(where)
    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = reader.begin
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    _refuse(parser, reader.fail)
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)  # noqa: FBT003 (expat's own signature)
    except expat.ExpatError as fault:
        raise SyntaxFault(
            f"line {fault.lineno}: {expat.ErrorString(fault.code)}", where=where
        ) from None
    if not reader.pus:
        reader.fail("the topology has no PU")
    cpus = sorted(pu.cpu for pu in reader.pus)
    if len(set(cpus)) < len(cpus):
        reader.fail("a PU is given twice")
    return Snapshot(ORIGIN, reader.model or "a host", _files(reader), _latencies(reader, cpus))


def _refuse(parser: expat.XMLParserType, fail: Callable[[str], NoReturn]) -> None:
    """Let nothing in that names or makes other texts."""

    def doctype(name: str, system: str | None, public: str | None, has_own: int) -> None:
        if has_own or public or (system is not None and system not in DTDS):
            fail("a document type of its own, or from elsewhere, is refused")

    def refused(*_: object) -> int:
        fail("entities, external references and processing instructions are refused")

    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = refused
    parser.ExternalEntityRefHandler = refused
    parser.SkippedEntityHandler = refused
    parser.ProcessingInstructionHandler = refused


def _files(reader: _Reader) -> dict[str, str]:
    """What the kernel's files would say of this host."""
    online = CpuSet.of(pu.cpu for pu in reader.pus)
    files = {f"{CPU_DIR}/{name}": str(online) for name in ("online", "present", "possible")}
    files[CPUINFO] = f"model name\t: {reader.model}\n" if reader.model else ""
    together: dict[int, list[int]] = {}  # object's number: its CPUs
    for pu in reader.pus:
        for number in pu.around.values():
            together.setdefault(number, []).append(pu.cpu)
    for pu in reader.pus:
        folder = f"{CPU_DIR}/cpu{pu.cpu}"
        for kind, name in (
            ("Package", "physical_package_id"),
            ("Die", "die_id"),
            ("Core", "core_id"),
        ):
            if kind in pu.around:
                files[f"{folder}/topology/{name}"] = _id(reader, pu.around[kind])
        if "Core" in pu.around:
            siblings = CpuSet.of(together[pu.around["Core"]])
            files[f"{folder}/topology/core_cpus_list"] = str(siblings)
        for kind, level in _CACHES.items():
            if kind in pu.around:
                cache = f"{folder}/cache/index{level}"
                files[f"{cache}/level"], files[f"{cache}/type"] = level, "Unified"
                files[f"{cache}/shared_cpu_list"] = str(CpuSet.of(together[pu.around[kind]]))
    return {**files, **_node_files(reader, online)}


def _id(reader: _Reader, number: int) -> str:
    """The kernel's id of an object; where hwloc does not know it, its number in the file."""
    attributes = reader.objects[number]
    return str(reader.index(attributes, _ID_MOST) if "os_index" in attributes else number)


def _node_files(reader: _Reader, online: CpuSet) -> dict[str, str]:
    files = {}
    for attributes in reader.nodes:
        node = reader.index(attributes)
        folder = f"{NODE_DIR}/node{node}"
        files[f"{folder}/cpulist"] = str(_bitmap(reader, attributes.get("cpuset", "")) & online)
        memory = attributes.get("local_memory", "")
        if memory.isascii() and memory.isdigit() and len(memory) < 20:
            files[f"{folder}/meminfo"] = f"Node {node} MemTotal: {int(memory) // 1024} kB"
    return files


def _bitmap(reader: _Reader, text: str) -> CpuSet:
    """hwloc's form of a set: words of 32 bits, the highest first; 0xf...f is all that follow."""
    mask = 0
    for word in text.split(","):
        if word == "0xf...f":
            mask = (1 << CPU_LIMIT) - 1 if mask == 0 else mask
            continue
        digits = word.removeprefix("0x") or "0"
        if len(digits) > 8 or digits.strip("0123456789abcdefABCDEF"):
            reader.fail(f"cpuset={text[:20]!r} is no set")
        mask = (mask << 32 | int(digits, 16)) & ((1 << CPU_LIMIT) - 1)
    return CpuSet(mask)


def _latencies(reader: _Reader, cpus: list[int]) -> Latencies | None:
    """The latencies between all PUs, ours before others', in ns; None where there are none."""
    found = None
    for distances in reader.matrices:
        rows = _matrix(reader, distances, cpus)
        ours = distances.attributes.get("name") == IN_PS
        if rows is not None and (ours or found is None):
            found = tuple(tuple(ns / 1000 for ns in row) for row in rows) if ours else rows
    return found


def _matrix(reader: _Reader, distances: _Distances, cpus: list[int]) -> Latencies | None:
    kind = distances.attributes.get("kind", "")
    if not (kind.isascii() and kind.isdigit() and len(kind) < 10):
        return None
    if distances.attributes.get("type") != "PU" or not int(kind) & MEANS_LATENCY:
        return None
    if distances.attributes.get("indexing") != "os":
        reader.fail("distances of PUs are known by their OS index only")
    order = _numbers(reader, distances.texts["indexes"])
    values = _numbers(reader, distances.texts["u64values"])
    count = len(order)
    if sorted(order) != cpus:
        return None  # of a part of the PUs
    if len(values) != count * count:
        reader.fail(f"{len(values)} distances for {count} PUs")
    row = {cpu: i for i, cpu in enumerate(order)}
    return tuple(
        tuple(0.0 if a == b else float(values[row[a] * count + row[b]]) for b in cpus) for a in cpus
    )


def _numbers(reader: _Reader, texts: Iterable[str]) -> list[int]:
    words = "".join(texts).split()
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) <= 18):
            reader.fail(f"{word[:20]!r} is no distance")
    return [int(word) for word in words]
