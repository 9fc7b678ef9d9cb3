"""The map shows every CPU once, with the sign of who holds it."""

from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.cli.hostmap import colours, host_map
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Vmid
from tests.unit.engine_hosts import topology_of as host

SPECS = ("1x1x1x1", "2x2x4x2+nodes=2", "1x2x4x2+8e+2lp", "2x8x8x2+offline=5,7", "1x1x64x2")


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


def test_more_guests_than_letters_go_round_the_letters() -> None:
    held = {Vmid(100 + i): CpuSet.of([i]) for i in range(60)}
    lines = host_map(host("1x1x64x1"), held, CpuSet.of(range(64)), width=100)
    counted = signs(lines)
    assert counted["A"] == counted["H"] == 2
    assert counted["I"] == counted["z"] == 1
    legend = " ".join(lines[lines.index("") :])
    assert "A 100   A 152   B 101   B 153" in legend
    assert "H 107   H 159   I 108   J 109" in legend


@pytest.mark.parametrize("threads", [1, 2, 4, 8])
def test_every_size_fits_80_columns(threads: int) -> None:
    for packages, groups, cores in product((1, 2, 8), (1, 4, 16), (1, 3, 8, 64, 128)):
        if not 4 <= packages * groups * cores * threads <= 512:
            continue
        here = host(f"{packages}x{groups}x{cores}x{threads}")
        held = {Vmid(999_999_000 + i): CpuSet.of([cpu]) for i, cpu in enumerate(here.online)}
        lines = host_map(here, held, here.online, width=80)
        assert max(map(len, lines)) <= 80, here.model_name
        assert signs(lines).total() == len(here.online)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_colours_change_no_letter_and_stand_on_signs_alone(width: int) -> None:
    held = {
        Vmid(100): CpuSet.parse("0-1,8-9"),
        Vmid(200): CpuSet.parse("2,4"),
        Vmid(300): CpuSet.parse("4-5"),
    }
    lines = host_map(host("2x2x16x2"), held, CpuSet.parse("0-60"), width=width)
    drawn = list(colours(lines))
    assert ["".join(word for word, _ in words) for words in drawn] == lines
    painted = Counter(word for words in drawn for word, code in words if code is not None)
    assert painted.keys() == set("ABC.-*")
    assert painted["A"] == 5  # four CPUs and the legend
    of = {word: code for words in drawn for word, code in words if code is not None}
    assert len(set(of.values())) == 5  # what is free and what is not for guests are both dim
