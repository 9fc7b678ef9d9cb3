"""A host that was saved in any of the forms we read: tells them apart, and reads them.

Our snapshot and our core ranking (JSON), hwloc's XML, the texts of lscpu and `numactl --hardware`
(formats.hosttext), and the CSV of core-to-core-latency, which names no topology: its CPUs are taken
as cores of one package. Out of scope: directories and archives (linux.archive).
"""

import json
import re

from proxmox_cpu_affinity.formats import (
    hosttext,
    hwloc,
    latency_csv,
    listed,
    ranking_json,
    snapshot,
)
from proxmox_cpu_affinity.formats.listed import Listed
from proxmox_cpu_affinity.formats.snapshot import Latencies, Snapshot
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault

CSV = "csv"
"""The origin of what had latencies and no topology."""

EXPECTED = (
    "a host is a snapshot of ours, a core ranking, hwloc's XML, the text of lscpu -p, -e or plain "
    "lscpu (best with numactl --hardware), a CSV of latencies, or a directory or tar of sysfs"
)
_CSV = re.compile(r"[0-9.,eE+ \t\r\nnaNA\-]*")
# What people have at hand instead, by how it begins; of those that fit the first.
_STRANGERS = (
    (r"processor\s*:", "/proc/cpuinfo, which does not name the caches and nodes"),
    (r"Machine \(|Machine L#", "lstopo's text: have it write XML, lstopo --of xml FILE"),
    (r"(?:Package|pack|NUMANode|numa|node|Core|core):[0-9]", "hwloc's synthetic description"),
    (r"# dmidecode|Handle 0x", "dmidecode's text"),
    (r"policy: ", "numactl --show: numactl --hardware is wanted"),
    (r"%YAML|---\s", "YAML"),
    (r"#!", "a script"),
    (r"\x7fELF", "a program"),
    (r"\x89PNG|GIF8|%PDF", "a picture or a document"),
)


def parse(text: str, *, where: str = "") -> Snapshot:
    """The host this text tells of. SyntaxFault, located by `where`, for a text of no known form."""
    text = text.removeprefix("\ufeff")
    match text.lstrip()[:1]:
        case "":
            raise SyntaxFault("the file is empty", where=where, hint=EXPECTED)
        case "<":
            return hwloc.parse(text.lstrip(), where=where)
        case "[":
            return ranking_json.snapshot(_json(text, where), where=where)
        case "{":
            return _object(text, where)
    if hosttext.is_one(text):
        return hosttext.parse(text, where=where)
    if not _CSV.fullmatch(text):
        raise SyntaxFault(_seems(text), where=where, hint=EXPECTED)
    return _of_csv(latency_csv.parse(text, where=where))


def _seems(text: str) -> str:
    """What a text of no form of ours seems to be."""
    for begins, words in _STRANGERS:
        if re.match(begins, text.lstrip()):
            return f"not a host's form: it seems to be {words}"
    first = text.strip().splitlines()[0][:40]
    return f"not a host's form: it begins with {first!r}"


def _object(text: str, where: str) -> Snapshot:
    """A JSON object: our snapshot, or what lscpu prints with -J."""
    if re.match(r'\s*\{\s*"(?:lscpu|cpus)"\s*:', text):
        raise SyntaxFault(
            "it seems to be lscpu's JSON", where=where, hint="give its text: lscpu -p, without -J"
        )
    return snapshot.parse(text, where=where)


def _json(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise SyntaxFault("no JSON", where=where) from None


def _of_csv(rows: Latencies) -> Snapshot:
    online = CpuSet.of(range(len(rows)))
    files = listed.files([Listed(cpu, core=cpu) for cpu in online], present=online)
    return Snapshot(CSV, "latencies without a topology", files, rows)
