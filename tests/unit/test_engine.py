"""The strategies by example: what an administrator would expect of a small host."""

from dataclasses import replace

import pytest

from proxmox_cpu_affinity.engine import round_robin
from proxmox_cpu_affinity.engine.facts import Host, Occupancy, Rules, Turn, compile_host
from proxmox_cpu_affinity.engine.occupancy import load_of, overlapping
from proxmox_cpu_affinity.engine.place import in_order, place
from proxmox_cpu_affinity.engine.plan import plan
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import Request
from proxmox_cpu_affinity.model.ids import Cpu, Vmid
from proxmox_cpu_affinity.model.latency import restricted
from proxmox_cpu_affinity.model.placement import Placement, Strategy, Weights
from proxmox_cpu_affinity.model.topology import CoreKind
from tests.unit.engine_hosts import holding, host_of, topology_of, union

NOBODY = Occupancy(())


def request(vcpus: int, *, vmid: int = 999, previous: str | None = None) -> Request:
    old = None if previous is None else CpuSet.parse(previous)
    return Request(Vmid(vmid), vcpus, previous=old)


def decide(
    host: Host,
    vcpus: int,
    *held: Placement,
    configured: int = 0,
    last: int | None = None,
    previous: str | None = None,
) -> Decision:
    turn = Turn(None if last is None else Cpu(last))
    occupancy = Occupancy(held, configured)
    return place(host, occupancy, turn, request(vcpus, previous=previous))[0]


def filled(host: Host, sizes: list[int], *, configured: int = 0) -> list[CpuSet]:
    """Guests started one after another and staying."""
    held: tuple[Placement, ...] = ()
    turn = Turn()
    for i, vcpus in enumerate(sizes):
        asked = request(vcpus, vmid=100 + i)
        decision, turn = place(host, Occupancy(held, configured), turn, asked)
        held += (decision.placement,)
    return [placement.home for placement in held]


def starts(host: Host, vcpus: int, *, times: int) -> list[int]:
    """Starting CPUs of guests of which each stops before the next one starts."""
    turn = Turn()
    found: list[int] = []
    for i in range(times):
        decision, turn = place(host, NOBODY, turn, request(vcpus, vmid=100 + i))
        found.append(decision.placement.start)
    return found


def cores_of(host: Host, cpus: CpuSet) -> list[int]:
    return sorted(host.topology.place(cpu).core for cpu in cpus)


def groups_of(host: Host, cpus: CpuSet) -> tuple[int, ...]:
    return host.topology.cache_groups_of(cpus)


# -- turns -----------------------------------------------------------------------------------------


def test_flat_host_is_filled_in_turn() -> None:
    homes = filled(host_of("1x1x8x1"), [1] * 8)
    assert [str(home) for home in homes] == [str(cpu) for cpu in range(8)]


def test_starts_go_round_among_equal_cpus_though_guests_stop() -> None:
    assert starts(host_of("1x1x8x1"), 1, times=20) == [i % 8 for i in range(20)]


def test_larger_guests_start_one_cpu_further_too() -> None:
    found = starts(host_of("1x1x8x1"), 3, times=16)
    assert found == [i % 8 for i in range(16)]


@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_starts_go_round_among_equal_cache_groups_and_inside_of_them(vcpus: int) -> None:
    host = host_of("1x4x4x1")
    found = starts(host, vcpus, times=32)
    assert [host.topology.place(cpu).llc for cpu in found] == [i % 4 for i in range(32)]
    assert sorted(found) == sorted([*host.cpus] * 2)


def test_starts_go_round_among_packages_and_their_groups() -> None:
    host = host_of("2x2x4x2")
    groups = [host.topology.place(cpu).llc for cpu in starts(host, 2, times=8)]
    assert sorted(groups[:4]) == sorted(groups[4:]) == [0, 1, 2, 3]


