"""Answers of the API become the wire types they were made from, or errors that name the field."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.cli.answers import read, read_list
from proxmox_cpu_affinity.formats import jsonvalue, wire
from proxmox_cpu_affinity.model.errors import AffinityError

READ = (
    wire.Ping,
    wire.Problem,
    wire.Status,
    wire.Ranking,
    wire.RankingSummary,
    wire.GuestView,
    wire.ReassignRow,
    wire.TopologyView,
    wire.DecisionView,
)


def sent(value: object) -> str:
    """The JSON that the service writes of a value; text, since NaN equals nothing."""
    return json.dumps(jsonvalue.plain(value))


@pytest.mark.parametrize("kind", READ)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_what_the_service_writes_is_read_as_it_was(
    kind: type[wire.Ping], data: st.DataObject
) -> None:
    text = sent(data.draw(st.from_type(kind)))
    later = {**json.loads(text), "of a later version": [1]}
    assert sent(read(kind, json.loads(text))) == text
    assert sent(read(kind, later)) == text
    assert sent(read_list(kind, [later])) == f"[{text}]"


@pytest.mark.parametrize("kind", READ)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_field_that_is_missing_or_of_another_kind_is_named(
    kind: type[wire.Ping], data: st.DataObject
) -> None:
    value = json.loads(sent(data.draw(st.from_type(kind))))
    required = [
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    name = data.draw(st.sampled_from(required))
    with pytest.raises(AffinityError, match=name) as caught:
        read(kind, {key: entry for key, entry in value.items() if key != name})
    assert caught.value.hint
    with pytest.raises(AffinityError, match=name):
        read(kind, {**value, name: {"neither": "text nor number"}})


@pytest.mark.parametrize("value", [None, 1, "text", [], True])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(AffinityError):
        read(wire.Ping, value)
    if not isinstance(value, list):
        with pytest.raises(AffinityError):
            read_list(wire.Ping, value)


def test_whole_numbers_pass_for_latencies_and_truth_values_do_not() -> None:
    neighbor = {"cpu": 1, "socket": 0, "core": 0, "latency_ns": 28}
    assert read(wire.Neighbor, neighbor).latency_ns == 28.0
    for wrong in ({**neighbor, "latency_ns": True}, {**neighbor, "cpu": True}):
        with pytest.raises(AffinityError):
            read(wire.Neighbor, wrong)
