"""Hosts to plan on: this one, one in a file or a directory, or one made from a few numbers.

Out of scope: measuring. Latencies are those that the service of this host measured, those of the
file or of --latency, else predicted from the topology.
"""

from array import array
from dataclasses import dataclass, replace
from pathlib import Path

from proxmox_cpu_affinity.formats import saved
from proxmox_cpu_affinity.formats.snapshot import CAPTURED, Latencies, Snapshot
from proxmox_cpu_affinity.formats.sysfs import topology as parse_topology
from proxmox_cpu_affinity.latency import cache
from proxmox_cpu_affinity.latency.facts import host_facts
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.linux import archive
from proxmox_cpu_affinity.linux.threads import own_cpus
from proxmox_cpu_affinity.linux.tree import Tree, capture_sysfs
from proxmox_cpu_affinity.model.cpuset import CPUS_MOST, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault, UsageError
from proxmox_cpu_affinity.model.latency import LatencyMatrix, Verdict
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.service.paths import Paths
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec
from proxmox_cpu_affinity.store import JsonFile

GENERATED = "generated:"
TEXT_MOST = 1 << 26  # bytes: the latencies of 2048 CPUs as JSON, with room to spare
_CSV_HINT = "core-to-core-latency --csv and cpuinfo --csv write such a file"


@dataclass(frozen=True, slots=True)
class Described:
    """A host; `allowed` are the CPUs its guests may be run on (None: no limit)."""

    topology: Topology
    matrix: LatencyMatrix
    allowed: CpuSet | None = None


def this_host(tree: Tree) -> Described:
    """The host below the root. UsageError where there is none."""
    topology = topology_here(tree, hint=f"describe one: --host {GENERATED}2x2x4x2")
    return Described(topology, _kept(tree, topology) or predicted(topology), own_cpus())


def topology_here(tree: Tree, *, hint: str) -> Topology:
    """The CPUs of the host below the root. UsageError where there is none."""
    topology = parse_topology(capture_sysfs(tree))
    if not topology.online:
        text = f"{tree.root} holds no host: its sys names no CPU that is online"
        raise UsageError(text, hint=hint)
    return topology


def _kept(tree: Tree, topology: Topology) -> LatencyMatrix | None:
    """What the service measured, if it is of this host as it is now and to be relied on."""
    kept = JsonFile(Paths(tree.root).matrix).load(set_aside=False).content
    if kept is None:
        return None
    found = cache.usable(kept, cache.fingerprint(host_facts(topology, tree)))
    if isinstance(found, LatencyMatrix) and found.verdict is Verdict.TRUSTED:
        return found
    return None


def named_host(name: str) -> Described:
    """The host that --host names: `generated:SPEC`, a file or a directory. UsageError."""
    if name.startswith(GENERATED):
        topology = parse_topology(generate(parse_spec(name.removeprefix(GENERATED))))
        return Described(topology, predicted(topology))
    hint = f"or describe one: --host {GENERATED}2x2x4x2"
    return saved_host(name, option="--host", hint=hint)


def saved_host(name: str, *, option: str, hint: str = "") -> Described:
    """The host in a file of any form, or captured in a directory. UsageError."""
    return _described(_saved(name, option=option, hint=hint), option, name)


def with_latencies(host: Described, name: str) -> Described:
    """The host with the latencies of a file, by default core-to-core-latency's CSV. UsageError."""
    found = _saved(name, option="--latency", hint=_CSV_HINT)
    if found.latency_ns is None:
        raise UsageError(f"--latency {name}: it holds no latencies", hint=_CSV_HINT)
    rows, online = len(found.latency_ns), host.topology.online
    other = "they must be of this very host, with the same CPUs online"
    if rows != len(online):
        raise UsageError(f"--latency {name}: {rows} rows for {len(online)} online CPUs", hint=other)
    theirs = parse_topology(found.files).online
    if found.origin != saved.CSV and theirs != online:
        raise UsageError(
            f"--latency {name}: of CPUs {theirs}, and the host has {online}", hint=other
        )
    return replace(host, matrix=_matrix(host.topology, found.latency_ns, f"from {name}"))


def _saved(name: str, *, option: str, hint: str = "") -> Snapshot:
    path = Path(name)
    try:
        if path.is_dir():
            return Snapshot(CAPTURED, name, archive.of_directory(path))
        if archive.is_archive(path):
            return Snapshot(CAPTURED, name, archive.of_archive(path))
        return saved.parse(_text(path), where=name)
    except OSError as error:
        raise UsageError(
            f"{option} {name}: {error.strerror}", hint=hint or saved.EXPECTED
        ) from None
    except SyntaxFault as fault:
        raise UsageError(f"{option} {fault}", hint=fault.hint or hint or archive.HINT) from None
    except UnicodeDecodeError:
        packed = archive.is_compressed(path)
        what = "compressed, and no tar" if packed else "no text"
        hint = "unpack it first" if packed else saved.EXPECTED
        raise UsageError(f"{option} {name}: {what}", hint=hint) from None


def _text(path: Path) -> str:
    """The whole of a file, a pipe or a device. SyntaxFault for more text than any host has."""
    with path.open("rb") as file:
        data = file.read(TEXT_MOST + 1)
    if len(data) > TEXT_MOST:
        text = f"more than {TEXT_MOST >> 20} MiB of text: that is no host"
        raise SyntaxFault(text, where=str(path), hint=saved.EXPECTED)
    return data.decode("utf-8").replace("\r\n", "\n")


def _described(found: Snapshot, option: str, name: str) -> Described:
    try:
        topology = parse_topology(found.files)
    except SyntaxFault as fault:
        raise UsageError(f"{option} {name}: {fault}", hint=fault.hint or archive.HINT) from None
    if not topology.online:
        raise UsageError(
            f"{option} {name}: its files name no CPU that is online", hint=archive.HINT
        )
    if len(topology.online) > CPUS_MOST:
        raise UsageError(
            f"{option} {name}: {len(topology.online)} CPUs are more than any host has",
            hint=f"Linux knows {CPUS_MOST} at most",
        )
    topology = replace(topology, notes=(*found.notes, *topology.notes))
    if found.latency_ns is None:
        return Described(topology, predicted(topology))
    if len(found.latency_ns) != len(topology.online):
        rows = len(found.latency_ns)
        raise UsageError(
            f"{option} {name}: latency_ns: {rows} rows for {len(topology.online)} online CPUs",
            hint="a row and a column for each online CPU, in ascending order",
        )
    return Described(topology, _matrix(topology, found.latency_ns, "from the snapshot"))


def _matrix(topology: Topology, rows: Latencies, source: str) -> LatencyMatrix:
    """The matrix of these rows, made symmetrical by the mean of both ways."""
    count = len(rows)
    every = [(i, j) for i in range(count) for j in range(count)]
    cells = (0.0 if i == j else (rows[i][j] + rows[j][i]) / 2 for i, j in every)
    return LatencyMatrix(
        cpus=tuple(topology.online),
        ns=array("d", cells),
        spread=array("d", bytes(8 * count * count)),
        measured=bytes(i != j for i, j in every),
        verdict=Verdict.TRUSTED,
        conditions=(source,),
    )
