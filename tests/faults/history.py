"""Histories of a node and its service, drawn from a seed; and how one that fails is made small.

What a happening means is for who plays it: memory.py against the brain alone, real.py with
processes. What cannot happen when its turn comes is nothing.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

VMIDS = range(100, 105)
TAGS = ("cpu-affinity-off", "cpu-affinity", "none", "cpu-affinity;cpu-dedicated", "cpu-pinned")
HOOKS = ("pre-start", "post-start", "pre-stop", "post-stop")


class Kind(StrEnum):
    """What may happen, to a guest first, then to the service, to the node last."""

    START = "start"
    STOP = "stop"
    CRASH = "crash"
    REBOOT = "reboot"
    AWAY = "migrates away"
    BACK = "migrates here"
    EDIT = "config edited"
    TAG = "tags set"
    ROLLBACK = "rolled back"
    HINT = "a hook's call too many"
    DRIFT = "masks changed by somebody"
    THREAD = "a thread more"
    REASSIGN = "reassign"
    UNDO = "undo"
    UNREADABLE = "config unreadable"

    SCAN = "scan"
    LATE_SCAN = "a scan that began before"
    KILL = "service killed"
    LOST = "service killed and its state lost"
    FREEZE = "service stopped by SIGSTOP"
    THAW = "service continued"
    RELOAD = "settings changed, SIGHUP"
    MEASURED = "measured anew"

    FULL = "disk full"
    ROOM = "disk has room"
    CPUS = "CPUs on or off"
    UNMOUNT = "/etc/pve gone"
    MOUNT = "/etc/pve back"
    BUS_LOST = "D-Bus gone"
    BUS_BACK = "D-Bus back"
    DEAF = "systemd does not answer"
    HEARING = "systemd answers"

    # With real processes only.
    DEAD = "service killed, not started again yet"
    RESTART = "service ended and started"
    RELEASE = "service ended, all guests let go, service started"
    SECOND = "a second service"
    CLOCK = "the clock jumps"
    POWER = "node switched off and on"
    QM = "qm hangs or has no quorum"


_REAL_ALONE = (
    Kind.DEAD,
    Kind.RESTART,
    Kind.RELEASE,
    Kind.SECOND,
    Kind.CLOCK,
    Kind.POWER,
    Kind.QM,
)
# What there is of threads and systemd is the simulated node's own matter.
_MEMORY_ALONE = (
    Kind.THREAD,
    Kind.LATE_SCAN,
    Kind.MEASURED,
    Kind.BUS_LOST,
    Kind.BUS_BACK,
    Kind.DEAF,
    Kind.HEARING,
)
IN_MEMORY = tuple(kind for kind in Kind if kind not in _REAL_ALONE)
REAL = tuple(kind for kind in Kind if kind not in _MEMORY_ALONE)

# Guests live more than they are edited, and faults come between, not instead.
WEIGHTS = {Kind.START: 8, Kind.STOP: 5, Kind.SCAN: 6, Kind.CRASH: 2, Kind.TAG: 2, Kind.EDIT: 2}


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that may happen, so many seconds after the last."""

    after: float
    kind: Kind
    vmid: int
    which: int  # which of the kind's variants, 0-99

    def __str__(self) -> str:
        return f"+{self.after:g} {self.kind} ({self.vmid}, {self.which})"


History = tuple[Happening, ...]


def history(seed: int, *, kinds: Sequence[Kind] = IN_MEMORY, most: int = 30) -> History:
    """The history of a seed: the same on every Python."""
    chance = random.Random(seed)
    weights = [WEIGHTS.get(kind, 1) for kind in kinds]
    return tuple(
        Happening(
            after=chance.choice((0.5, 10.0, 31.0, 121.0)),
            kind=chance.choices(kinds, weights)[0],
            vmid=chance.choice(VMIDS),
            which=chance.randrange(100),
        )
        for _ in range(chance.randint(1, most))
    )


def shrunk(whole: History, fails: Callable[[History], bool], *, tries: int = 2000) -> History:
    """A part of a history that fails and of which nothing can be left out; or as far as the tries
    go. Parts that get smaller are left out one after the other, as in delta debugging."""
    part = max(1, len(whole) // 2)
    while tries > 0:
        left_out = False
        start = 0
        while start < len(whole) and tries > 0:
            without = whole[:start] + whole[start + part :]
            tries -= 1
            if without and fails(without):
                whole, left_out = without, True
            else:
                start += part
        if part == 1 and not left_out:
            break
        part = part if left_out and part == 1 else max(1, part // 2)
    return whole
