"""A saved `cpuinfo --json` or core ranking as a snapshot: each CPU's neighbours with latencies.

It tells package and core of each CPU, and nothing of caches and nodes.
"""

from proxmox_cpu_affinity.formats.jsonvalue import items, nanoseconds
from proxmox_cpu_affinity.formats.snapshot import Snapshot
from proxmox_cpu_affinity.formats.sysfiles import CPU_DIR
from proxmox_cpu_affinity.model.cpuset import CPU_LIMIT, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault

ORIGIN = "ranking"


def snapshot(document: object, *, where: str = "") -> Snapshot:
    """The host such a document tells of. SyntaxFault, located by `where`, for everything else."""
    try:
        return _snapshot(document)
    except (KeyError, TypeError, ValueError):
        raise SyntaxFault("no core ranking as cpuinfo --json prints it", where=where) from None


def _snapshot(document: object) -> Snapshot:
    """KeyError, TypeError or ValueError for what is none."""
    latencies: dict[tuple[int, int], float] = {}
    ids: dict[int, tuple[int, int]] = {}
    cpus = []
    for entry in items(document):
        cpu = _whole(entry, "cpu", CPU_LIMIT)
        cpus.append(cpu)
        for other in items(_get(entry, "ranking")):
            number = _whole(other, "cpu", CPU_LIMIT)
            ids[number] = _whole(other, "socket", 1 << 31), _whole(other, "core", 1 << 31)
            latencies[cpu, number] = nanoseconds(_get(other, "latency_ns"))
    cpus.sort()
    if len(set(cpus)) < max(len(cpus), 2):
        raise ValueError("a CPU twice, or only one")
    rows = tuple(tuple(0.0 if a == b else latencies[a, b] for b in cpus) for a in cpus)
    return Snapshot(ORIGIN, "a core ranking", _files(cpus, ids), rows)


def _files(cpus: list[int], ids: dict[int, tuple[int, int]]) -> dict[str, str]:
    online = str(CpuSet.of(cpus))
    files = {f"{CPU_DIR}/{name}": online for name in ("online", "present", "possible")}
    for cpu in cpus:
        socket, core = ids[cpu]
        folder = f"{CPU_DIR}/cpu{cpu}/topology"
        files[f"{folder}/physical_package_id"] = str(socket)
        files[f"{folder}/core_id"] = str(core)
        siblings = CpuSet.of(other for other in cpus if ids[other] == ids[cpu])
        files[f"{folder}/core_cpus_list"] = str(siblings)
    return files


def _get(value: object, key: str) -> object:
    if not isinstance(value, dict):
        raise TypeError("no object")
    return value[key]


def _whole(value: object, key: str, limit: int) -> int:
    found = _get(value, key)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < limit:
        raise ValueError(key)
    return found
