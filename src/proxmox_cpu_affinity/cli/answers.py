"""Answers of the API as values: JSON into the types of formats.wire.

A field that this program does not know is passed over, for the service may be a newer one; one
that is missing or of another kind is an error that names it. Out of scope: the connection (client).
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import TypeVar

from proxmox_cpu_affinity.model.errors import AffinityError

T = TypeVar("T")
_PLAIN = (str, bool, int)


def strange(text: str) -> AffinityError:
    """The error for an answer that is not of the contract."""
    return AffinityError(
        f"the service's answer is not understood: {text}",
        hint="if it is of another version than this program, restart it",
    )


def read(kind: type[T], value: object) -> T:
    """The value as a wire type. AffinityError."""
    made = _made(kind, value, kind.__name__)
    assert isinstance(made, kind)
    return made


def read_list(kind: type[T], value: object) -> list[T]:
    """A list of wire values. AffinityError."""
    if not isinstance(value, list):
        raise strange(f"no list of {kind.__name__}")
    return [read(kind, entry) for entry in value]


@cache
def _hints(kind: type) -> Mapping[str, object]:
    return typing.get_type_hints(kind)


def _made(kind: object, value: object, where: str) -> object:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _made(parts[0], value, where)
    if origin is list and isinstance(value, list):
        return [_made(parts[0], entry, where) for entry in value]
    if origin is dict and isinstance(value, dict):
        return {key: _made(parts[1], entry, f"{where}, {key}") for key, entry in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in _PLAIN and type(value) is kind:
        return value
    raise strange(where)


def _dataclass(kind: type, value: object, where: str) -> object:
    if not isinstance(value, dict):
        raise strange(where)
    given = {}
    for field in dataclasses.fields(kind):
        here = f"{where}, {field.name}"
        if field.name in value:
            given[field.name] = _made(_hints(kind)[field.name], value[field.name], here)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise strange(f"{here} is missing")
    return kind(**given)
