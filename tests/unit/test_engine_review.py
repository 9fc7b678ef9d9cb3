"""A place priced anew, what would fit instead, and widths in words."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.engine import nearest
from proxmox_cpu_affinity.engine.facts import Host, Occupancy, Rules, Turn, compile_host
from proxmox_cpu_affinity.engine.place import place
from proxmox_cpu_affinity.engine.report import Reach, Reporter, decided, named
from proxmox_cpu_affinity.engine.review import reviewed
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import UnplaceableError
from proxmox_cpu_affinity.model.guest import GuestNode, Policy, Request
from proxmox_cpu_affinity.model.ids import Cpu, Vmid
from proxmox_cpu_affinity.model.placement import (
    Fallback,
    Placement,
    Strategy,
    Widen,
    Widening,
    Width,
)
from tests.unit.engine_hosts import holding, host_of, topology_of

# -- review ----------------------------------------------------------------------------------------


def review(host: Host, *there: Placement, policy: Policy = Policy.SHARED) -> Decision:
    """Of the first of these."""
    own = there[0]
    request = Request(own.vmid, len(own.order), policy, previous=own.home)
    return reviewed(host, Occupancy(there), Turn(), own, request)


def test_a_place_is_priced_beside_those_who_are_there_now() -> None:
    host = host_of("1x2x4x1")
    alone = review(host, holding(100, "0-1"))
    shares = review(host, holding(100, "0-1"), holding(101, "1-3"))
    (then,) = (c for c in alone.candidates if str(c.home) == "0-1")
    (now,) = (c for c in shares.candidates if str(c.home) == "0-1")
    assert then.terms.contention == 0
    assert now.terms.contention == pytest.approx(2 * host.rules.weights.thread, abs=1e-6)
    assert shares.candidates[0].terms.contention == 0
    assert shares.placement.home == CpuSet.parse("0-1")  # nothing is chosen


def test_a_guest_that_was_just_placed_is_still_the_cheapest() -> None:
    host = host_of("2x2x4x2")
    others = (holding(101, "0-3"), holding(102, "8-9,24-25"))
    made, _ = place(host, Occupancy(others), Turn(), Request(Vmid(100), 3))
    again = review(host, made.placement, *others)
    own = next(c for c in again.candidates if c.home == made.placement.home)
    best = again.candidates[0].terms.total
    assert own.terms.total == pytest.approx(best, abs=1e-9)
    assert own.terms == made.candidates[0].terms


def test_a_dedicated_guest_may_be_where_it_is() -> None:
    host = host_of("1x1x4x2")
    found = review(host, holding(100, "0-2", exclusive=True), policy=Policy.DEDICATED)
    assert str(found.candidates[0].home) == "0-2"
    crowded = review(
        host, holding(100, "0-1", exclusive=True), holding(101, "2-3"), policy=Policy.DEDICATED
    )
    assert "0-1" in {str(c.home) for c in crowded.candidates}


def test_where_nothing_is_to_be_chosen_there_are_no_candidates() -> None:
    assert review(host_of("1x1x2x1"), holding(100, "0-1", vcpus=5)).candidates == ()
    assert review(host_of("1x1x2x1"), holding(100, "0-1")).candidates == ()
    assert (
        review(host_of("1x1x2x1", strategy=Strategy.ROUND_ROBIN), holding(100, "1")).candidates
        == ()
    )


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    policies=st.lists(st.sampled_from(list(Policy)), min_size=6, max_size=6),
)
def test_reviews_are_whole_whatever_is_there(sizes: list[int], policies: list[Policy]) -> None:
    """Cheapest first, its own place among them, none twice, and nobody else changes by it."""
    host, turn = host_of("2x2x2x2"), Turn()
    there: tuple[Placement, ...] = ()
    wanted: dict[Vmid, Request] = {}
    for i, size in enumerate(sizes):
        request = Request(Vmid(100 + i), size, policies[i])
        try:
            made, turn = place(host, Occupancy(there), turn, request)
        except UnplaceableError:
            continue
        there, wanted[request.vmid] = (*there, made.placement), request
    for placement in there:
        request = replace(wanted[placement.vmid], previous=placement.home)
        found = reviewed(host, Occupancy(there), turn, placement, request)
        assert found.placement is placement
        totals = [c.terms.total for c in found.candidates]
        assert totals == sorted(totals)
        homes = [c.home for c in found.candidates]
        assert len(set(homes)) == len(homes)
        if homes and len(placement.home) == len(placement.order):
            assert placement.home in homes


# -- what would fit --------------------------------------------------------------------------------


def refused(host: Host, request: Request, *there: Placement) -> str:
    with pytest.raises(UnplaceableError) as caught:
        place(host, Occupancy(there), Turn(), request)
    return caught.value.text


def dedicated(vcpus: int) -> Request:
    return Request(Vmid(1), vcpus, Policy.DEDICATED)


@settings(max_examples=60, deadline=None)
@given(held=st.sets(st.integers(0, 15), max_size=16), vcpus=st.integers(1, 20))
def test_what_is_said_to_fit_does_and_one_more_does_not(held: set[int], vcpus: int) -> None:
    host = host_of("2x1x4x2")
    there = (holding(100, str(CpuSet.of(held))),) if held else ()
    try:
        place(host, Occupancy(there), Turn(), dedicated(vcpus))
    except UnplaceableError as error:
        _, _, fits = error.text.partition("; ")
        left = int(fits.split(" ")[0]) if "dedicated vCPU" in fits else 0
        assert left < vcpus
        assert fits.endswith("shared")
        if left:
            place(host, Occupancy(there), Turn(), dedicated(left))
        refused(host, dedicated(left + 1), *there)


def test_nothing_fits_beside_dedicated_guests_that_have_all() -> None:
    said = refused(host_of("1x1x4x2"), dedicated(1), holding(100, "0-3", exclusive=True))
    assert said == (
        "1 CPU of its own wanted, 0 left; nothing fits beside the dedicated guests that are there"
    )


def test_the_smallest_guest_that_is_enough_is_named() -> None:
    homes = {100: "0", 101: "1-4", 102: "5-7"}
    there = tuple(holding(vmid, home, exclusive=True) for vmid, home in homes.items())
    host = host_of("1x1x8x1")
    for vcpus, vmid in ((1, 100), (2, 102), (3, 102), (4, 101), (9, 101)):
        said = refused(host, Request(Vmid(1), vcpus), *there)
        assert said.endswith(f"; it would fit without VM {vmid}")


def test_everything_reserved_says_what_to_give_back() -> None:
    request = Request(Vmid(1), 2)
    assert refused(host_of("1x1x4x1", reserved="0-3"), request).endswith(
        "; it would fit with CPUs 0-1 not reserved"
    )
    assert refused(host_of("1x1x4x1", reserved="0-3", allowed="3"), request).endswith(
        "; it would fit with CPU 3 not reserved (its vCPUs share)"
    )
    assert refused(host_of("1x1x4x1+isolated=0-3"), request).endswith(
        "; 4 dedicated vCPUs would fit on isolated CPUs"
    )
    assert refused(host_of("1x1x4x1", allowed=""), request).endswith("or not allowed")


def test_too_few_performance_cores_say_how_many_fit() -> None:
    request = Request(Vmid(1), 9, Policy.PERFORMANCE)
    made, _ = place(host_of("1x1x4x2+4e"), Occupancy(()), Turn(), request)
    (warning,) = made.placement.warnings
    assert warning.endswith("; 8 vCPUs would fit on performance cores")


def test_cores_of_a_kind_that_are_dedicated_guests_are_promised_to_nobody() -> None:
    host = host_of("1x1x4x2+4e")

    def warned(vcpus: int, taken: str) -> tuple[str, ...]:
        there = Occupancy((holding(100, taken, exclusive=True),))
        request = Request(Vmid(1), vcpus, Policy.PERFORMANCE)
        return place(host, there, Turn(), request)[0].placement.warnings

    assert warned(4, "0-7") == ("all performance cores are dedicated guests': any",)
    assert warned(9, "0-3")[0].endswith("; 4 vCPUs would fit on performance cores")
    assert warned(4, "0-3") == ()


@settings(max_examples=60, deadline=None)
@given(
    vcpus=st.integers(1, 6),
    policy=st.sampled_from([Policy.SHARED, Policy.PINNED, Policy.DEDICATED]),
    strategy=st.sampled_from(list(Strategy)),
    fallback=st.sampled_from(list(Fallback)),
    spec=st.sampled_from(["1x1x6x1", "1x1x6x1+isolated=4-5"]),
)
def test_what_is_said_to_fit_without_the_reservation_does(
    vcpus: int, policy: Policy, strategy: Strategy, fallback: Fallback, spec: str
) -> None:
    """Once a guest that shares with nobody was told that its vCPUs would share."""

    def host(reserved: str) -> Host:
        made = host_of(spec, reserved=reserved, strategy=strategy)
        return replace(made, rules=replace(made.rules, dedicated_fallback=fallback))

    request = Request(Vmid(1), vcpus, policy)
    try:
        place(host("0-5"), Occupancy(()), Turn(), request)
    except UnplaceableError as error:
        text = error.text
    else:
        return
    found = re.search(r"; (?:it|(\d+) (?:dedicated )?vCPUs?) would fit with CPUs? ([\d,-]+) ", text)
    assert found is not None, text
    given_back = str(CpuSet.parse("0-5") - CpuSet.parse(found[2]))
    smaller = replace(request, vcpus=int(found[1] or vcpus))
    made, _ = place(host(given_back), Occupancy(()), Turn(), smaller)
    alone = policy is Policy.DEDICATED and strategy is Strategy.BALANCED  # by turns nobody is
    assert made.placement.exclusive == (alone and "share" not in text)


@given(room=st.lists(st.integers(0, 12), max_size=5), count=st.integers(1, 6))
def test_guest_nodes_that_fit_are_the_largest(room: list[int], count: int) -> None:
    said = nearest.guest_nodes(count, room)
    fits = [n for n in range(1, 13) if sum(cpus // n for cpus in room) >= count]
    assert (str(max(fits)) in said.split(" ")) if fits else said == ""


def test_guest_nodes_that_are_said_to_fit_do() -> None:
    host = host_of("2x1x5x1")
    too_large = tuple(GuestNode((3 * i, 3 * i + 1, 3 * i + 2)) for i in range(3))
    made, _ = place(host, Occupancy(()), Turn(), Request(Vmid(1), 9, guest_nodes=too_large))
    assert made.placement.warnings[0].endswith("3 guest nodes of 2 vCPUs each would fit")
    good = tuple(GuestNode((2 * i, 2 * i + 1)) for i in range(3))
    made, _ = place(host, Occupancy(()), Turn(), Request(Vmid(1), 6, guest_nodes=good))
    assert len(made.placement.parts) == 3


# -- words -----------------------------------------------------------------------------------------


def reporter(
    spec: str, *there: Placement, wide: str = "", width: Width = Width.AUTO, waited: int = 0
) -> Reporter:
    topology = topology_of(spec)
    rules = Rules(width=width, widening=Widening(Widen.PRESSURE, above=0.025))
    host = compile_host(topology, predicted(topology), rules)
    groups = {g for g in topology.cache_groups if g.overlaps(CpuSet.parse(wide))}
    return Reporter.of(host, Occupancy(there), groups, {Vmid(waited)} if waited else set())


def test_width_is_said_as_an_administrator_would() -> None:
    guests = tuple(
        replace(holding(100 + i, "0-15", vcpus=18), applied=CpuSet.parse("0-15")) for i in range(2)
    )
    said = reporter("1x1x16x1", *guests, wide="0-15")
    assert said.width(guests[0]) == "host committed 225 %: floats in L3 0, CPUs 0-15"
    assert said.reach(guests[0]) is Reach.DOMAIN


def test_each_reason_has_its_words() -> None:
    def words(
        own: Placement, applied: str, *others: Placement, wide: str = "", width: Width = Width.AUTO
    ) -> str:
        own = replace(own, applied=CpuSet.parse(applied))
        return reporter("1x2x4x1", own, *others, wide=wide, width=width).width(own)

    guest, beside = holding(100, "0-1"), holding(101, "1-2")
    assert words(guest, "0-1") == (
        "host committed 25 %, no vCPUs share CPUs in L3 0: exact, CPUs 0-1"
    )
    assert words(guest, "0-1", width=Width.EXACT) == (
        "host committed 25 %, PCA_WIDTH=exact: exact, CPUs 0-1"
    )
    assert words(guest, "0-3", wide="0-7", width=Width.DOMAIN) == (
        "host committed 25 %, PCA_WIDTH=domain: floats in L3 0, CPUs 0-3"
    )
    assert words(guest, "0-3", beside, wide="0-3") == (
        "host committed 50 %, vCPUs share CPUs there: floats in L3 0, CPUs 0-3"
    )
    assert words(guest, "0-3", wide="0-3") == (
        "host committed 25 %, vCPUs shared CPUs there within the last minute: "
        "floats in L3 0, CPUs 0-3"
    )
    pinned = replace(holding(102, "2-3"), pinned=True)
    assert words(guest, "0-1", pinned, wide="0-3", width=Width.DOMAIN) == (
        "host committed 50 %, PCA_WIDTH=domain: would float in L3 0, CPUs 0-1, "
        "but the others there are not for it"
    )
    assert words(replace(guest, exclusive=True), "0-1") == (
        "dedicated: CPUs 0-1 and their SMT siblings are its own"
    )
    assert words(replace(guest, pinned=True), "0-1") == ("pinned: each vCPU on its own of CPUs 0-1")


@pytest.mark.parametrize(
    ("cpus", "order", "pinned", "dedicated"),
    [
        ("2", (2,), "its vCPU on CPU 2", "CPU 2 and its SMT siblings are its own"),
        ("2", (2, 2, 2), "all 3 vCPUs on CPU 2", "CPU 2 and its SMT siblings are its own"),
        (
            "0-1",
            (0, 1, 0),
            "each of 3 vCPUs on one of CPUs 0-1, several on the same",
            "CPUs 0-1 and their SMT siblings are its own",
        ),
    ],
)
def test_a_pinned_guest_larger_than_its_set_is_not_said_to_have_a_cpu_for_each_vcpu(
    cpus: str, order: tuple[int, ...], pinned: str, dedicated: str
) -> None:
    """`each vCPU on its own of CPUs 0-1` was said of four vCPUs on two CPUs."""
    guest = replace(holding(100, cpus), order=tuple(map(Cpu, order)))
    said = reporter("1x1x4x1", guest)
    assert said.width(replace(guest, pinned=True)) == f"pinned: {pinned}"
    assert said.width(replace(guest, exclusive=True)) == f"dedicated: {dedicated}"


def test_who_waited_is_said_to_have() -> None:
    guest = replace(holding(100, "0-1"), applied=CpuSet.parse("0-7"))
    said = reporter("2x2x4x1", guest, wide="0-15", width=Width.DOMAIN, waited=100)
    assert said.width(guest) == (
        "host committed 12 %, it waited for CPUs more than 2.5 % of the time: "
        "floats in node 0, CPUs 0-7"
    )
    assert said.reach(guest) is Reach.NODE


def test_many_groups_are_counted() -> None:
    guest = replace(holding(100, "0-9"), applied=CpuSet.parse("0-9"))
    said = reporter("1x5x2x1", guest, wide="0-9", width=Width.DOMAIN)
    assert said.width(guest).endswith("floats in 5 L3 groups, CPUs 0-9")


def test_sets_and_decisions_are_named_in_one_way() -> None:
    assert (named(CpuSet.parse("3")), named(CpuSet.parse("3-4"))) == ("CPU 3", "CPUs 3-4")
    placement = replace(holding(100, "3"), warnings=("one", "another"))
    assert decided(Decision(placement, (), "because")) == "CPU 3: because; one; another"
