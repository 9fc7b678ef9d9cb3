"""The score and its lower bound: by hand on small hosts, and by trying all placements."""

import gc
from functools import cache
from itertools import combinations, product
from random import Random

import pytest

from proxmox_cpu_affinity.engine import round_robin
from proxmox_cpu_affinity.engine.bound import least_alone, least_contention, lower_bound
from proxmox_cpu_affinity.engine.facts import Host, Occupancy, Rules, Turn, compile_host
from proxmox_cpu_affinity.engine.place import place
from proxmox_cpu_affinity.engine.score import score, total
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import Request
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.latency import LatencyMatrix, restricted
from proxmox_cpu_affinity.model.placement import Placement, Weights
from tests.unit.engine_hosts import holding, host_of, shaken, topology_of

STUDY = Weights(smt_own=0.12)
NO_LATENCY = Weights(lat_ns=0.0)


def one(vcpus: int, cpus: str) -> tuple[int, CpuSet]:
    return vcpus, CpuSet.parse(cpus)


def test_a_guest_alone_costs_its_latency() -> None:
    host = host_of("1x1x4x1")
    nanos = host.matrix.between(0, 1)
    assert total(host, [one(1, "0")]) == 0
    assert total(host, [one(2, "0-1")]) == pytest.approx(2 * 0.002 * nanos, rel=1e-4)


def test_terms_by_hand() -> None:
    """CPUs 0 and 4 are siblings, and so on."""
    host = host_of("1x1x4x2", weights=NO_LATENCY)
    assert total(host, [one(1, "0"), one(1, "0")]) == pytest.approx(2 * 0.25)
    assert total(host, [one(1, "0"), one(1, "4")]) == pytest.approx(2 * 0.15)
    assert total(host, [one(2, "0,4")]) == pytest.approx(2 * 0.35)
    assert total(host, [one(2, "0-1"), one(1, "0"), one(1, "5")]) == pytest.approx(0.5 + 0.3)
    hybrid = host_of("1x1x2x2+4e", weights=NO_LATENCY)
    assert total(hybrid, [one(1, "4"), one(1, "0")]) == pytest.approx(0.4)


def test_a_guest_of_more_vcpus_than_cpus_shares_with_itself() -> None:
    host = host_of("1x1x2x1", weights=NO_LATENCY)
    assert total(host, [one(4, "0-1")]) == pytest.approx(0.25 * 2 * (4 - 2))


def test_bound_by_hand() -> None:
    host = host_of("1x1x4x2", weights=NO_LATENCY)
    assert lower_bound(host, [1] * 4) == 0
    assert lower_bound(host, [1] * 5) == pytest.approx(0.3)
    assert least_contention(host, 9) == pytest.approx(4 * 0.3 + 0.5 + 0.3)
    assert least_alone(host, 5) == 0
    assert least_alone(host, 8) == pytest.approx(8 * 0.35)
    assert lower_bound(host, [4]) == 0


def test_a_bound_keeps_no_host_that_nobody_uses_any_more() -> None:
    """The last 256 sums were kept by the module, and with them the hosts: after a few dozen reloads
    or switched CPUs as many whole matrices."""

    def alive() -> int:
        gc.collect()
        return sum(isinstance(one, Host) for one in gc.get_objects())

    before = alive()
    for _ in range(3):
        lower_bound(host_of("1x2x2x2"), (2, 3))
    assert alive() == before


def test_reserved_cpus_do_not_count() -> None:
    host = host_of("1x1x4x2", reserved="4-7", weights=NO_LATENCY)
    assert lower_bound(host, [1] * 4) == 0
    assert lower_bound(host, [1] * 5) == pytest.approx(0.5)


def _random_host(random: Random, spec: str) -> Host:
    topology = topology_of(spec)
    weights = Weights(
        thread=random.choice([0.1, 0.25, 0.5]),
        smt_cross=random.choice([0.05, 0.15, 0.3]),
        smt_own=random.choice([0.02, 0.12, 0.35]),
        lat_ns=random.choice([0.0, 0.002, 0.01]),
        ecore=random.choice([0.1, 0.4]),
    )
    matrix = shaken(predicted(topology), random, most=random.choice([0.0, 0.5]))
    return compile_host(topology, matrix, Rules(weights=weights))


@cache
def _sets(cpus: int, vcpus: int) -> list[CpuSet]:
    return [CpuSet.of(members) for members in combinations(range(cpus), vcpus)]


