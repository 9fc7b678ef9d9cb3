"""A host as the texts of lscpu and `numactl --hardware`, in one file, in any order.

Lines are sorted by who writes them; of lscpu's forms the one that says most is taken: -p, then -e,
then the plain one. A line that none of them writes is an error.
"""

import re
from dataclasses import dataclass, field

from proxmox_cpu_affinity.formats import listed, lscpu_summary, lscpu_table, numactl
from proxmox_cpu_affinity.formats.snapshot import Snapshot
from proxmox_cpu_affinity.formats.sysfiles import NODE_DIR
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault

ORIGIN = "lscpu"
_PARSABLE = re.compile(r"#.*|[0-9]+(?:,[^,:]*)+")
_COLUMN = r"(?:[A-Z]+%?|L[0-9][a-z]?(?::L[0-9][a-z]?)*)"
_TABLE_HEAD = re.compile(rf"\s*(?:{_COLUMN}\s+)*CPU(?:\s+{_COLUMN})*\s*")
_TABLE_ROW = re.compile(r"\s*[0-9]+(?:\s+[^\s]+)+\s*")
_SUMMARY = re.compile(r"\s*[A-Z][^:]{0,60}:.*")
_KNOWN = (
    re.compile(r"^(?:# The following is the parsable|# CPU,|available: [0-9]+ node)", re.M),
    re.compile(r"^(?:Architecture|On-line CPU\(s\) list|CPU\(s\)):", re.M),
    re.compile(rf"^\s*CPU(?:\s+{_COLUMN})+\s*$", re.M),
)


@dataclass(slots=True)
class _Lines:
    """Lines by who writes them."""

    parsable: list[str] = field(default_factory=list)
    table: list[str] = field(default_factory=list)
    summary: list[str] = field(default_factory=list)
    numactl: list[str] = field(default_factory=list)


def is_one(text: str) -> bool:
    """Whether it is a text of lscpu's or numactl's."""
    return any(form.search(text) for form in _KNOWN)


def parse(text: str, *, where: str = "") -> Snapshot:
    """The host of these texts. SyntaxFault, located by `where`, for what is none of them."""
    try:
        return _snapshot(_sorted(text))
    except SyntaxFault as fault:
        raise SyntaxFault(fault.text, where=where, hint=fault.hint) from None


def _sorted(text: str) -> _Lines:
    lines = _Lines()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        if numactl.is_line(line):
            lines.numactl.append(line)
        elif _PARSABLE.fullmatch(line):
            lines.parsable.append(line)
        elif (not lines.table and _TABLE_HEAD.fullmatch(line)) or (
            lines.table and _TABLE_ROW.fullmatch(line)
        ):
            lines.table.append(line)
        elif _SUMMARY.fullmatch(line):
            lines.summary.append(line)
        else:
            raise SyntaxFault(f"line {number}: neither lscpu nor numactl writes {line[:40]!r}")
    return lines


def _snapshot(lines: _Lines) -> Snapshot:
    known = lscpu_summary.fields(lines.summary)
    model = known.get("Model name", "")
    notes: list[str] = []
    if lines.parsable or lines.table:
        read = lscpu_table.parsable if lines.parsable else lscpu_table.columns
        table = read(lines.parsable or lines.table)
        cpus, present = table.cpus, table.present
    elif known:
        summary = lscpu_summary.summary(known)
        cpus, present = summary.cpus, summary.present
        notes += summary.notes
    else:
        raise SyntaxFault(
            "numactl alone does not say what the CPUs share",
            hint="put lscpu's text beside it: (lscpu -p; numactl --hardware) > FILE",
        )
    files = listed.files(cpus, present=present, model=model)
    notes.append("lscpu does not tell efficiency cores and isolated CPUs")
    if not lines.numactl:
        notes.append("without numactl --hardware nothing is known of memory and distances")
        return Snapshot(ORIGIN, model or "a host", files, notes=tuple(notes))
    theirs = numactl.files(lines.numactl, CpuSet.of(each.cpu for each in cpus))
    if numactl.contradicted(files, theirs):
        raise SyntaxFault("lscpu and numactl put the CPUs into different nodes")
    kept = {path: text for path, text in files.items() if not path.startswith(f"{NODE_DIR}/")}
    return Snapshot(ORIGIN, model or "a host", {**kept, **theirs}, notes=tuple(notes))
