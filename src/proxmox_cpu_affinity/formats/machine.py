"""A host and its weights as the JSON lines of `plan --json-lines` have them: text to values.

A machine is CPUs with their core, cache group (l3), node, socket and kind, and the matrix of their
latencies. Out of scope: what is answered (cli.jsonlines).
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from proxmox_cpu_affinity.formats import jsonvalue
from proxmox_cpu_affinity.model.cpuset import CPU_LIMIT, CpuSet
from proxmox_cpu_affinity.model.errors import BadRequestError
from proxmox_cpu_affinity.model.ids import Cpu, NodeId
from proxmox_cpu_affinity.model.latency import LatencyMatrix, Verdict
from proxmox_cpu_affinity.model.placement import Weights
from proxmox_cpu_affinity.model.topology import CoreKind, CpuPlace, NumaNode, Topology

CPUS_MOST = 4096
EXPECTED_MOST = 1_000_000
KINDS = {"P": CoreKind.PERFORMANCE, "E": CoreKind.EFFICIENCY, "L": CoreKind.LOW_POWER}


@dataclass(frozen=True, slots=True)
class Machine:
    """A host to place guests on; `expected` vCPUs are configured on it, 0 if nobody says."""

    name: str
    topology: Topology
    matrix: LatencyMatrix
    reserved: CpuSet
    expected: int
    weights: Weights


def machine(message: Mapping[str, object]) -> Machine:
    """The machine a message describes. BadRequestError naming what is wrong."""
    entries = sorted(_entries(message), key=lambda entry: entry["cpu"])
    cpus = tuple(Cpu(entry["cpu"]) for entry in entries)
    if not cpus or len(set(cpus)) != len(cpus):
        raise BadRequestError("'cpus' must name each CPU once, and one at least")
    reserved = _cpus(message.get("reserved", []))
    return Machine(
        name=jsonvalue.text(message, "name", ""),
        topology=_topology(entries),
        matrix=_matrix(cpus, message.get("lat")),
        reserved=CpuSet.of(reserved),
        expected=jsonvalue.whole({"expected": 0, **message}, "expected", low=0, high=EXPECTED_MOST),
        weights=weights(message.get("weights", {})),
    )


def weights(value: object) -> Weights:
    """Weights by name; those that are not named have their default. BadRequestError."""
    names = tuple(field.name for field in fields(Weights))
    if not isinstance(value, Mapping):
        raise BadRequestError("'weights' must be an object")
    jsonvalue.only(value, *names)
    return Weights(**{name: _number(entry, name) for name, entry in value.items()})


def _entries(message: Mapping[str, object]) -> list[dict[str, int]]:
    """The CPUs with every level as a number. Keys that are not read here are passed over, as the
    other end of such a conversation has them for others."""
    given = jsonvalue.objects(message, "cpus", most=CPUS_MOST)
    found: list[dict[str, int]] = []
    for entry in given:
        one = {"cpu": jsonvalue.whole(entry, "cpu", low=0, high=CPU_LIMIT - 1)}
        for level in ("core", "l3", "node", "socket"):
            one[level] = jsonvalue.whole(entry, level, low=0, high=CPU_LIMIT - 1)
        kind = jsonvalue.text(entry, "kind", "P")
        if kind not in KINDS:
            raise BadRequestError(f"'kind' must be one of {' '.join(KINDS)}")
        one["kind"] = list(KINDS).index(kind)
        found.append(one)
    return found


def _topology(entries: Sequence[Mapping[str, int]]) -> Topology:
    cores, core_of = _groups(entries, "core")
    caches, cache_of = _groups(entries, "l3")
    sockets, socket_of = _groups(entries, "socket")
    nodes = sorted({entry["node"] for entry in entries})
    kinds = tuple(KINDS.values())
    places = tuple(
        CpuPlace(
            cpu=Cpu(entry["cpu"]),
            core=core_of[entry["core"]],
            l2=core_of[entry["core"]],
            llc=cache_of[entry["l3"]],
            die=socket_of[entry["socket"]],
            package=socket_of[entry["socket"]],
            node=NodeId(entry["node"]),
            core_id=entry["core"],
            package_id=entry["socket"],
            kind=kinds[entry["kind"]],
        )
        for entry in entries
    )
    online = CpuSet.of(place.cpu for place in places)
    members = {n: CpuSet.of(e["cpu"] for e in entries if e["node"] == n) for n in nodes}
    return Topology(
        places=places,
        cores=cores,
        l2_groups=cores,
        cache_groups=caches,
        dies=sockets,
        packages=sockets,
        nodes=tuple(NumaNode(NodeId(n), members[n], None) for n in nodes),
        possible=online,
        present=online,
        online=online,
    )


def _groups(
    entries: Sequence[Mapping[str, int]], level: str
) -> tuple[tuple[CpuSet, ...], dict[int, int]]:
    """The groups of one level in the order of their first CPU, and the index of each label."""
    members: dict[int, list[int]] = {}
    for entry in entries:
        members.setdefault(entry[level], []).append(entry["cpu"])
    return tuple(map(CpuSet.of, members.values())), {label: i for i, label in enumerate(members)}


def _matrix(cpus: tuple[Cpu, ...], rows: object) -> LatencyMatrix:
    """Rows in the order of the CPUs' numbers, made symmetrical by the mean of both ways."""
    count = len(cpus)
    if not isinstance(rows, list) or len(rows) != count:
        raise BadRequestError(f"'lat' must have {count} rows, one a CPU")
    if any(not isinstance(row, list) or len(row) != count for row in rows):
        raise BadRequestError(f"every row of 'lat' must have {count} numbers")
    ns = [[_number(value, "lat") for value in row] for row in rows]
    cells = array("d", bytes(8 * count * count))
    for i in range(count):
        for j in range(count):
            cells[i * count + j] = 0.0 if i == j else (ns[i][j] + ns[j][i]) / 2
    return LatencyMatrix(
        cpus=cpus,
        ns=cells,
        spread=array("d", bytes(8 * count * count)),
        measured=bytes(i != j for i in range(count) for j in range(count)),
        verdict=Verdict.TRUSTED,
        conditions=("as the message has them",),
    )


def _cpus(value: object) -> list[int]:
    if not isinstance(value, list):
        raise BadRequestError("'reserved' must be a list")
    return [jsonvalue.whole({"reserved": c}, "reserved", low=0, high=CPU_LIMIT - 1) for c in value]


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise BadRequestError(f"{name!r} must be a number from 0 to 1e9")
    return float(value)
