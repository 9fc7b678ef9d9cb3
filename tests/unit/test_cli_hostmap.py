"""The map shows every CPU once, with the sign of who holds it."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.cli.hostmap import host_map
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

SPECS = ("1x1x1x1", "2x2x4x2+nodes=2", "1x2x4x2+8e+2lp", "2x8x8x2+offline=5,7", "1x1x64x2")


def host(spec: str) -> Topology:
    return topology(generate(parse_spec(spec)))


def signs(lines: list[str]) -> Counter[str]:
    """How often each sign stands in the map; its labels end before the first two-blank gap
    behind the words `cache group`."""
    drawn = lines[: lines.index("")]
    start = len(drawn[0]) - len(drawn[0].partition("cache group ")[2].partition("  ")[2].lstrip())
    return Counter("".join(line[start:].replace(" ", "") for line in drawn))


@pytest.mark.parametrize("spec", SPECS)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_every_cpu_has_the_sign_of_its_holders(spec: str, data: st.DataObject) -> None:
    here = host(spec)
    sets = st.sets(st.sampled_from(list(here.online)))
    held = {
        Vmid(100 + i): CpuSet.of(cpus)
        for i, cpus in enumerate(data.draw(st.lists(sets, max_size=4)))
    }
    usable = CpuSet.of(data.draw(sets))
    width = data.draw(st.integers(60, 200))
    lines = host_map(here, held, usable, width=width)
    holders = Counter(cpu for cpus in held.values() for cpu in cpus)
    wanted: Counter[str] = Counter()
    for cpu in here.online:
        owners = [i for i, cpus in enumerate(held.values()) if cpu in cpus]
        if holders[cpu] > 1:
            wanted["*"] += 1
        elif owners:
            wanted["ABCD"[owners[0]]] += 1
        else:
            wanted["." if cpu in usable else "-"] += 1
    assert signs(lines) == wanted
    assert all(len(line) <= width for line in lines)


def test_the_map_of_a_small_host() -> None:
    held = {Vmid(100): CpuSet.parse("0-1,8-9"), Vmid(200): CpuSet.parse("2,4")}
    usable = CpuSet.parse("0-13")
    assert host_map(host("2x2x2x2"), held, usable, width=80) == [
        "package 0  node 0  cache group 0  AA AA",
        "package 0  node 0  cache group 1  B. ..",
        "package 1  node 1  cache group 2  B. ..",
        "package 1  node 1  cache group 3  .- .-",
        "",
        "A 100   B 200   . free   - not for guests",
    ]


def test_more_guests_than_letters_share_a_sign() -> None:
    held = {Vmid(100 + i): CpuSet.of([i]) for i in range(60)}
    lines = host_map(host("1x1x64x1"), held, CpuSet.of(range(64)), width=100)
    counted = signs(lines)
    assert counted["+"] == 8
    assert counted["A"] == counted["z"] == 1
    assert "+ further guests" in lines[-1]