def test_turn_passes_over_a_cpu_that_went_away() -> None:
    decision = decide(host_of("1x1x8x1+offline=3"), 1, last=3)
    assert decision.placement.start == 4


def test_turn_begins_anew_behind_the_last_cpu() -> None:
    assert decide(host_of("1x1x8x1"), 1, last=7).placement.start == 0


def test_turn_stays_where_nothing_was_chosen() -> None:
    host = host_of("1x1x4x1")
    turn = Turn(Cpu(2))
    for asked in (request(4), request(2, previous="0-1")):
        assert place(host, NOBODY, turn, asked)[1] == turn


# -- neighbours ------------------------------------------------------------------------------------


@pytest.mark.parametrize("vcpus", [3, 4])
def test_guest_fits_the_one_cache_group_that_is_free(vcpus: int) -> None:
    host = host_of("2x2x4x1")
    home = decide(host, vcpus, holding(1, "0-3"), holding(2, "8-13")).placement.home
    assert home <= host.topology.cache_groups[1]


@pytest.mark.parametrize("vcpus", [1, 2])
def test_small_guest_fills_a_group_up_and_leaves_the_free_one_to_larger_ones(vcpus: int) -> None:
    host = host_of("2x2x4x1")
    home = decide(host, vcpus, holding(1, "0-3"), holding(2, "8-13")).placement.home
    assert home <= CpuSet.parse("14-15")


def test_groups_are_used_in_turn_while_the_host_will_be_half_empty() -> None:
    host = host_of("1x4x4x1")
    spread = filled(host, [1] * 4, configured=7)
    together = filled(host, [1] * 4, configured=8)
    assert [groups_of(host, home) for home in spread] == [(0,), (1,), (2,), (3,)]
    assert [groups_of(host, home) for home in together] == [(0,)] * 4


def test_guest_larger_than_a_group_takes_two_of_one_package() -> None:
    host = host_of("2x4x4x1")
    home = decide(host, 8, holding(1, "0-3"), last=20).placement.home
    assert len(groups_of(host, home)) == 2
    assert len(host.topology.nodes_of(home)) == 1


def test_near_neighbours_are_told_by_the_matrix_not_the_numbers() -> None:
    topology = topology_of("1x1x4x1")
    base = predicted(topology)
    near = {(0, 2), (1, 3)}
    for i in range(4):
        for j in range(4):
            if i != j:
                base.ns[i * 4 + j] = 20.0 if (min(i, j), max(i, j)) in near else 40.0
    host = compile_host(topology, base, Rules())
    assert {str(decide(host, 2, last=cpu).placement.home) for cpu in range(4)} == {"0,2", "1,3"}


def test_order_of_the_vcpus_is_by_cache_group_core_and_number() -> None:
    topology = topology_of("1x2x2x2")
    assert in_order(topology, topology.online) == (0, 4, 1, 5, 2, 6, 3, 7)
    placement = decide(host_of("1x2x2x2"), 4).placement
    assert placement.order == in_order(topology, placement.home)


# -- siblings --------------------------------------------------------------------------------------


def test_siblings_of_other_guests_are_avoided_while_cores_are_free() -> None:
    host = host_of("1x1x8x2")
    cores = [core for home in filled(host, [1] * 8) for core in cores_of(host, home)]
    assert sorted(cores) == list(range(8))


def test_own_siblings_are_avoided_while_cores_are_free() -> None:
    host = host_of("1x1x8x2")
    assert len(set(cores_of(host, decide(host, 4).placement.home))) == 4


def test_guests_take_whole_cores_where_the_host_will_be_full() -> None:
    host = host_of("1x1x8x2")
    for home in filled(host, [2] * 8, configured=16):
        assert len(set(cores_of(host, home))) == 1
    for home in filled(host, [2] * 4 + [1] * 8, configured=16)[:4]:
        assert len(set(cores_of(host, home))) == 1


