"""A host that was saved in any of the forms we read: tells them apart, and reads them.

Our snapshot and our core ranking (JSON), hwloc's XML, and the CSV of core-to-core-latency, which
names no topology: its CPUs are taken as cores of one package.
"""

import json

from proxmox_cpu_affinity.formats import hwloc, latency_csv, ranking_json, snapshot
from proxmox_cpu_affinity.formats.snapshot import Latencies, Snapshot
from proxmox_cpu_affinity.formats.sysfs import CPU_DIR
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault


def parse(text: str, *, where: str = "") -> Snapshot:
    """The host this text tells of. SyntaxFault, located by `where`, for a text of no known form."""
    match text.lstrip("\ufeff \t\r\n")[:1]:
        case "":
            raise SyntaxFault("the file is empty", where=where)
        case "<":
            return hwloc.parse(text, where=where)
        case "[":
            return ranking_json.snapshot(_json(text, where), where=where)
        case "{":
            return snapshot.parse(text, where=where)
    return _of_csv(latency_csv.parse(text, where=where))


def _json(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise SyntaxFault("no JSON", where=where) from None


def _of_csv(rows: Latencies) -> Snapshot:
    online = CpuSet.of(range(len(rows)))
    files = {f"{CPU_DIR}/{name}": str(online) for name in ("online", "present", "possible")}
    for cpu in online:
        folder = f"{CPU_DIR}/cpu{cpu}/topology"
        files[f"{folder}/physical_package_id"] = "0"
        files[f"{folder}/core_id"] = str(cpu)
        files[f"{folder}/core_cpus_list"] = str(cpu)
    return Snapshot("csv", "latencies without a topology", files, rows)
