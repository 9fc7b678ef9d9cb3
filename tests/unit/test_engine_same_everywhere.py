"""The same facts give the same answer on every Python and numpy: digests of long histories.

What changes the engine's answers changes these; then write the digests that the test prints, having
looked at the score (make bench-placement).
"""

import hashlib
from random import Random

import pytest

from proxmox_cpu_affinity.engine.facts import Occupancy, Rules, Turn, compile_host
from proxmox_cpu_affinity.engine.place import place
from proxmox_cpu_affinity.engine.rebalance import Question, rebalanced
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.guest import Request
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Placement, Weights
from tests.unit.engine_hosts import shaken, topology_of

SIZES = (1, 1, 1, 2, 2, 2, 4, 4, 8)
DIGESTS = {
    "1x1x4x2": "a12cbdd4d8044bd1",
    "1x4x4x2": "e4c51df9d1069ee3",
    "2x2x8x2": "c975e5a0ca25aab1",
    "1x1x8x2+8e": "51c5d956697a5f3d",
}


def history(spec: str, *, most: float) -> str:
    """Every set that was chosen and every move that was made, with what it gains."""
    random, topology = Random(spec), topology_of(spec)
    matrix = shaken(predicted(topology), random, most=most)
    host = compile_host(topology, matrix, Rules(weights=Weights(smt_own=0.12)))
    held: dict[Vmid, Placement] = {}
    turn, lines = Turn(), []
    for i in range(60):
        vmid = Vmid(100 + i)
        request = Request(vmid, SIZES[int(random.random() * len(SIZES))])
        occupancy = Occupancy(tuple(held.values()), len(host.cpus))
        decision, turn = place(host, occupancy, turn, request)
        held[vmid] = decision.placement
        lines.append(f"{decision.placement.home} {decision.candidates}")
        if random.random() < 0.6:
            del held[sorted(held)[int(random.random() * len(held))]]
            for move in rebalanced(Question(host, Occupancy(tuple(held.values()), len(host.cpus)))):
                held[move.after.vmid] = move.after
                lines.append(f"{move.after.vmid} {move.after.home} {move.gain!r}")
    return "\n".join(lines)


@pytest.mark.parametrize("spec", DIGESTS)
def test_decisions_are_those_of_every_other_interpreter(spec: str) -> None:
    told = "".join(history(spec, most=most) for most in (0.0, 0.4))
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == DIGESTS[spec]