def test_larger_guests_do_so_where_own_siblings_cost_less_than_other_guests() -> None:
    weights = Weights(smt_own=0.12)
    homes = filled(host_of("1x1x8x2", weights=weights), [4] * 4, configured=16)
    assert [len(set(cores_of(host_of("1x1x8x2"), home))) for home in homes] == [2] * 4
    assert len(set(cores_of(host_of("1x1x8x2"), filled(host_of("1x1x8x2"), [4])[0]))) == 4


def test_two_small_guests_share_a_core_where_the_host_will_be_full() -> None:
    host = host_of("1x1x4x2")
    first, second = filled(host, [1, 1], configured=8)
    assert cores_of(host, first) == cores_of(host, second)


def test_a_core_whose_other_thread_is_not_for_sale_is_not_kept_whole() -> None:
    # CPU 4, the sibling of CPU 0, is the host's: nobody will be put beside CPU 0.
    host = host_of("1x1x4x2", reserved="4")
    assert str(decide(host, 1, configured=8, last=2).placement.home) == "0"


# -- kinds of core ---------------------------------------------------------------------------------


def test_performance_cores_come_first_on_a_hybrid_host() -> None:
    host = host_of("1x1x8x2+8e")
    places = [host.topology.place(home.first()) for home in filled(host, [1] * 8)]
    assert {p.kind for p in places} == {CoreKind.PERFORMANCE}
    assert len({p.core for p in places}) == 8


def test_guest_of_all_performance_cores_takes_no_efficiency_core() -> None:
    host = host_of("1x1x8x2+8e")
    home = decide(host, 8).placement.home
    assert {host.topology.place(cpu).kind for cpu in home} == {CoreKind.PERFORMANCE}


def test_efficiency_cores_are_used_before_a_cpu_is_shared() -> None:
    host = host_of("1x1x2x2+4e")
    homes = filled(host, [1] * 8)
    assert union(homes) == host.usable


def test_low_power_cores_count_as_slow_too() -> None:
    host = host_of("1x1x4x2+8e+2lp")
    homes = filled(host, [1] * 4)
    assert {host.topology.place(home.first()).kind for home in homes} == {CoreKind.PERFORMANCE}


# -- sharing ---------------------------------------------------------------------------------------


def test_free_cpu_in_the_farthest_corner_goes_before_a_shared_one() -> None:
    topology = topology_of("2x1x4x2")
    matrix = predicted(topology)
    slow = type(matrix.ns)("d", (50 * ns for ns in matrix.ns))
    host = compile_host(topology, replace(matrix, ns=slow), Rules())
    # Free are CPU 0 and, in the other package and beside a loaded sibling, CPU 15.
    others = [holding(100 + cpu, str(cpu)) for cpu in range(1, 15)]
    extra = [holding(200 + i, "11") for i in range(5)]
    assert str(decide(host, 2, *others, *extra).placement.home) == "0,15"


def test_own_siblings_go_before_a_shared_cpu() -> None:
    host = host_of("1x1x4x2")
    others = [holding(100 + cpu, str(cpu)) for cpu in (0, 1, 2, 4, 5, 6)]
    assert str(decide(host, 2, *others).placement.home) == "3,7"


def test_overcommit_is_spread_evenly() -> None:
    host = host_of("2x2x4x2")
    homes = filled(host, [1, 2, 4, 8, 3, 5, 1, 2, 6, 8, 16, 2, 4, 7, 4, 8, 8, 7], configured=96)
    counts = [sum(cpu in home for home in homes) for cpu in host.usable]
    assert sum(counts) == 96
    assert set(counts) == {3}


def test_cpus_held_twice_are_named() -> None:
    found = overlapping(Occupancy((holding(1, "0-3"), holding(2, "2-5"), holding(3, "5"))))
    assert str(found) == "2-3,5"


