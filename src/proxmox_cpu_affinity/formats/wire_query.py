"""What stands behind the question mark of a path: declared with the endpoint, read strictly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxmox_cpu_affinity.model.errors import BadRequestError


@dataclass(frozen=True, slots=True)
class Parameter:
    """One word of a query: one of `choices`, or a whole number from `low` to `high`."""

    name: str
    summary: str
    choices: tuple[str, ...] = ()
    low: int = 0
    high: int = 0
    required: bool = False

    @property
    def is_number(self) -> bool:
        return not self.choices


def checked(query: Mapping[str, str], known: Sequence[Parameter]) -> Mapping[str, str]:
    """The query as it came. BadRequestError for what nobody reads, what lacks, and bad values."""
    names = [parameter.name for parameter in known]
    for name in query:
        if name not in names:
            listed = ", ".join(names) or "none"
            raise BadRequestError(f"unknown parameter {name[:40]!r}", hint=f"allowed: {listed}")
    for parameter in known:
        _check(parameter, query.get(parameter.name))
    return query


def _check(parameter: Parameter, value: str | None) -> None:
    if value is None:
        if parameter.required:
            hint = f"{parameter.summary}, {_allowed(parameter)}"
            raise BadRequestError(f"{parameter.name!r} is missing", hint=hint)
        return
    if parameter.is_number:
        good = value.isascii() and value.isdigit() and len(value) <= 9
        good = good and parameter.low <= int(value) <= parameter.high
    else:
        good = value in parameter.choices
    if not good:
        raise BadRequestError(
            f"{parameter.name!r} cannot be {value[:40]!r}", hint=f"it is {_allowed(parameter)}"
        )


def _allowed(parameter: Parameter) -> str:
    if parameter.is_number:
        return f"a number from {parameter.low} to {parameter.high}"
    return f"one of {', '.join(parameter.choices)}"
