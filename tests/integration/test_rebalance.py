"""PCA_REBALANCE with real processes: a guest that shares a CPU moves to the one that came free.

Guests that started within the last minute stay where they are. So that nobody waits for it, the
service is ended, and what its state file says of when they started is a minute earlier.
"""

import os
from collections.abc import Mapping

import pytest

from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.store import JsonFile
from tests.integration.running import Running, add_guest, masks
from tests.integration.test_trial import who_has_its_own

GUESTS = (100, 101, 102)
LONG = 120.0
STATE = "/var/lib/proxmox-cpu-affinity/state.json"


def settings(rebalance: str) -> str:
    """On two CPUs of this machine."""
    rest = sorted(os.sched_getaffinity(0))[2:]
    reserved = f"PCA_RESERVED_CPUS={','.join(map(str, rest))}\n" if rest else ""
    return f"{reserved}PCA_REBALANCE={rebalance}\n"


def crowd(service: Running) -> int:
    """Three guests on two CPUs; the one of them that has a CPU to itself."""
    service.says("latency measured")
    for vmid in GUESTS:
        add_guest(service.node, vmid)
        service.node.do("start", vmid)
        service.confirms(vmid)
    return who_has_its_own(service)


def state(node: Node) -> Mapping[str, object]:
    kept = JsonFile(node.path(STATE)).load(set_aside=False).content
    assert kept is not None
    return kept


def age(service: Running) -> None:
    """The same service as if its guests had started long ago."""
    assert service.end() == 0
    kept = dict(state(service.node))
    tracked = kept["tracked"]
    assert isinstance(tracked, dict)
    for entry in tracked.values():
        entry["since"] -= LONG
    JsonFile(service.node.path(STATE)).save(kept)
    service.start()
    service.confirms(*GUESTS)


def where(node: Node, *vmids: int) -> list[set[int]]:
    """The CPUs that the kernel lets any thread of each guest run on."""
    return [set().union(*masks(node, vmid).values()) for vmid in vmids]


@pytest.fixture(autouse=True)
def enough() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU: nobody can move")


def test_after_a_stop_a_guest_moves_to_the_free_cpu(sim_node: Node) -> None:
    with Running(sim_node, settings=settings("on")) as service:
        alone = crowd(service)
        age(service)
        left = [vmid for vmid in GUESTS if vmid != alone]
        one, other = where(sim_node, *left)
        assert one == other
        sim_node.do("stop", alone)
        service.wait_for(lambda: len(set(map(frozenset, where(sim_node, *left)))) == 2)
        assert "moves from" in service.log
        service.confirms(*left)
        assert {frozenset(cpus) for cpus in where(sim_node, *left)} == {
            frozenset({cpu}) for cpu in sorted(os.sched_getaffinity(0))[:2]
        }


def test_advice_names_the_move_and_moves_nobody(sim_node: Node) -> None:
    with Running(sim_node, settings=settings("advise")) as service:
        alone = crowd(service)
        age(service)
        left = [vmid for vmid in GUESTS if vmid != alone]
        before = where(sim_node, *left)
        sim_node.do("stop", alone)
        service.says("would move from")
        service.get("/api/v1/status")
        assert where(sim_node, *left) == before


def test_a_guest_that_just_started_stays(sim_node: Node) -> None:
    with Running(sim_node, settings=settings("on")) as service:
        alone = crowd(service)
        left = [vmid for vmid in GUESTS if vmid != alone]
        before = where(sim_node, *left)
        sim_node.do("stop", alone)
        service.says("stopped")
        # Whoever asks for moves himself gets them: so there was one to make, and it was not made.
        assert where(sim_node, *left) == before
        assert "moves from" not in service.log
        assert service.ask("POST", "/api/v1/reassign", {}).status == 200
        assert where(sim_node, *left) != before


def test_the_ration_of_moves_outlives_the_service(sim_node: Node) -> None:
    with Running(sim_node, settings=settings("on")) as service:
        crowd(service)
        assert service.end() == 0
        earned = state(sim_node)["ration"]
        assert earned == 3 * len(GUESTS)
        service.start()
        service.confirms(*GUESTS)
        assert service.end() == 0
        assert state(sim_node)["ration"] == earned
