"""`plan --json-lines`: the engine as a conversation, one JSON object a line each way.

    {"op":"machine","lat":[[ns]],"cpus":[{"cpu","core","l3","node","socket","kind"}],
     "reserved":[cpu],"expected":vCPUs,"weights":{...}}               -> {"ok":true}
    {"op":"start","vm":number,"vcpus":n,"exclusive":bool}             -> {"cpus":[cpu],"moves":{}}
    {"op":"stop","vm":number}                                         -> {"moves":{"vm":[cpu]}}
    {"op":"quit"}                                                     -> (ends)

The CPUs are in the order of the vCPUs. `moves` are running guests that are to be placed anew. What
cannot be read or done is answered with {"error":text}. Out of scope: the engine's reasons.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from proxmox_cpu_affinity.engine.facts import Host, Occupancy, Rules, Turn, compile_host
from proxmox_cpu_affinity.engine.place import place
from proxmox_cpu_affinity.engine.rebalance import Question, Ration, rebalanced
from proxmox_cpu_affinity.formats import jsonvalue
from proxmox_cpu_affinity.formats.machine import machine
from proxmox_cpu_affinity.model.errors import AffinityError, BadRequestError, UnplaceableError
from proxmox_cpu_affinity.model.guest import Policy, Request
from proxmox_cpu_affinity.model.ids import VMID_MAX, Vmid
from proxmox_cpu_affinity.model.placement import Fallback, Placement

VCPUS_MOST = 65536
Answer = dict[str, object]


@dataclass(frozen=True, slots=True)
class Talk:
    """Where a conversation stands: the host, and who is on it."""

    host: Host | None = None
    expected: int = 0
    turn: Turn = field(default_factory=Turn)
    ration: Ration = field(default_factory=Ration)
    placements: Mapping[Vmid, Placement] = field(default_factory=dict)


def converse(lines: Iterable[str | bytes], answer: Callable[[str], None]) -> None:
    """Answer each line until `quit` or the end."""
    talk = Talk()
    for line in lines:
        if not line.strip():
            continue
        try:
            message = jsonvalue.json_object(line)
            op = jsonvalue.text(message, "op")
            if op == "quit":
                return
            talk, said = _answered(talk, op, message)
        except AffinityError as error:
            said = {"error": error.text}
        answer(json.dumps(said, separators=(",", ":")))


def _answered(talk: Talk, op: str, message: Mapping[str, object]) -> tuple[Talk, Answer]:
    match op:
        case "machine":
            return _machine(message), {"ok": True}
        case "start":
            return _start(talk, message)
        case "stop":
            return _stop(talk, message)
        case _:
            raise BadRequestError(f"unknown op {op!r}")


def _machine(message: Mapping[str, object]) -> Talk:
    told = machine(message)
    rules = Rules(weights=told.weights, reserved=told.reserved, dedicated_fallback=Fallback.SHARED)
    return Talk(compile_host(told.topology, told.matrix, rules), told.expected)


def _start(talk: Talk, message: Mapping[str, object]) -> tuple[Talk, Answer]:
    host, vmid = _host(talk), _vmid(message)
    request = Request(
        vmid,
        jsonvalue.whole(message, "vcpus", low=1, high=VCPUS_MOST),
        Policy.DEDICATED
        if jsonvalue.boolean(message, "exclusive", default=False)
        else Policy.SHARED,
    )
    decision, turn = place(host, _occupancy(talk), talk.turn, request)
    found = len(decision.placement.home)
    if found < min(request.vcpus, len(host.usable)):
        raise UnplaceableError(f"dedicated guests leave {found} CPUs for {request.vcpus} vCPUs")
    placements = {**talk.placements, vmid: decision.placement}
    talk = replace(talk, turn=turn, placements=placements, ration=talk.ration.earned(1))
    return talk, {"cpus": _cpus(decision.placement), "moves": {}}


def _stop(talk: Talk, message: Mapping[str, object]) -> tuple[Talk, Answer]:
    host, vmid = _host(talk), _vmid(message)
    if vmid not in talk.placements:
        raise BadRequestError(f"VM {vmid} is not running")
    left = {other: placed for other, placed in talk.placements.items() if other != vmid}
    talk = replace(talk, placements=left, ration=talk.ration.earned(1))
    moves = rebalanced(Question(host, _occupancy(talk), talk.ration.moves))
    moved = {move.after.vmid: move.after for move in moves}
    ration = talk.ration.spent(len(moved))
    talk = replace(talk, placements={**left, **moved}, ration=ration)
    return talk, {"moves": {str(other): _cpus(placed) for other, placed in moved.items()}}


def _host(talk: Talk) -> Host:
    if talk.host is None:
        raise BadRequestError("no machine was described yet")
    return talk.host


def _vmid(message: Mapping[str, object]) -> Vmid:
    return Vmid(jsonvalue.whole(message, "vm", low=0, high=VMID_MAX))


def _occupancy(talk: Talk) -> Occupancy:
    return Occupancy(tuple(talk.placements.values()), talk.expected)


def _cpus(placement: Placement) -> list[int]:
    """vCPU i has the i-th; a CPU that several have is named once."""
    return list(dict.fromkeys(placement.order))