def _optimum(host: Host, sizes: list[int]) -> float:
    """The least total there is, by trying all placements."""
    count = len(host.cpus)
    sets = [_sets(count, min(size, count)) for size in sizes]
    return min(total(host, zip(sizes, homes, strict=True)) for homes in product(*sets))


@pytest.mark.parametrize("spec", ["1x1x2x2", "1x1x4x1", "2x1x2x1", "1x1x1x2+2e", "1x2x1x2"])
def test_no_placement_is_below_the_bound(spec: str) -> None:
    random = Random(spec)
    for _ in range(12):
        host = _random_host(random, spec)
        sizes = [random.choice([1, 1, 2, 2, 3]) for _ in range(random.randrange(1, 5))]
        assert lower_bound(host, sizes) <= _optimum(host, sizes) + 1e-4


def test_guests_one_after_another_come_within_one_percent_of_the_optimum() -> None:
    """On hosts of 8 CPUs, whoever comes first, against all placements of all guests. One percent
    is of a vCPU's time, as the score has it."""
    above = vcpus = 0.0
    for spec in ("1x1x4x2", "2x1x2x2", "1x2x2x2", "2x1x4x1"):
        host = host_of(spec, weights=STUDY)
        for sizes in ([4, 4], [2, 4], [1, 2, 1], [4, 3], [2, 2], [1, 5], [6, 1]):
            held: tuple[Placement, ...] = ()
            turn = Turn()
            for i, size in enumerate(sizes):
                asked = Request(Vmid(100 + i), size)
                decision, turn = place(host, Occupancy(held, sum(sizes)), turn, asked)
                held += (decision.placement,)
            ours = total(host, [(len(p.order), p.home) for p in held])
            least = _optimum(host, sizes)
            assert least <= ours + 1e-6
            above, vcpus = above + ours - least, vcpus + sum(sizes)
    assert above <= 0.01 * vcpus


def test_score_names_the_alternatives() -> None:
    host = host_of("1x2x4x2", weights=STUDY)
    found = score(host, (holding(100, "0-3"), holding(101, "4-7")))
    assert found is not None
    assert 0 < found.bound <= found.slowdown < found.no_pinning
    assert found.gap == found.slowdown - found.bound
    assert found.bound <= found.round_robin
    assert found.bound <= found.packed
    assert score(host, ()) is None


def test_score_of_a_guest_larger_than_the_host() -> None:
    found = score(host_of("1x1x4x1"), (holding(100, "0-3", vcpus=6),))
    assert found is not None
    assert found.bound <= found.slowdown
    assert found.round_robin > 0
    assert found.packed == found.slowdown


def test_packed_is_the_next_free_cpus_by_number_and_round_again() -> None:
    host = host_of("1x2x4x2", reserved="0", weights=STUDY)
    held = tuple(holding(vmid, "1-4") for vmid in (102, 100, 101))
    found = score(host, held)
    assert found is not None
    assert found.packed * 12 == pytest.approx(total(host, _homes("1-4", "5-8", "9-12")))
    found = score(host, (*held, holding(103, "1-8")))
    assert found is not None
    assert found.packed * 20 == pytest.approx(
        total(host, [*_homes("1-4", "5-8", "9-12"), (8, CpuSet.parse("13-15,1-5"))])
    )


def test_a_score_makes_the_matrix_of_the_usable_cpus_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a reserved CPU it was made anew for each guest: 12 s of 200 guests on 512 CPUs."""
    made = []

    def counted(matrix: LatencyMatrix, cpus: CpuSet) -> LatencyMatrix:
        made.append(cpus)
        return restricted(matrix, cpus)

    monkeypatch.setattr(round_robin, "restricted", counted)
    host = host_of("1x2x4x2", reserved="0")
    guests = tuple(holding(100 + i, f"{1 + i}") for i in range(9))
    found = score(host, guests)
    assert found is not None
    assert made == [CpuSet.parse("1-15")]
    alone = [round_robin.place(host, Turn(counter=i), Request(Vmid(1), 3))[0] for i in range(9)]
    once = round_robin.among(host)
    assert alone == [
        round_robin.place(host, Turn(counter=i), Request(Vmid(1), 3), matrix=once)[0]
        for i in range(9)
    ]


def _homes(*cpus: str) -> list[tuple[int, CpuSet]]:
    return [(4, CpuSet.parse(text)) for text in cpus]
