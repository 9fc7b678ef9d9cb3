"""PURE: a latency matrix as a document for JSON and back, and whether a kept one may be used.

Out of scope: files and their checksums (store), gathering the facts (facts.py). Nothing in a
document, however broken, raises: it makes a reason, and the host is measured again.
"""

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

from proxmox_cpu_affinity.formats.jsonvalue import items, nanoseconds
from proxmox_cpu_affinity.model.cpuset import CPU_LIMIT
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.latency import LatencyMatrix, Method, Verdict

VERSION = 2  # 1: measured one pair at a time, its lines where they happened to be

HOTPLUGGED = frozenset({"online CPUs", "caches"})
"""The facts that CPU hotplug changes; what was measured of the CPUs that stayed still holds."""

_Word = TypeVar("_Word", Verdict, Method)


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a kept matrix is not used, in words for the log."""

    reason: str


def fingerprint(facts: Mapping[str, str]) -> str:
    """The facts that a matrix holds for, as one canonical text; equal facts, equal text."""
    return json.dumps(dict(facts), sort_keys=True, separators=(",", ":"))


def encoded(matrix: LatencyMatrix, fingerprint: str) -> dict[str, object]:
    """The document: pairs row by row above the diagonal, in ns; `measured` a digit for each."""
    count = len(matrix.cpus)
    rows = [range(i * count + i + 1, (i + 1) * count) for i in range(count)]
    return {
        "version": VERSION,
        "fingerprint": fingerprint,
        "method": str(matrix.method),
        "verdict": str(matrix.verdict),
        "conditions": list(matrix.conditions),
        "cpus": list(matrix.cpus),
        "ns": [matrix.ns[cell] for row in rows for cell in row],
        "spread": [matrix.spread[cell] for row in rows for cell in row],
        "measured": "".join("01"[matrix.measured[cell]] for row in rows for cell in row),
    }


def usable(cached: object, fingerprint: str) -> LatencyMatrix | Unusable:
    """The matrix of a document that was made on this host as it is now, or why there is none."""
    if not isinstance(cached, dict):
        return Unusable("the kept latencies are no document")
    if cached.get("version") != VERSION:
        return Unusable("the kept latencies are of another version of this program")
    then = cached.get("fingerprint")
    if then != fingerprint:
        return Unusable(f"this host changed since it was measured: {_changes(then, fingerprint)}")
    try:
        return _matrix(cached)
    except (ValueError, KeyError, TypeError):
        return Unusable("the kept latencies are damaged")


def better(old: LatencyMatrix | None, new: LatencyMatrix) -> LatencyMatrix:
    """The one to keep. Keys, higher first: verdict, share of measured pairs, the new one.

    Only for matrices of the same host as it is now: another fingerprint always loses to a new run.
    """
    if old is None or old.cpus != new.cpus:
        return new
    return new if _worth(new) >= _worth(old) else old


def _worth(matrix: LatencyMatrix) -> tuple[int, float]:
    order = (Verdict.PREDICTED, Verdict.UNSTABLE, Verdict.TRUSTED)
    return order.index(matrix.verdict), matrix.share_measured()


def _changes(then: object, now: str) -> str:
    """The names of the facts that differ."""
    before, after = _facts(then), _facts(now)
    names = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return ", ".join(names) or "no facts known"


def _facts(text: object) -> dict[str, object]:
    try:
        facts = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        facts = None
    return facts if isinstance(facts, dict) else {}


def _matrix(body: Mapping[str, object]) -> LatencyMatrix:
    """ValueError, KeyError or TypeError for what encoded() never makes."""
    cpus = tuple(Cpu(_whole(cpu)) for cpu in items(body["cpus"]))
    count = len(cpus)
    if list(cpus) != sorted(set(cpus)):
        raise ValueError("CPUs out of order")
    measured = body["measured"]
    if (
        not isinstance(measured, str)
        or measured.strip("01")
        or len(measured) != math.comb(count, 2)
    ):
        raise ValueError("measured")
    flags = bytearray(count * count)
    for (i, j), digit in zip(combinations(range(count), 2), measured, strict=True):
        flags[i * count + j] = flags[j * count + i] = int(digit)
    return LatencyMatrix(
        cpus,
        _mirrored(items(body["ns"]), count),
        _mirrored(items(body["spread"]), count),
        bytes(flags),
        _word(Verdict, body["verdict"]),
        _word(Method, body["method"]),
        tuple(_text(condition) for condition in items(body["conditions"])),
    )


def _mirrored(values: list[object], count: int) -> "array[float]":
    cells = array("d", bytes(8 * count * count))
    for (i, j), value in zip(combinations(range(count), 2), values, strict=True):
        cells[i * count + j] = cells[j * count + i] = nanoseconds(value)
    return cells


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < CPU_LIMIT:
        raise TypeError("no CPU number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _word(words: type[_Word], value: object) -> _Word:
    return words(_text(value))