def test_load_of_a_guest_larger_than_the_host_is_even() -> None:
    host = host_of("1x1x4x1")
    load = load_of(host, Occupancy((holding(1, "0-3", vcpus=6), holding(2, "3"))))
    assert load.vcpus.tolist() == [1.5, 1.5, 1.5, 2.5]
    assert load.used == 7


def test_load_from_outside_is_avoided() -> None:
    host = host_of("1x1x4x1")
    outside = Occupancy((), outside=((Cpu(0), 0.5), (Cpu(1), 0.5), (Cpu(99), 3.0)))
    assert str(place(host, outside, Turn(), request(2))[0].placement.home) == "2-3"


def test_cpus_and_siblings_of_a_dedicated_guest_are_left_alone() -> None:
    host = host_of("1x1x4x2")
    dedicated = holding(1, "0-1", exclusive=True)
    for vcpus in range(1, 9):
        assert decide(host, vcpus, dedicated).placement.home <= CpuSet.parse("2-3,6-7")


def test_nothing_is_left_beside_a_dedicated_guest_of_all_cores() -> None:
    with pytest.raises(UnplaceableError, match="dedicated"):
        decide(host_of("1x1x4x2"), 1, holding(1, "0-3", exclusive=True))


# -- the place it had ------------------------------------------------------------------------------


def test_previous_place_is_kept_though_it_is_not_its_turn() -> None:
    decision = decide(host_of("2x2x4x1"), 2, previous="9-10", last=3)
    assert str(decision.placement.home) == "9-10"
    assert "old place" in decision.reason


@pytest.mark.parametrize(
    ("previous", "why"),
    [
        ("0-1", "another guest holds CPU 0 now"),
        ("3,9", "in two packages"),
        ("4-6", "it had another size"),
        ("2,15", "CPU 15 is the host's now"),
    ],
)
def test_previous_place_is_given_up_for_something_clearly_better(previous: str, why: str) -> None:
    host = host_of("2x2x4x1", reserved="15")
    decision = decide(host, 2, holding(1, "0"), previous=previous)
    assert str(decision.placement.home) != previous, why
    assert len(groups_of(host, decision.placement.home)) == 1


def test_a_large_guest_gives_up_a_place_that_shares_one_cpu_needlessly() -> None:
    # A share of 2 % per vCPU is more than the price of a shared CPU for a guest of 100 and more.
    host = host_of("2x16x8x1", weights=Weights(lat_ns=0.0))
    decision = decide(host, 128, holding(1, "0"), previous="0-127")
    assert 0 not in decision.placement.home


def test_own_placement_does_not_count_as_another_guests() -> None:
    host = host_of("1x1x4x1")
    before = holding(999, "1-2")
    decision = decide(host, 2, before, previous="1-2")
    assert decision.placement.home == before.home


# -- odd hosts -------------------------------------------------------------------------------------


def test_one_cpu_takes_every_guest() -> None:
    host = host_of("1x1x1x1")
    assert [str(home) for home in filled(host, [1, 1, 2])] == ["0", "0", "0"]


@pytest.mark.parametrize("vcpus", [4, 5, 100])
def test_guest_as_large_as_the_host_gets_all_of_it(vcpus: int) -> None:
    placement = decide(host_of("1x1x6x1", reserved="0,5"), vcpus).placement
    assert str(placement.home) == "1-4"
    warned = [f"{vcpus} vCPUs on 4 usable CPUs: they share"] if vcpus > 4 else []
    assert list(placement.warnings) == warned


def test_guest_larger_than_what_a_dedicated_one_leaves_is_warned() -> None:
    placement = decide(host_of("1x1x4x1"), 4, holding(1, "3", exclusive=True)).placement
    assert str(placement.home) == "0-2"
    assert "4 vCPUs on 3 CPUs left for it" in placement.warnings[0]


