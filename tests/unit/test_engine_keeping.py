"""Where a guest was before, and what keeps it there; what load from outside does not take."""

from array import array
from dataclasses import replace

import pytest

from proxmox_cpu_affinity.engine.facts import Occupancy, Turn
from proxmox_cpu_affinity.engine.place import place
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import GuestNode, Policy, Request
from proxmox_cpu_affinity.model.ids import Cpu, Vmid
from tests.unit.engine_hosts import host_of, topology_of

NOBODY = Occupancy(())


@pytest.mark.parametrize(("slower_ns", "home"), [(8, "2-3"), (20, "0-1")])
def test_an_old_place_may_be_a_little_dearer(slower_ns: float, home: str) -> None:
    """By 2 % a vCPU, which is 10 ns between two; more than that it is given up for."""
    topology = topology_of("1x1x4x1")
    matrix = predicted(topology)
    ns = array("d", matrix.ns)
    ns[2 * 4 + 3] = ns[3 * 4 + 2] = matrix.between(Cpu(2), Cpu(3)) + slower_ns
    host = host_of("1x1x4x1", matrix=replace(matrix, ns=ns))
    request = Request(Vmid(100), 2, previous=CpuSet.parse("2-3"))
    decision, _ = place(host, NOBODY, Turn(), request)
    assert decision.placement.home == CpuSet.parse(home)
    assert decision.candidates[0].home == CpuSet.parse("0-1")


def test_guest_nodes_that_were_on_one_host_node_get_one_each() -> None:
    """Together they cost less, and were kept: a host node for each comes before the price."""
    request = Request(
        Vmid(100),
        2,
        guest_nodes=(GuestNode((0,)), GuestNode((1,))),
        previous=CpuSet.parse("0-1"),
        previous_parts=(CpuSet.parse("0"), CpuSet.parse("1")),
    )
    host = host_of("2x1x4x1")
    decision, _ = place(host, NOBODY, Turn(), request)
    assert [host.topology.nodes_of(part) for part in decision.placement.parts] == [(0,), (1,)]


def test_load_from_outside_keeps_no_dedicated_guest_away() -> None:
    """Containers are no guests: their CPUs are loaded, not held."""
    host = host_of("1x1x4x1")
    everywhere = Occupancy((), 0, tuple((Cpu(cpu), 1.0) for cpu in range(4)))
    request = Request(Vmid(100), 2, Policy.DEDICATED)
    decision, _ = place(host, everywhere, Turn(), request)
    assert decision.placement.exclusive
    assert len(decision.placement.home) == 2
