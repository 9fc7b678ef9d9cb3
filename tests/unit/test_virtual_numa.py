"""Guests with virtual NUMA: what PVE's lines say, and where the engine puts guest nodes."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.engine.facts import Occupancy, Rules, Turn, compile_host
from proxmox_cpu_affinity.engine.place import place
from proxmox_cpu_affinity.engine.width import widened
from proxmox_cpu_affinity.formats.pveconf import guest_config
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import GuestNode, Policy, Request, socket_nodes
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Placement, Width
from proxmox_cpu_affinity.model.topology import Topology
from tests.unit.engine_hosts import holding, host_of, topology_of, union

ANY: frozenset[int] = frozenset()


def node(*vcpus: int, hosts: frozenset[int] = ANY) -> GuestNode:
    return GuestNode(vcpus, hosts)


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("cores: 2\nsockets: 2\n", ()),
        ("cores: 2\nsockets: 2\nnuma: 1\n", (node(0, 1), node(2, 3))),
        ("cores: 4\nnuma: 1\n", ()),
        ("cores: 2\nsockets: 2\nvcpus: 3\nnuma: 1\n", (node(0, 1), node(2))),
        ("cores: 2\nsockets: 2\nvcpus: 2\nnuma: 1\n", ()),
        (
            (
                "cores: 4\nnuma: 1\nnuma0: cpus=0;2,hostnodes=1,memory=1,policy=bind\n"
                "numa1: cpus=1;3,memory=1\n"
            ),
            (node(0, 2, hosts=frozenset({1})), node(1, 3)),
        ),
        ("cores: 4\nnuma: 0\nnuma0: cpus=0-1,memory=1\nnuma1: cpus=2-3,memory=1\n", ()),
        # No node names vCPU 3: it is the first one's. vCPU 1 stands twice: the first line counts.
        (
            "cores: 4\nnuma: 1\nnuma0: cpus=0-1,memory=1\nnuma1: cpus=1-2,memory=1\n",
            (node(0, 1, 3), node(2)),
        ),
        (
            "cores: 2\nsockets: 2\nnuma: 1\nnuma0: cpus=x,memory=1\n",
            (node(0, 1), node(2, 3)),
        ),
        (
            "cores: 2\nsockets: 2\nnuma: 1\nnuma0: cpus=0-3,hostnodes=x,memory=1\n",
            (node(0, 1), node(2, 3)),
        ),
    ],
)
def test_nodes_are_what_pve_gives_the_guest(text: str, nodes: tuple[GuestNode, ...]) -> None:
    assert guest_config(text, vmid=Vmid(100), node="pve1").guest_nodes == nodes


def hosts_of(host: Topology, placement: Placement) -> list[tuple[int, ...]]:
    return [host.nodes_of(part) for part in placement.parts]


SPECS = ("2x1x4x1", "2x2x4x2", "1x4x2x2+nodes=4", "2x2x2x2+nodes=2", "1x1x8x2+nodes=2")


@settings(max_examples=80, deadline=None)
@given(
    spec=st.sampled_from(SPECS),
    cores=st.integers(1, 4),
    sockets=st.integers(2, 4),
    policy=st.sampled_from([Policy.SHARED, Policy.PINNED]),
    beside=st.lists(st.integers(0, 7), max_size=6),
)
def test_every_guest_node_is_on_one_host_node(
    spec: str, cores: int, sockets: int, policy: Policy, beside: list[int]
) -> None:
    host = host_of(spec)
    others = tuple(holding(200 + i, str(cpu)) for i, cpu in enumerate(beside))
    request = Request(Vmid(100), cores * sockets, policy, guest_nodes=socket_nodes(cores, sockets))
    decision, _ = place(host, Occupancy(others), Turn(), request)
    placed = decision.placement
    if not placed.part_of:
        assert any("do not fit" in warning for warning in placed.warnings)
        return
    assert placed.home == union(placed.parts)
    assert len(placed.home) == len(placed.order) == cores * sockets
    assert all(len(nodes) == 1 for nodes in hosts_of(host.topology, placed))
    for vcpu, cpu in enumerate(placed.order):
        assert cpu in placed.parts[vcpu // cores]
    used = {nodes[0] for nodes in hosts_of(host.topology, placed)}
    assert len(used) == sockets or placed.warnings
    # However wide it floats, a guest node stays on its host node.
    groups = frozenset(host.topology.cache_groups)
    wide = widened(host, Occupancy((*others, placed)), groups)[placed.vmid]
    for part, span in zip(wide.parts, wide.spans, strict=True):
        assert part <= span
        assert host.topology.nodes_of(span) == host.topology.nodes_of(part)
    assert wide.applied == union(wide.spans)
    again, _ = place(host, Occupancy(others), Turn(), replace(request, previous=placed.home))
    if len({len(part) for part in placed.parts}) == 1:
        assert again.placement.home == placed.home


@settings(max_examples=40, deadline=None)
@given(order=st.permutations([0, 1, 2, 3]))
def test_host_nodes_of_an_administrator_are_obeyed(order: list[int]) -> None:
    host = host_of("1x4x2x2+nodes=4")
    nodes = tuple(node(k, hosts=frozenset({there})) for k, there in enumerate(order))
    decision, _ = place(host, Occupancy(()), Turn(), Request(Vmid(100), 4, guest_nodes=nodes))
    found = hosts_of(host.topology, decision.placement)
    assert [there for (there,) in found] == order


def test_host_node_that_is_too_small_is_shared_with_a_warning() -> None:
    host = host_of("2x1x2x1")
    nodes = (node(0, 1, 2, hosts=frozenset({1})),)
    decision, _ = place(host, Occupancy(()), Turn(), Request(Vmid(100), 3, guest_nodes=nodes))
    assert decision.placement.home == CpuSet.parse("2-3")
    assert len(decision.placement.order) == 3
    assert any("they share" in warning for warning in decision.placement.warnings)


def test_a_host_of_one_node_places_as_without_virtual_numa() -> None:
    host = compile_host(
        topology_of("1x2x4x1"), predicted(topology_of("1x2x4x1")), Rules(width=Width.EXACT)
    )
    plain = Request(Vmid(100), 4)
    with_nodes = replace(plain, guest_nodes=socket_nodes(2, 2))
    assert place(host, Occupancy(()), Turn(), with_nodes) == place(
        host, Occupancy(()), Turn(), plain
    )
