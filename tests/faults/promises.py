"""What must hold of a real node through any history; each check says what is wrong, in words.

`never` holds at every moment. `settled` holds once nobody does anything and the service has had its
time: who asks waits until it does.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from tests.faults.history import VMIDS
from tests.faults.observed import kept, left_over, main_section, managed, masks, next_start
from tests.faults.playground import CPUS, Playground, Tormented, rows
from tests.integration.running import cpus_of

ALL = frozenset(CPUS)
# What the interpreter tells of half a loop, for which there was no descriptor.
_HALF_A_LOOP = re.compile(r"<function BaseEventLoop\.__del__ at \w+>\nTraceback")
_TRACEBACK = re.compile(r"Traceback .*:\n(?:[ |+].*\n)*(.*)")
HELD_AT_MOST = 2.0  # seconds that a hook may take from a start (DESIGN 2)


@dataclass(slots=True)
class Known:
    """What the history itself knows, and the node does not show."""

    manage: str = "tag"
    modes: set[str] = field(default_factory=lambda: {"tag"})  # that may be in force
    ours: set[int] = field(default_factory=set)  # managed at some time since their last start
    born: dict[int, frozenset[int]] = field(default_factory=dict)  # the CPUs that PVE gave them
    released: dict[int, int] = field(default_factory=dict)  # let go by hand; in which process
    # Masks of theirs may stay, as nobody knows any more that they are ours, or CPUs were offline
    # when they were given back.
    forgotten: set[int] = field(default_factory=set)
    full: bool = False  # so nothing was saved lately
    unreadable: set[int] = field(default_factory=set)
    offline: tuple[int, ...] = ()


def keys_of(ground: Playground, vmid: int, *, at_start: bool = False) -> dict[str, str]:
    """A guest's configuration on this node, or on its way to it; empty where there is none."""
    for file in (ground.file(vmid), ground.away(vmid)):
        with suppress(OSError):
            text = file.read_text()
            return next_start(text) if at_start else main_section(text)
    return {}


def meddled(ground: Playground, known: Known) -> None:
    """Note which guests may be ours now: called before and after whatever may change that."""
    for vmid in VMIDS:
        keys = keys_of(ground, vmid)
        if not keys or any(managed(keys, mode) for mode in known.modes):
            known.ours.add(vmid)


def begins(ground: Playground, known: Known, vmid: int) -> None:
    """A new process of a guest is about to be: what was known of the old one is over."""
    known.ours.discard(vmid)
    known.forgotten.discard(vmid)
    known.released.pop(vmid, None)
    keys = keys_of(ground, vmid, at_start=True)
    affinity = keys.get("affinity", "0")
    known.born[vmid] = ALL if affinity == "0" else frozenset(cpus_of(affinity))
    if any(managed(keys, mode) for mode in known.modes):
        known.ours.add(vmid)
    meddled(ground, known)


# -- at every moment -------------------------------------------------------------------------------


def never(ground: Playground, service: Tormented, known: Known) -> Iterator[str]:
    """What must not be, at any moment."""
    for process in ground.bystanders:
        if process.poll() is not None:
            yield f"a process of nobody's ended: {process.args!r}"
        elif masks(process.pid) != {process.pid: ground.born[process.pid]}:
            yield f"a process of nobody's was touched: {masks(process.pid)}"
    for vmid in VMIDS:
        pid = ground.node.pid(vmid)
        if pid is not None and vmid not in known.ours:
            strange = _strange(pid, known.born.get(vmid, ALL))
            if strange:
                yield f"guest {vmid} is not ours and was touched: {strange}"
    for error in _TRACEBACK.findall(_HALF_A_LOOP.sub("", service.log)):
        yield f"the service met with what it did not foresee: {error}"
    try:
        kept(ground.node)
    except Exception as error:  # whatever it is, the file is not as it must be
        yield f"the state file is damaged: {error!r}"
    yield from _hooks(ground)


def _hooks(ground: Playground) -> Iterator[str]:
    for line in ground.hooks.read_text().splitlines():
        vmid, phase, began, ended, status = line.split()
        took = float(ended) - float(began)
        if status != "0":
            yield f"the hook failed with {status}: {vmid} {phase}"
        if too_long(ground, took):
            yield f"the hook took {took:.2f} s: {vmid} {phase}"


