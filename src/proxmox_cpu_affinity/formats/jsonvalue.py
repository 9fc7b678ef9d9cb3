"""The door for JSON: text to typed values and back. Getters name the key that is wrong.

Out of scope: what the keys mean (wire, the caches).
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from enum import Enum

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import BadRequestError

_TYPE_NAMES = {bool: "true or false", int: "a whole number", str: "a text", list: "a list"}


def json_object(text: str | bytes) -> Mapping[str, object]:
    """The JSON object a text spells; empty text is an empty object. BadRequestError, also for a
    key that stands twice in one object: one of its values would be dropped."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise BadRequestError("not JSON that can be read: nested too deeply") from None
    except ValueError as error:
        raise BadRequestError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequestError("not a JSON object")
    return value


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON, for json.loads. ValueError for a key that is given twice."""
    whole = dict(pairs)
    if len(whole) != len(pairs):
        raise ValueError("a key is given twice in one object")
    return whole


def only(value: Mapping[str, object], *known: str) -> None:
    """Refuse keys that nobody reads: a misspelt one would be a wish that is silently dropped."""
    unknown = sorted(set(value) - set(known))
    if unknown:
        listed = ", ".join(known) or "none"
        raise BadRequestError(f"unknown field {unknown[0]!r}", hint=f"fields allowed: {listed}")


def boolean(value: Mapping[str, object], key: str, *, default: bool | None = None) -> bool:
    """The truth under a key. BadRequestError for another thing, or none and no default."""
    found = value.get(key, default)
    if not isinstance(found, bool):
        raise _wrong(key, bool)
    return found


def whole(value: Mapping[str, object], key: str, *, low: int, high: int) -> int:
    """The whole number from `low` to `high` under a key. BadRequestError for anything else."""
    found = value.get(key)
    if not isinstance(found, int) or isinstance(found, bool):
        raise _wrong(key, int)
    if not low <= found <= high:
        raise BadRequestError(f"{key!r} must be from {low} to {high}")
    return found


def text(value: Mapping[str, object], key: str, default: str | None = None) -> str:
    """The text under a key. BadRequestError for another thing, or none and no default."""
    found = value.get(key, default)
    if not isinstance(found, str):
        raise _wrong(key, str)
    return found


def objects(value: Mapping[str, object], key: str, *, most: int) -> list[Mapping[str, object]]:
    """The objects of the list under a key, `most` at most. BadRequestError for anything else."""
    found = value.get(key)
    if not isinstance(found, list):
        raise _wrong(key, list)
    if len(found) > most:
        raise BadRequestError(f"{key!r} may hold {most} entries at most")
    if not all(isinstance(entry, dict) for entry in found):
        raise BadRequestError(f"every entry of {key!r} must be an object")
    return found


def items(value: object) -> list[object]:
    """The entries of a list. TypeError for anything else."""
    if not isinstance(value, list):
        raise TypeError("no list")
    return value


def nanoseconds(value: object) -> float:
    """A latency. TypeError for what is no number, ValueError for one that no latency is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("no number")
    try:
        ns = float(value)
    except OverflowError:  # JSON's whole numbers have no end
        ns = math.inf
    if not (math.isfinite(ns) and ns >= 0):
        raise ValueError("no latency")
    return ns


def _wrong(key: str, kind: type) -> BadRequestError:
    return BadRequestError(f"{key!r} must be {_TYPE_NAMES[kind]}")


def plain(value: object) -> object:
    """A value of dataclasses, enums, CPU sets and containers as what json.dumps takes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type | CpuSet):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, CpuSet):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form")
