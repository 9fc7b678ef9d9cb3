"""A guest that gets a vCPU more or less: it keeps what it has."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.engine.facts import Host, Occupancy, Turn
from proxmox_cpu_affinity.engine.place import place
from proxmox_cpu_affinity.engine.resize import resized
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import Policy, Request
from proxmox_cpu_affinity.model.ids import Cpu, Vmid
from proxmox_cpu_affinity.model.placement import Placement
from tests.unit.engine_hosts import holding, host_of, loads

GUEST = Vmid(100)


def resize(
    host: Host, placement: Placement, vcpus: int, *others: Placement, policy: Policy = Policy.SHARED
) -> Decision:
    occupancy = Occupancy((placement, *others))
    return resized(host, occupancy, placement, Request(placement.vmid, vcpus, policy))


def placed(host: Host, vcpus: int, policy: Policy, *others: Placement) -> Placement:
    request = Request(GUEST, vcpus, policy)
    return place(host, Occupancy(others), Turn(), request)[0].placement


def test_a_further_cpu_is_the_nearest_that_is_free() -> None:
    host = host_of("1x2x4x1")
    decision = resize(host, holding(100, "0-1"), 3, holding(1, "2"))
    assert str(decision.placement.home) == "0-1,3"
    assert "further CPUs 3" in decision.reason


def test_a_free_cpu_of_another_group_goes_before_a_shared_one() -> None:
    host = host_of("1x2x4x1")
    decision = resize(host, holding(100, "0-1"), 3, holding(1, "2-3"), holding(2, "4-6"))
    assert str(decision.placement.home) == "0-1,7"


def test_the_cpu_that_costs_most_is_given_back() -> None:
    host = host_of("1x2x4x1")
    decision = resize(host, holding(100, "0-2,7"), 3)
    assert str(decision.placement.home) == "0-2"
    assert decision.reason == "without 7"
    shared = resize(host, holding(100, "0-3"), 3, holding(1, "1"))
    assert str(shared.placement.home) == "0,2-3"


def test_a_pinned_guest_s_vcpus_keep_their_cpus() -> None:
    host = host_of("1x1x4x2")
    before = Placement(
        GUEST, CpuSet.parse("2-3"), CpuSet.parse("2-3"), (Cpu(3), Cpu(2)), Cpu(3), pinned=True
    )
    more = resize(host, before, 4, policy=Policy.PINNED).placement
    assert more.pinned
    assert more.order[:2] == (3, 2)
    assert len(set(more.order)) == 4
    fewer = resize(host, more, 1, policy=Policy.PINNED).placement
    assert fewer.order == (3,)
    assert fewer.start == 3


def test_a_dedicated_guest_grows_to_cpus_that_nobody_is_beside() -> None:
    host = host_of("1x1x4x2")
    before = placed(host, 2, Policy.DEDICATED)
    assert before.exclusive
    rest = host.topology.online - before.home
    other = holding(1, str(CpuSet.of([cpu for cpu in rest if host.topology.place(cpu).core == 3])))
    after = resize(host, before, 4, other, policy=Policy.DEDICATED).placement
    assert after.exclusive
    assert before.home <= after.home
    cores = {host.topology.place(cpu).core for cpu in after.home}
    assert 3 not in cores
    assert len(after.home) == 4


def test_a_dedicated_guest_that_finds_no_further_cpu_shares_its_own() -> None:
    host = host_of("1x1x2x2")
    before = placed(host, 2, Policy.DEDICATED, holding(1, "1"))
    after = resize(host, before, 3, holding(1, "1"), policy=Policy.DEDICATED).placement
    assert after.home == before.home
    assert len(after.order) == 3
    assert after.warnings == ("3 vCPUs on 2 CPUs: they share",)


def test_a_guest_does_not_become_dedicated_by_growing() -> None:
    after = resize(host_of("1x1x4x2"), holding(100, "0"), 2, policy=Policy.DEDICATED).placement
    assert not after.exclusive


def test_all_cpus_and_more() -> None:
    host = host_of("1x1x4x1")
    after = resize(host, holding(100, "0-1"), 6).placement
    assert str(after.home) == "0-3"
    assert after.order == (0, 1, 2, 3, 0, 1)
    assert "6 vCPUs on 4 CPUs" in after.warnings[0]
    again = resize(host, after, 3).placement
    assert len(again.home) == 3
    assert again.warnings == ()


def test_cpus_that_are_reserved_since_are_replaced() -> None:
    host = host_of("1x1x4x1", reserved="1")
    assert str(resize(host, holding(100, "0-1"), 2).placement.home) == "0,2"


def test_where_no_cpu_is_usable_it_keeps_its_own() -> None:
    host = host_of("1x1x2x1", reserved="0-1")
    after = resize(host, holding(100, "0"), 2).placement
    assert str(after.home) == "0"
    assert after.order == (0, 0)


SPECS = st.sampled_from(["1x1x4x2", "1x2x4x2", "2x2x2x2", "1x1x8x1", "1x1x2x2+4e"])


@settings(max_examples=80, deadline=None)
@given(
    spec=SPECS,
    seed=st.integers(0, 999),
    had=st.integers(1, 8),
    wanted=st.integers(1, 12),
    pinned=st.booleans(),
)
def test_what_it_had_stays_as_far_as_it_can(
    spec: str, seed: int, had: int, wanted: int, *, pinned: bool
) -> None:
    host, random = host_of(spec), Random(seed)
    others = tuple(
        holding(i, str(CpuSet.of(random.sample(list(host.cpus), random.randrange(1, 4)))))
        for i in range(random.randrange(5))
    )
    policy = Policy.PINNED if pinned else Policy.SHARED
    before = placed(host, had, policy, *others)
    decision = resize(host, before, wanted, *others, policy=policy)
    now = decision.placement
    assert len(now.home) == min(wanted, len(host.usable))
    assert len(now.order) == wanted
    assert set(now.order) == set(now.home)
    assert now.home <= before.home or before.home <= now.home
    assert now.start in now.home
    if pinned:
        kept = min(len(before.home), len(now.home))
        assert now.order[:kept] == before.order[:kept]
    assert resize(host, before, wanted, *reversed(others), policy=policy) == decision
    # No CPU that it took is fuller than one that it left.
    found = loads(host, Occupancy(others))
    taken = [found[cpu] for cpu in now.home - before.home]
    left = [found[cpu] for cpu in host.usable - now.home - before.home]
    assert max(taken, default=0) <= min(left, default=99)


@pytest.mark.parametrize("vcpus", [1, 2, 3, 4])
def test_the_same_number_changes_nothing(vcpus: int) -> None:
    host = host_of("1x2x4x1")
    before = holding(100, str(CpuSet.of(range(1, 1 + vcpus))))
    decision = resize(host, before, vcpus)
    assert decision.placement.home == before.home
    assert decision.reason == "it keeps its CPUs"