def test_warnings_of_the_request_are_kept() -> None:
    asked = replace(request(9), warnings=("said before",))
    placement = place(host_of("1x1x4x1"), NOBODY, Turn(), asked)[0].placement
    assert placement.warnings == ("said before", "9 vCPUs on 4 usable CPUs: they share")


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize(
    ("spec", "reserved", "allowed"),
    [
        ("2x1x4x1+gaps=2-3,6", "", None),
        ("1x2x4x2+offline=5,7,15", "", None),
        ("1x1x8x2+isolated=6-7,14-15", "", None),
        ("1x1x8x2", "0-1,8-9", None),
        ("1x1x8x2", "0,8", "0-5,8-13"),
        ("2x1x4x2+gaps=4-7+offline=9+isolated=1", "0", "0-17"),
    ],
)
def test_only_usable_cpus_are_given(
    strategy: Strategy, spec: str, reserved: str, allowed: str | None
) -> None:
    host = host_of(spec, strategy=strategy, reserved=reserved, allowed=allowed)
    forbidden = CpuSet.parse(reserved) | host.topology.isolated
    turn = Turn()
    seen = CpuSet()
    for i in range(2 * len(host.cpus)):
        decision, turn = place(host, NOBODY, turn, request(1 + i % 3, vmid=100 + i))
        seen |= decision.placement.home
    assert seen == host.usable
    assert not seen.overlaps(forbidden)
    assert seen <= host.topology.online


@pytest.mark.parametrize("strategy", list(Strategy))
def test_nothing_usable_is_a_refusal_with_a_hint(strategy: Strategy) -> None:
    with pytest.raises(UnplaceableError) as caught:
        decide(host_of("1x1x4x1", reserved="0-3", strategy=strategy), 1)
    assert "PCA_RESERVED_CPUS" in caught.value.hint


def test_matrix_of_another_host_is_refused() -> None:
    small = predicted(topology_of("1x1x2x1"))
    with pytest.raises(ValueError, match="does not cover"):
        compile_host(topology_of("1x1x4x1"), small, Rules())


def test_matrix_with_cpus_that_are_offline_now_is_taken() -> None:
    matrix = predicted(topology_of("1x1x4x1"))
    host = host_of("1x1x4x1+offline=2", matrix=matrix)
    assert host.matrix.cpus == (0, 1, 3)
    assert host.latency.shape == (3, 3)


# -- round-robin -----------------------------------------------------------------------------------


def round_robin_host(spec: str, **rules: str) -> Host:
    return host_of(spec, strategy=Strategy.ROUND_ROBIN, **rules)  # type: ignore[arg-type]


def test_round_robin_begins_at_the_second_cpu() -> None:
    host = round_robin_host("1x1x4x1")
    decision, turn = place(host, NOBODY, Turn(), request(1))
    assert decision.placement.start == 1
    assert turn.counter == 1


def test_round_robin_moves_by_one_whoever_holds_what() -> None:
    host = round_robin_host("1x1x4x1")
    homes = filled(host, [2] * 5)
    assert [home.first() for home in homes] == [0, 0, 0, 0, 0]
    assert [str(home) for home in homes] == ["0-1", "0,2", "0,3", "0-1", "0-1"]


def test_round_robin_keeps_the_set_at_the_same_size_only() -> None:
    host = round_robin_host("1x1x4x1")
    kept, turn = place(host, NOBODY, Turn(counter=1), request(2, previous="2-3"))
    assert str(kept.placement.home) == "2-3"
    assert turn.counter == 1
    fresh, turn = place(host, NOBODY, Turn(counter=1), request(3, previous="2-3"))
    assert fresh.placement.start == 2
    assert turn.counter == 2


def test_round_robin_gives_up_a_set_of_which_a_cpu_is_gone() -> None:
    host = round_robin_host("1x1x4x1+offline=3")
    assert place(host, NOBODY, Turn(), request(2, previous="2-3"))[0].placement.start == 1


def test_round_robin_refuses_more_vcpus_than_cpus() -> None:
    host = round_robin_host("1x1x4x1")
    assert len(decide(host, 4).placement.home) == 4
    with pytest.raises(UnplaceableError, match="5 vCPUs are more than the 4") as caught:
        decide(host, 5)
    assert "balanced" in caught.value.hint