def too_long(ground: Playground, took: float) -> bool:
    """Whether a hook held a start, and not a busy machine both."""
    return took > HELD_AT_MOST and took > HELD_AT_MOST + 3 * ground.unhindered()


# -- when all is quiet -----------------------------------------------------------------------------


def settled(ground: Playground, service: Tormented, known: Known) -> list[str]:
    """What is wrong now; it may be that the service has only not come to it yet."""
    if not service.alive:
        return [f"the service ended with {service.process.returncode}"]
    try:
        said = rows(service)
        state = kept(ground.node) if not known.full else None
    except (OSError, ValueError) as error:
        return [f"nobody answers: {error!r}"]
    tracked = None if state is None else state["tracked"]
    wrong = [f"left over: {name}" for name in left_over(ground.node)]
    for vmid in VMIDS:
        if vmid not in known.unreadable:
            row = said.get(vmid, {})
            pid = ground.node.pid(vmid)
            wrong += (
                _gone(vmid, row) if pid is None else _runs(ground, known, vmid, pid=pid, row=row)
            )
            wrong += _recorded(vmid, pid, row, tracked)
    return wrong


def _gone(vmid: int, row: dict[str, object]) -> list[str]:
    recorded = {key: row[key] for key in ("pid", "cpus", "outcome") if row.get(key)}
    return [f"guest {vmid} does not run, and there is of it {recorded}"] if recorded else []


def _runs(
    ground: Playground, known: Known, vmid: int, *, pid: int, row: dict[str, object]
) -> list[str]:
    if not managed(keys_of(ground, vmid), known.manage):
        return _free(known, vmid, pid, row)
    free = row.get("reason_code") == "released"
    if free != (known.released.get(vmid) == pid) and vmid not in known.forgotten:
        return [f"guest {vmid}: let go by hand: {not free}, said to be: {free}"]
    if free:
        return _free(known, vmid, pid, row)
    if row.get("refused"):
        return []  # it may be: what is refused, and why, is the engine's matter
    return _held(vmid, pid, row)


def _held(vmid: int, pid: int, row: dict[str, object]) -> list[str]:
    """Confined as recorded, by the kernel's own word."""
    if (row.get("pid"), row.get("outcome")) != (pid, "full"):
        return [f"guest {vmid} runs as {pid} and is not held: {row}"]
    applied = _cpus(row["applied"])
    parts = frozenset(CPUS) if row["policy"] == "pinned" else applied
    found = masks(pid)
    strange = {t: cpus for t, cpus in found.items() if not (cpus == applied or cpus < parts)}
    if strange or not found:
        return [f"guest {vmid} is recorded on {sorted(applied)}, and has {found}"]
    return []


def _free(known: Known, vmid: int, pid: int, row: dict[str, object]) -> list[str]:
    if row.get("cpus") or row.get("outcome"):
        return [f"guest {vmid} is not ours, and there is of it {row}"]
    strange = _strange(pid, known.born.get(vmid, ALL))
    if strange and vmid not in known.forgotten:
        return [f"guest {vmid} is not ours, and held: {strange}"]
    return []


def _recorded(vmid: int, pid: int | None, row: dict[str, object], tracked: object) -> list[str]:
    """What is on disk is what is said."""
    if tracked is None:
        return []
    assert isinstance(tracked, dict)
    entry = tracked.get(str(vmid))
    if entry is None:
        return [f"guest {vmid} is held and not recorded"] if row.get("outcome") == "full" else []
    if pid is None or entry["process"] is None or entry["process"][0] != pid:
        return [f"guest {vmid} runs as {pid}; on disk there is {entry['process']}"]
    if _cpus(entry["applied"]) != _cpus(row.get("applied", "")):
        return [f"guest {vmid}: on disk {entry['applied']}, said {row.get('applied')}"]
    return []


def _strange(pid: int, born: frozenset[int]) -> dict[int, frozenset[int]]:
    """Threads that have other CPUs than the guest was given by PVE."""
    return {tid: cpus for tid, cpus in masks(pid).items() if cpus != born}


def _cpus(text: object) -> frozenset[int]:
    return frozenset(cpus_of(str(text))) if text else frozenset()
