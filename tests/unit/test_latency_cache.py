"""The kept matrix: a round trip, every kind of damage a reason, and what replaces what."""

import json
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.latency.cache import (
    Unusable,
    better,
    encoded,
    fingerprint,
    usable,
)
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.latency import LatencyMatrix, Method, Verdict

FACTS = {"CPU model": "Generated", "microcode": "0x1", "BIOS version": "1.2"}
HERE = fingerprint(FACTS)


def matrix(
    cpus: tuple[int, ...] = (0, 1, 4),
    *,
    ns: float = 30.0,
    measured: bool = True,
    verdict: Verdict = Verdict.TRUSTED,
) -> LatencyMatrix:
    count = len(cpus)
    cells = [(i, j) for i in range(count) for j in range(count)]
    return LatencyMatrix(
        tuple(map(Cpu, cpus)),
        array("d", (0.0 if i == j else ns + i * j for i, j in cells)),
        array("d", (0.0 if i == j else (i + j) / 7 for i, j in cells)),
        bytes(int(measured and i != j) for i, j in cells),
        verdict,
        Method.CAS,
        ("virtual machine: latencies move with the hypervisor",),
    )


def kept(original: LatencyMatrix) -> dict[str, object]:
    document: object = json.loads(json.dumps(encoded(original, HERE)))
    assert isinstance(document, dict)
    return document


def same(one: LatencyMatrix, other: LatencyMatrix) -> bool:
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("cpus", "ns", "spread", "measured", "verdict", "method", "conditions")
    )


def reason(document: object, here: str = HERE) -> str:
    got = usable(document, here)
    assert isinstance(got, Unusable)
    return got.reason


@pytest.mark.parametrize("cpus", [(0,), (0, 1), (3, 8, 9, 200)])
@pytest.mark.parametrize("verdict", list(Verdict))
def test_round_trip_through_json(cpus: tuple[int, ...], verdict: Verdict) -> None:
    original = matrix(cpus, verdict=verdict)
    got = usable(kept(original), HERE)
    assert isinstance(got, LatencyMatrix)
    assert same(got, original)


@given(ns=st.floats(0, 1e9), measured=st.booleans())
def test_round_trip_keeps_every_bit(*, ns: float, measured: bool) -> None:
    original = matrix(ns=ns, measured=measured)
    got = usable(kept(original), HERE)
    assert isinstance(got, LatencyMatrix)
    assert same(got, original)


def test_order_of_keys_does_not_matter() -> None:
    turned = dict(reversed(kept(matrix()).items()))
    assert isinstance(usable(turned, HERE), LatencyMatrix)


def test_fingerprint_is_of_the_facts_whatever_their_order() -> None:
    assert fingerprint(dict(reversed(FACTS.items()))) == HERE
    assert fingerprint({**FACTS, "microcode": "0x2"}) != HERE


def test_a_changed_host_is_named_by_what_changed() -> None:
    now = fingerprint({**FACTS, "microcode": "0x2", "BIOS version": "1.3"})
    told = reason(kept(matrix()), now)
    assert told == "this host changed since it was measured: BIOS version, microcode"


@pytest.mark.parametrize("other", ["", "no json", "[1]", "null", "[" * 100_000])
def test_a_fingerprint_that_is_none_is_a_changed_host(other: str) -> None:
    assert "changed" in reason(encoded(matrix(), other))


@pytest.mark.parametrize("document", [None, [], "x", 7, {}, {"version": 2}, {"version": 3}])
def test_what_is_no_such_document_has_a_reason(document: object) -> None:
    assert reason(document)


def test_another_version_is_a_reason() -> None:
    assert "version" in reason({**kept(matrix()), "version": 1})


def bad(key: str, value: object) -> dict[str, object]:
    """A document with a content that encoded() never makes."""
    return {**kept(matrix()), key: value}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cpus", [0, 4, 1]),
        ("cpus", [0, 1, 1]),
        ("cpus", [0, 1, -4]),
        ("cpus", [0, 1, True]),
        ("cpus", [0, 1, 4, 5]),
        ("cpus", "014"),
        ("ns", [30.0, 31.0]),
        ("ns", [30.0, 31.0, "32"]),
        ("ns", [30.0, 31.0, -1.0]),
        ("ns", [30.0, 31.0, 10**400]),
        ("ns", None),
        ("spread", [0, 0, None]),
        ("measured", "11"),
        ("measured", "112"),
        ("measured", "٣١١"),
        ("measured", [1, 1, 1]),
        ("verdict", "fine"),
        ("verdict", 3),
        ("method", "guess"),
        ("conditions", [7]),
        ("conditions", "x"),
    ],
)
def test_a_content_that_cannot_be_is_a_reason(key: str, value: object) -> None:
    assert "damaged" in reason(bad(key, value))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_have(value: float) -> None:
    assert "damaged" in reason(bad("ns", [30.0, 31.0, value]))


def test_a_missing_key_is_a_reason() -> None:
    body = kept(matrix())
    del body["spread"]
    assert "damaged" in reason(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(json_values)
def test_any_document_gives_a_reason_and_no_exception(document: object) -> None:
    assert reason(document)


@given(st.sampled_from(["ns", "spread", "cpus", "measured", "verdict", "method"]), json_values)
def test_any_content_gives_a_matrix_or_a_reason(key: str, value: object) -> None:
    assert isinstance(usable(bad(key, value), HERE), LatencyMatrix | Unusable)


T, U, P = Verdict.TRUSTED, Verdict.UNSTABLE, Verdict.PREDICTED


@pytest.mark.parametrize(
    ("old", "new", "new_wins"),
    [(T, T, True), (T, U, False), (T, P, False), (U, T, True), (U, U, True), (P, U, True)],
)
def test_which_run_is_kept(old: Verdict, new: Verdict, *, new_wins: bool) -> None:
    before, after = matrix(verdict=old), matrix(verdict=new)
    assert (better(before, after) is after) == new_wins


def test_a_cut_run_does_not_replace_a_whole_one() -> None:
    whole, cut = matrix(), matrix(measured=False)
    assert better(whole, cut) is whole
    assert better(cut, whole) is whole


def test_anything_is_better_than_nothing_and_than_other_cpus() -> None:
    new = matrix(verdict=U)
    assert better(None, new) is new
    assert better(matrix((0, 1)), new) is new
