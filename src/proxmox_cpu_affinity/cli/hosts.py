"""Hosts to plan on: this one, one in a snapshot file, or one made from a few numbers.

Out of scope: measuring. Latencies are those that the service of this host measured, those of the
snapshot, else predicted from the topology.
"""

from array import array
from dataclasses import dataclass
from pathlib import Path

from proxmox_cpu_affinity.formats import saved
from proxmox_cpu_affinity.formats.snapshot import Latencies
from proxmox_cpu_affinity.formats.sysfs import topology as parse_topology
from proxmox_cpu_affinity.latency import cache
from proxmox_cpu_affinity.latency.facts import host_facts
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.linux.threads import own_cpus
from proxmox_cpu_affinity.linux.tree import Tree, capture_sysfs
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault, UsageError
from proxmox_cpu_affinity.model.latency import LatencyMatrix, Verdict
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.service.paths import Paths
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec
from proxmox_cpu_affinity.store import JsonFile

GENERATED = "generated:"


@dataclass(frozen=True, slots=True)
class Described:
    """A host; `allowed` are the CPUs its guests may be run on (None: no limit)."""

    topology: Topology
    matrix: LatencyMatrix
    allowed: CpuSet | None = None


def this_host(tree: Tree) -> Described:
    """The host below the root. UsageError where there is none."""
    topology = parse_topology(capture_sysfs(tree))
    if not topology.online:
        raise UsageError(f"{tree.root} holds no host: its sys names no CPU that is online")
    return Described(topology, _kept(tree, topology) or predicted(topology), own_cpus())


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
    """The host that --host names: `generated:SPEC` or a snapshot's file. UsageError."""
    if name.startswith(GENERATED):
        topology = parse_topology(generate(parse_spec(name.removeprefix(GENERATED))))
        return Described(topology, predicted(topology))
    hint = f"or describe one: --host {GENERATED}2x2x4x2"
    return saved_host(name, option="--host", hint=hint)


def saved_host(name: str, *, option: str, hint: str = "") -> Described:
    """The host in a file: a snapshot, a saved ranking, hwloc's XML or a CSV. UsageError."""
    try:
        return _captured(Path(name).read_text(encoding="utf-8"), name)
    except OSError as error:
        raise UsageError(f"{option} {name}: {error.strerror}", hint=hint) from None
    except SyntaxFault as fault:
        raise UsageError(f"{option} {fault}", hint=fault.hint) from None
    except UnicodeDecodeError:
        raise UsageError(f"{option} {name}: no text") from None


def _captured(text: str, name: str) -> Described:
    found = saved.parse(text, where=name)
    try:
        topology = parse_topology(found.files)
    except SyntaxFault as fault:
        raise SyntaxFault(fault.text, where=name, hint=fault.hint) from None
    if not topology.online:
        raise SyntaxFault("its files name no CPU that is online", where=name)
    if found.latency_ns is None:
        return Described(topology, predicted(topology))
    if len(found.latency_ns) != len(topology.online):
        raise SyntaxFault(
            f"latency_ns: {len(found.latency_ns)} rows for {len(topology.online)} online CPUs",
            where=name,
        )
    return Described(topology, _matrix(topology, found.latency_ns))


def _matrix(topology: Topology, rows: Latencies) -> LatencyMatrix:
    """The snapshot's matrix, made symmetrical by the mean of both ways."""
    count = len(rows)
    every = [(i, j) for i in range(count) for j in range(count)]
    cells = (0.0 if i == j else (rows[i][j] + rows[j][i]) / 2 for i, j in every)
    return LatencyMatrix(
        cpus=tuple(topology.online),
        ns=array("d", cells),
        spread=array("d", bytes(8 * count * count)),
        measured=bytes(i != j for i, j in every),
        verdict=Verdict.TRUSTED,
        conditions=("from the snapshot",),
    )
