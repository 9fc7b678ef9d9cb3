"""A host in one file: what its kernel says of the CPUs, as JSON that reads well in a diff.

    {"origin": "captured", "what": "...", "files": {path: value}, "latency_ns": [[...]],
     "notes": [text]}

Paths are without the root. Files of CPUs and nodes that hold the same are one entry, their numbers
as a cpulist in braces: `sys/devices/system/cpu/cpu{0-7,16}/topology/die_id`. Capturing is
linux.tree's work, understanding the files that of formats.sysfs.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from proxmox_cpu_affinity.formats.jsonvalue import unique
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault

CAPTURED = "captured"
"""The origin of what was read from a real kernel; every other origin says how it was made."""

_FILES_LIMIT = 250_000  # three times what 8192 CPUs have; braces could spell far more
_NUMBERED = re.compile(r"(sys/devices/system/(?:cpu/cpu|node/node))(0|[1-9][0-9]{0,3})(/.*)", re.S)
_FOLDED = re.compile(r"(sys/devices/system/(?:cpu/cpu|node/node))\{([^{}]*)\}(/.*)", re.S)

Latencies = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of a host, path to text, and where they are from.

    `latency_ns` is a full matrix in ns one way over the online CPUs in ascending order, or None.
    ValueError for a path with braces (no kernel has one) and for a matrix that is not square.
    """

    origin: str
    what: str
    files: Mapping[str, str]
    latency_ns: Latencies | None = None
    notes: tuple[str, ...] = ()  # what its source does not say, and what was guessed instead

    def __post_init__(self) -> None:
        for path in self.files:
            if "{" in path or "}" in path:
                raise ValueError(f"{path!r} has braces, which are for folded entries")
        rows = self.latency_ns or ()
        if any(len(row) != len(rows) for row in rows):
            raise ValueError("the latency matrix is not square")
        if not all(math.isfinite(ns) and ns >= 0 for row in rows for ns in row):
            raise ValueError("the latency matrix holds what is no latency")


def parse(text: str, *, where: str = "") -> Snapshot:
    """The snapshot a text spells. SyntaxFault, located by `where`, for everything else."""
    try:
        whole = json.loads(text, object_pairs_hook=unique, parse_constant=_no_constant)
        return _snapshot(whole)
    except RecursionError:
        raise SyntaxFault("nested too deeply", where=where) from None
    except (ValueError, OverflowError) as error:
        raise SyntaxFault(f"no host snapshot: {error}", where=where) from None
    except SyntaxFault as error:
        raise SyntaxFault(error.text, where=where, hint=error.hint) from None


def to_text(snapshot: Snapshot) -> str:
    """The snapshot as JSON: one file or row of latencies a line, sorted, with a line's end."""
    head = [f'"origin": {json.dumps(snapshot.origin)}', f'"what": {json.dumps(snapshot.what)}']
    lines = [
        f"  {json.dumps(path)}: {json.dumps(value)}" for path, value in _folded(snapshot.files)
    ]
    parts = [*head, '"files": {\n' + ",\n".join(lines) + "\n}"]
    if snapshot.latency_ns is not None:
        rows = ",\n".join(f"  {json.dumps(list(row))}" for row in snapshot.latency_ns)
        parts.append(f'"latency_ns": [\n{rows}\n]')
    if snapshot.notes:
        parts.append(f'"notes": {json.dumps(list(snapshot.notes))}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _folded(files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Entries by path, those that differ only in the number by the first number."""
    masks: dict[tuple[str, str, str], int] = {}
    plain: list[tuple[str, str, str, int]] = []
    for path, value in files.items():
        if match := _NUMBERED.fullmatch(path):
            key = (match[1], match[3], value)
            masks[key] = masks.get(key, 0) | 1 << int(match[2])
        else:
            plain.append((path, "", value, 0))
    entries = plain + [(*key, mask) for key, mask in masks.items()]
    for before, after, value, mask in sorted(entries, key=lambda e: (e[0], e[1], e[3] & -e[3])):
        yield (f"{before}{{{CpuSet(mask)}}}{after}" if mask else before), value


def _snapshot(whole: object) -> Snapshot:
    if not isinstance(whole, dict):
        raise SyntaxFault("a host snapshot is a JSON object")
    for key in sorted({"origin", "what", "files"} - whole.keys()):
        raise SyntaxFault(f"no host snapshot: it has no {key!r}")
    for key in sorted(whole.keys() - {"origin", "what", "files", "latency_ns", "notes"}):
        raise SyntaxFault(f"a host snapshot has no key {key!r}")
    latency = whole.get("latency_ns")
    return Snapshot(
        _text(whole.get("origin"), "origin"),
        _text(whole.get("what"), "what"),
        _unfolded(whole.get("files")),
        None if latency is None else _matrix(latency),
        _notes(whole.get("notes", [])),
    )


def _unfolded(entries: object) -> dict[str, str]:
    if not isinstance(entries, dict):
        raise SyntaxFault("files: must be an object of paths and texts")
    files: dict[str, str] = {}
    for key, value in entries.items():
        text = _text(value, f"files, {key}")
        match = _FOLDED.fullmatch(key)
        paths = [f"{match[1]}{n}{match[3]}" for n in CpuSet.parse(match[2])] if match else [key]
        for path in paths:
            if path in files:
                raise SyntaxFault(f"files: {path} is given twice")
            files[path] = text
        if not paths or len(files) > _FILES_LIMIT:
            raise SyntaxFault(f"files: {key} stands for {'too many files' if paths else 'no file'}")
    return files


def _matrix(rows: object) -> Latencies:
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise SyntaxFault("latency_ns: must be a list of lists of numbers")
    return tuple(tuple(_latency(cell) for cell in row) for row in rows)


def _notes(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise SyntaxFault("notes: must be a list of texts")
    return tuple(_text(note, "notes") for note in value)


def _latency(cell: object) -> float:
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        raise SyntaxFault(f"latency_ns: {cell!r} is no number")
    return float(cell)


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise SyntaxFault(f"{key}: must be a text")
    return value


def _no_constant(name: str) -> object:
    raise SyntaxFault(f"{name} is no number here")