def test_round_robin_selects_among_usable_cpus_as_if_there_were_no_others() -> None:
    host = round_robin_host("1x2x4x1", reserved="0,5")
    turn = Turn()
    matrix = restricted(host.matrix, host.usable)
    for _ in range(9):
        expected, counter = round_robin.select(matrix, turn.counter, 3)
        decision, turn = place(host, NOBODY, turn, request(3))
        assert decision.placement.home == CpuSet.of(expected)
        assert turn.counter == counter


# -- plans -----------------------------------------------------------------------------------------


def test_plan_is_what_the_starts_would_give_in_turn() -> None:
    host = host_of("2x2x4x2")
    sizes = [2, 4, 1, 8]
    requests = [request(vcpus, vmid=100 + i) for i, vcpus in enumerate(sizes)]
    made = plan(host, NOBODY, Turn(), requests)
    assert [d.placement.home for d in made.decisions] == filled(host, sizes, configured=15)
    assert made.refused == ()


def test_plan_counts_a_guest_that_stands_once() -> None:
    host = host_of("1x1x2x2")
    standing = Occupancy((holding(100, "0-1"),))
    # Four vCPUs in all would fill the host and make it take a whole core; two do not.
    made = plan(host, standing, Turn(), [request(2, vmid=100)])
    assert len(set(cores_of(host, made.decisions[0].placement.home))) == 2


def test_plan_names_those_it_cannot_place_and_goes_on() -> None:
    host = round_robin_host("1x1x4x1")
    made = plan(host, NOBODY, Turn(), [request(5, vmid=100), request(2, vmid=101)])
    assert [d.placement.vmid for d in made.decisions] == [101]
    assert [(vmid, "more than the 4" in why) for vmid, why in made.refused] == [(100, True)]


# -- reasons ---------------------------------------------------------------------------------------


def test_decision_shows_its_candidates_cheapest_first() -> None:
    decision = decide(host_of("2x2x4x2"), 4, holding(1, "0-2"))
    costs = [candidate.terms.total for candidate in decision.candidates]
    assert costs == sorted(costs)
    assert decision.candidates[0].home == decision.placement.home
    assert len({candidate.home for candidate in decision.candidates}) == len(costs) > 1


def test_candidates_name_their_cache_groups() -> None:
    host = host_of("2x2x4x2")
    found = decide(host, 4).candidates
    assert found
    for candidate in found:
        named = ", ".join(map(str, groups_of(host, candidate.home)))
        assert candidate.origin in (f"cache group {named}", f"cache groups {named}")


def test_terms_name_what_a_set_suffers_from() -> None:
    host = host_of("1x1x2x2")
    shared = decide(host, 1, *(holding(100 + cpu, str(cpu)) for cpu in range(4)))
    assert shared.candidates[0].terms.contention > 0
    beside = decide(host, 1, holding(1, "0"), holding(2, "1"))
    assert beside.candidates[0].terms.contention == 0
    assert beside.candidates[0].terms.smt > 0
    alone = decide(host, 1).candidates[0].terms
    assert alone.total == 0


def test_weights_of_nothing_share_no_cpu_either() -> None:
    host = host_of("1x1x4x2", weights=Weights(0.0, 0.0, 0.0, 0.0, 0.0))
    assert union(filled(host, [3, 1, 2, 2])) == host.usable


def test_weights_decide() -> None:
    sharing = Weights(smt_own=0.0, smt_cross=0.0)
    host = host_of("1x1x4x2", weights=sharing)
    assert len(set(cores_of(host, decide(host, 2).placement.home))) == 1
    indifferent = host_of("1x1x1x1+3e", weights=Weights(ecore=0.0))
    assert starts(indifferent, 1, times=4) == [0, 1, 2, 3]
