"""Whole cores for guests that are pinned by hand: rhv-pinning-calculator's rule, as properties."""

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.cli import wanted
from proxmox_cpu_affinity.cli.hosts import Described
from proxmox_cpu_affinity.cli.planning import Made, planned_on_cores
from proxmox_cpu_affinity.engine.facts import Rules
from proxmox_cpu_affinity.formats import by_hand
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.ids import Vmid
from tests.unit.engine_hosts import topology_of

ONE = re.compile(r"([0-9]+)#([0-9]+(?:,[0-9]+)*)")
Strings = dict[Vmid, list[CpuSet]]
HOSTS = st.builds(
    "{}x{}x{}x2+numbering={}".format,
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(1, 8),
    st.sampled_from(("split", "adjacent")),
)


def made(spec: str, words: list[str], *, reserved: str = "") -> Made:
    host = Described(topology_of(spec), predicted(topology_of(spec)))
    return planned_on_cores(host, Rules(reserved=CpuSet.parse(reserved)), wanted.given(words))


def strings(found: Made) -> Strings:
    """Of each guest the CPUs of its vCPUs, read from the strings; vCPUs are counted from 0."""
    told: Strings = {}
    for vmid, one in found.cores.items():
        parts = [ONE.fullmatch(part) for part in by_hand.rhv(one.cores).split("_")]
        numbers = [int(part[1]) for part in parts if part]
        assert numbers == list(range(len(parts)))
        told[vmid] = [CpuSet.parse(part[2]) for part in parts if part]
    return told


def shaped(guests: list[tuple[int, int]]) -> list[str]:
    """Guests by their sockets and cores per socket, of two threads each."""
    return [f"{100 + i}:{2 * n * cores}:{n}" for i, (n, cores) in enumerate(guests)]


def check(spec: str, guests: list[tuple[int, int]], told: Strings) -> None:
    """Whole cores, two vCPUs each, none shared, and each socket on one node, which is its own."""
    here = topology_of(spec)
    taken = EMPTY
    for vmid, pins in told.items():
        sockets, cores = guests[vmid - 100]
        assert len(pins) == 2 * sockets * cores
        assert pins[0::2] == pins[1::2]
        nodes = []
        for core in pins[0::2]:
            assert core in here.cores
            assert not core.overlaps(taken)
            taken |= core
        for socket in range(sockets):
            on = CpuSet.of(cpu for core in pins[2 * socket * cores :][: 2 * cores] for cpu in core)
            (node,) = here.nodes_of(on)
            nodes.append(node)
        assert len(set(nodes)) == sockets


def test_the_calculator_s_own_example() -> None:
    """1 socket, 2 cores, 2 threads on a host whose core k has the CPUs k and k+4."""
    found = made("1x1x4x2", ["100:4"])
    (one,) = found.cores.values()
    assert by_hand.rhv(one.cores) == "0#1,5_1#1,5_2#2,6_3#2,6"


@settings(deadline=None, max_examples=80)
@given(spec=HOSTS, data=st.data())
def test_sets_that_fit_get_whole_cores_on_the_nodes_asked(spec: str, data: st.DataObject) -> None:
    """As the calculator counts: socket i of every guest is asked of node i, and every node has the
    sum of these and one core more, which is the host's."""
    here = topology_of(spec)
    room = min(len([c for c in here.cores if c <= node.cpus]) for node in here.nodes) - 1
    assume(room > 0)
    guests: list[tuple[int, int]] = []
    for _ in range(data.draw(st.integers(1, 8))):
        sockets = data.draw(st.integers(1, len(here.nodes)))
        cores = data.draw(st.integers(1, max(1, room)))
        per_node = [sum(c for n, c in [*guests, (sockets, cores)] if n > i) for i in range(sockets)]
        if max(per_node) <= room:
            guests.append((sockets, cores))
    found = made(spec, shaped(guests))
    told = strings(found)
    assert len(told) == len(guests)
    assert [row.warnings for row in found.answer.guests] == [[] for _ in guests]
    check(spec, guests, told)
    held = CpuSet.of(cpu for pins in told.values() for core in pins for cpu in core)
    for node in here.nodes:
        assert node.cpus.first() not in held


@settings(deadline=None, max_examples=50)
@given(spec=HOSTS, data=st.data())
def test_full_nodes_are_filled(spec: str, data: st.DataObject) -> None:
    """Guests of one socket whose sizes were cut from whole nodes: all but one core of each."""
    here = topology_of(spec)
    sizes: list[int] = []
    for node in here.nodes:
        left = len([core for core in here.cores if core <= node.cpus]) - 1
        if left and data.draw(st.booleans()):
            sizes.append(left)  # one guest fills it
        else:
            sizes += [1] * left
    assume(sizes)
    guests = [(1, size) for size in data.draw(st.permutations(sizes))]
    told = strings(made(spec, shaped(guests)))
    assert len(told) == len(guests)
    check(spec, guests, told)


@settings(deadline=None, max_examples=50)
@given(
    spec=st.sampled_from(("2x2x4x2", "1x1x8x1", "1x1x4x4", "1x2x4x2+4e", "2x1x4x2+offline=5,12")),
    guests=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 3)), min_size=1, max_size=6),
    reserved=st.sampled_from(("", "1", "0-1,9")),
)
def test_whatever_is_asked_no_core_is_shared_and_none_is_cut(
    spec: str, guests: list[tuple[int, int]], reserved: str
) -> None:
    here = topology_of(spec)
    words = [f"{100 + i}:{n * count}:{n}" for i, (count, n) in enumerate(guests)]
    found = made(spec, words, reserved=reserved)
    taken = EMPTY
    for vmid, pins in strings(found).items():
        count, sockets = guests[vmid - 100]
        assert len(pins) == count * sockets
        own = EMPTY
        for core in pins:
            assert core in here.cores
            assert not core.overlaps(CpuSet.parse(reserved) | taken)
            own |= core
        taken |= own
        widest = max(len(core) for core in pins)
        assert len(set(pins)) == sockets * -(-count // widest)
    refused = [row for row in found.answer.guests if row.start is None]
    assert len(refused) + len(found.cores) == len(guests)
    assert all("whole core" in row.reason for row in refused)


@pytest.mark.parametrize(
    ("tag", "kinds"),
    [("cpu-performance", "0-7"), ("cpu-efficiency", "8-11"), ("cpu-shared", "0-7")],
)
def test_cores_of_a_kind(tag: str, kinds: str) -> None:
    """Of the shared one's the most have two threads, so it is on performance cores as well."""
    found = made("1x1x4x2+4e", [f"100:2:{tag}"], reserved="0-1")
    (pins,) = strings(found).values()
    assert all(core <= CpuSet.parse(kinds) for core in pins)
    found = made("1x1x4x2", [f"100:2:{tag}"])
    warned = [f"no {tag.removeprefix('cpu-')} cores here: any"]
    assert found.answer.guests[0].warnings == (warned if tag == "cpu-efficiency" else [])


def test_nothing_is_left_and_it_is_said_in_cores() -> None:
    (row,) = made("1x1x4x2", ["100:3"], reserved="0-7").answer.guests
    assert row.reason == "2 whole cores wanted, 0 left"


def test_a_socket_larger_than_a_node_is_spread_and_said() -> None:
    found = made("2x1x4x2", ["100:10"])
    (row,) = found.answer.guests
    assert row.warnings == ["no node has room for a whole socket of it: spread"]
    assert row.nodes == [0, 1]
