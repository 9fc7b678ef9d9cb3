"""The state as JSON and back: what must outlive the service, and nothing that can be derived."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from proxmox_cpu_affinity.engine.facts import Turn
from proxmox_cpu_affinity.engine.rebalance import SAVED, Ration
from proxmox_cpu_affinity.formats import jsonvalue
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.guest import GuestProcess, Policy
from proxmox_cpu_affinity.model.ids import Cpu, Pid, Tid, Vmid, vmid_of
from proxmox_cpu_affinity.model.placement import Held, Placement
from proxmox_cpu_affinity.reconcile import State, Tracked
from proxmox_cpu_affinity.reconcile.state import Leaving
from proxmox_cpu_affinity.reconcile.strain import Strain

_CPU_MOST = 65535
_OWED_MOST = 1 << 30

# What files of earlier versions do not have.
_LATER: Mapping[str, object] = {
    "leaving": {},
    "ration": 0,
    "released_runs": {},
    "strained": {},
}

Masks = tuple[tuple[Tid, CpuSet], ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """What was kept, before it is put into a state."""

    tracked: Mapping[Vmid, Tracked] = field(default_factory=dict)
    released: frozenset[Vmid] = frozenset()
    released_runs: Mapping[Vmid, GuestProcess] = field(default_factory=dict)
    leaving: Mapping[Vmid, Leaving] = field(default_factory=dict)
    last_places: Mapping[Vmid, CpuSet] = field(default_factory=dict)
    turn: Turn = field(default_factory=Turn)
    ration: Ration = field(default_factory=Ration)
    strain: Mapping[Vmid, Strain] = field(default_factory=dict)  # of those that have their nodes


def to_json(state: State, *, boot_id: str) -> dict[str, object]:
    """The state as a JSON-able mapping; `boot_id` because pids are unique within one boot only."""
    return {
        "boot_id": boot_id,
        "turn": {"last_start": state.turn.last_start, "counter": state.turn.counter},
        "ration": state.ration.tenths,
        "released": sorted(state.released),
        "released_runs": {
            str(v): {"process": _process_to_json(one)} for v, one in state.released_runs.items()
        },
        "leaving": {str(v): _leaving_to_json(one) for v, one in state.leaving.items()},
        "last_places": {str(v): str(cpus) for v, cpus in state.last_places.items()},
        "tracked": {str(v): _tracked_to_json(t) for v, t in state.tracked.items()},
        "strained": {str(v): one.calm for v, one in state.strain.items() if one.wide},
    }


def _leaving_to_json(leaving: Leaving) -> dict[str, object]:
    return {"process": _process_to_json(leaving.process), "found": _masks_to_json(leaving.found)}


def _process_to_json(process: GuestProcess) -> list[int]:
    return [process.pid, process.start_time]


def _masks_to_json(found: Masks) -> dict[str, str]:
    return {str(tid): str(mask) for tid, mask in found}


def _tracked_to_json(tracked: Tracked) -> dict[str, object]:
    placement, process = tracked.placement, tracked.process
    return {
        "home": str(placement.home),
        "applied": str(placement.applied),
        "order": list(placement.order),
        "start": placement.start,
        "parts": [str(part) for part in placement.parts],
        "part_of": list(placement.part_of),
        "exclusive": placement.exclusive,
        "pinned": placement.pinned,
        "warnings": list(placement.warnings),
        "since": tracked.since,
        "process": None if process is None else _process_to_json(process),
        "found": None if tracked.found is None else _masks_to_json(tracked.found),
        "held": tracked.held,
        "policy": tracked.policy,
        "confined_at": tracked.confined_at,
        "void": tracked.void,
    }


def from_json(kept: Mapping[str, object], *, boot_id: str) -> Memory:
    """What was kept. AffinityError where it is not what to_json writes.

    After another boot nothing runs that ran before: places and turn remain.
    """
    kept = {**_LATER, **kept}
    try:
        memory = Memory(
            tracked={v: _tracked(v, t) for v, t in _by_vmid(kept, "tracked").items()},
            released=frozenset(Vmid(int(v)) for v in _entries(kept, "released")),
            released_runs={
                v: _process(v, _mapping(e)) for v, e in _by_vmid(kept, "released_runs").items()
            },
            leaving={v: _leaving(v, e) for v, e in _by_vmid(kept, "leaving").items()},
            last_places={
                v: CpuSet.parse(_string(cpus)) for v, cpus in _by_vmid(kept, "last_places").items()
            },
            turn=_turn(kept.get("turn")),
            ration=Ration(jsonvalue.whole(kept, "ration", low=-_OWED_MOST, high=SAVED)),
            strain={v: _strain(c) for v, c in _by_vmid(kept, "strained").items()},
        )
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise SyntaxFault(f"the state file is not understood ({error})") from None
    if kept.get("boot_id") == boot_id:
        return memory
    places = {v: t.placement.home for v, t in memory.tracked.items()}
    return replace(
        memory,
        tracked={},
        released=frozenset(),
        released_runs={},
        leaving={},
        strain={},
        last_places={**memory.last_places, **places},
    )


def remembering(state: State, memory: Memory) -> State:
    """The state with what was kept."""
    return replace(
        state,
        tracked=memory.tracked,
        released=memory.released,
        released_runs=memory.released_runs,
        leaving=memory.leaving,
        last_places=memory.last_places,
        turn=memory.turn,
        ration=memory.ration,
        strain=memory.strain,
    )


def without_reservations(memory: Memory) -> Memory:
    """Nobody knows how starts that were under way went on, and a drop-in that is laid down again
    could outlive its start. Their places are remembered."""
    tracked = {v: kept for v, kept in memory.tracked.items() if kept.process is not None}
    places = {v: kept.placement.home for v, kept in memory.tracked.items() if v not in tracked}
    return replace(memory, tracked=tracked, last_places={**memory.last_places, **places})


def _tracked(vmid: Vmid, value: object) -> Tracked:
    entry = _mapping(value)
    parts = tuple(CpuSet.parse(_string(part)) for part in _entries(entry, "parts"))
    part_of = tuple(int(k) for k in _entries(entry, "part_of")) if "part_of" in entry else ()
    if any(not 0 <= k < len(parts) for k in part_of):
        raise ValueError("part_of")
    placement = Placement(
        vmid=vmid,
        home=CpuSet.parse(jsonvalue.text(entry, "home")),
        applied=CpuSet.parse(jsonvalue.text(entry, "applied")),
        order=tuple(Cpu(int(cpu)) for cpu in _entries(entry, "order")),
        start=Cpu(jsonvalue.whole(entry, "start", low=0, high=_CPU_MOST)),
        parts=parts,
        exclusive=jsonvalue.boolean(entry, "exclusive"),
        pinned=jsonvalue.boolean(entry, "pinned"),
        warnings=tuple(_string(line) for line in _entries(entry, "warnings")),
        part_of=part_of,
        spans=parts if part_of else (),
    )
    process = None if entry["process"] is None else _process(vmid, entry)
    found = None if entry["found"] is None else _masks(entry["found"])
    policy = Policy(jsonvalue.text(entry, "policy"))
    held = None if entry["held"] is None else Held(jsonvalue.text(entry, "held"))
    confined_at = entry.get("confined_at")  # this and `void`: not in files of earlier versions
    return Tracked(
        placement,
        process,
        _number(entry["since"]),
        found=found,
        held=held,
        policy=policy,
        confined_at=None if confined_at is None else _number(confined_at),
        void=jsonvalue.boolean(entry, "void", default=False),
    )


def _leaving(vmid: Vmid, value: object) -> Leaving:
    entry = _mapping(value)
    return Leaving(_process(vmid, entry), _masks(entry["found"]))


def _strain(calm: object) -> Strain:
    return Strain(wide=True, calm=_number(calm))


def _process(vmid: Vmid, entry: Mapping[str, object]) -> GuestProcess:
    pid, start_time = _entries(entry, "process")
    return GuestProcess(vmid, Pid(int(pid)), int(start_time))


def _masks(value: object) -> Masks:
    masks = _mapping(value).items()
    return tuple((Tid(int(tid)), CpuSet.parse(_string(mask))) for tid, mask in masks)


def _turn(value: object) -> Turn:
    entry = _mapping(value)
    counter = jsonvalue.whole(entry, "counter", low=0, high=_CPU_MOST)
    if entry["last_start"] is None:
        return Turn(None, counter)
    return Turn(Cpu(jsonvalue.whole(entry, "last_start", low=0, high=_CPU_MOST)), counter)


def _by_vmid(value: Mapping[str, object], key: str) -> dict[Vmid, object]:
    found = {vmid_of(number): entry for number, entry in _mapping(value.get(key)).items()}
    if None in found:
        raise ValueError(key)
    return {vmid: entry for vmid, entry in found.items() if vmid is not None}


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def _entries(value: Mapping[str, object], key: str) -> list[int | str]:
    found = value.get(key)
    if not isinstance(found, list):
        raise TypeError(key)
    return found


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError("not a number")
    return float(value)


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
