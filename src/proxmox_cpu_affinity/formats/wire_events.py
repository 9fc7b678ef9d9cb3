"""What the stream of events (`GET /api/v1/events`) says: one type for each kind of event.

Times are ISO 8601, UTC. CPU sets are cpulists. Out of scope: ids and their order (service.stream).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class What(StrEnum):
    """What became of a guest."""

    PLACED = "placed"  # CPUs were chosen for it
    CONFINED = "confined"  # its threads were read back; `outcome` says how well
    MOVED = "moved"  # other CPUs were chosen
    REFUSED = "refused"  # no CPUs could be given
    RELEASED = "released"  # let go, and left alone
    GONE = "gone"  # it ended; its CPUs are free
    REPAIRED = "repaired"  # threads were elsewhere, and are back
    NOTE = "note"  # anything else that the log says of it


@dataclass(frozen=True, slots=True)
class GuestEvent:
    """Something happened to a guest."""

    time: str
    vmid: int
    what: str  # a value of What
    text: str  # the words of the log
    level: str  # info, warn
    cpus: str = ""  # those it has now
    outcome: str = ""  # full, part, failed, reserved, pending, or empty


@dataclass(frozen=True, slots=True)
class HostEvent:
    """CPUs came or went."""

    time: str
    online: str
    came: str
    went: str
    text: str


@dataclass(frozen=True, slots=True)
class MeasureEvent:
    """The latency is being measured, or was."""

    time: str
    what: str  # started, done
    verdict: str  # of the matrix in force
    measured_share: float  # of its pairs, 0 to 1
    text: str


@dataclass(frozen=True, slots=True)
class SettingsEvent:
    """Other settings are in force."""

    time: str
    strategy: str
    manage: str
    width: str
    text: str


@dataclass(frozen=True, slots=True)
class LoadEvent:
    """How busy the CPUs were since the last of these; has no id and is never sent again."""

    cpus: list[int]
    busy: list[float]  # of each of them, 0 to 1


@dataclass(frozen=True, slots=True)
class ResetEvent:
    """The reader has missed something, or is new: everything is to be fetched anew."""

    reason: str  # new, missed, restarted


Happening = GuestEvent | HostEvent | MeasureEvent | SettingsEvent

EVENTS: Mapping[str, type] = {
    "guest": GuestEvent,
    "host": HostEvent,
    "measure": MeasureEvent,
    "settings": SettingsEvent,
    "load": LoadEvent,
    "reset": ResetEvent,
}


def name_of(happening: Happening) -> str:
    """The kind of an event, as the stream names it."""
    return next(name for name, kind in EVENTS.items() if isinstance(happening, kind))
