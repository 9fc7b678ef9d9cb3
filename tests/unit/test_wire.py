"""The API's contract: bodies are read strictly, answers are what the OpenAPI document says."""

import dataclasses
import json
import re
import types
import typing
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats import (
    endpoints,
    jsonvalue,
    openapi,
    wire,
    wire_bodies,
    wire_events,
    wire_query,
    wire_trial,
)
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import AffinityError, BadRequestError, family
from proxmox_cpu_affinity.model.guest import VCPUS_MOST
from proxmox_cpu_affinity.model.ids import VMID_MAX

DOCUMENT = openapi.document("1.2.3")
Body = Mapping[str, object]

# -- a small checker of JSON schemas, for the words that openapi uses ------------------------------

PLAIN: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": types.NoneType,
    "array": list,
    "object": dict,
}


def at(document: object, *keys: str) -> object:
    """What hangs below these keys."""
    for key in keys:
        assert isinstance(document, dict)
        document = document[key]
    return document


def resolved(schema: object) -> dict[str, object]:
    assert isinstance(schema, dict)
    reference = schema.get("$ref")
    if reference is None:
        return schema
    assert isinstance(reference, str)
    return resolved(at(DOCUMENT, *reference.removeprefix("#/").split("/")))


def faults(value: object, schema: object, *, where: str = "it") -> list[str]:
    """Everything in which a JSON value is not as its schema says."""
    rules = resolved(schema)
    choices = rules.get("anyOf")
    if isinstance(choices, list):
        found = [faults(value, choice, where=where) for choice in choices]
        return [] if not all(found) else [f"{where} fits none of {len(found)}"]
    kind = rules["type"]
    assert isinstance(kind, str)
    if not isinstance(value, PLAIN[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{where} is no {kind}"]
    if isinstance(value, list):
        entries = enumerate(value)
        return [f for i, v in entries for f in faults(v, rules["items"], where=f"{where}[{i}]")]
    return _object_faults(value, rules, where) if isinstance(value, dict) else []


def _object_faults(value: Body, rules: Mapping[str, object], where: str) -> list[str]:
    properties, others = rules.get("properties", {}), rules.get("additionalProperties", True)
    required = rules.get("required", [])
    assert isinstance(properties, dict)
    assert isinstance(required, list)
    found = [f"{where} lacks {key}" for key in required if key not in value]
    for key, entry in value.items():
        if key in properties:
            found += faults(entry, properties[key], where=f"{where}.{key}")
        elif others is False:
            found.append(f"{where} has {key}")
        elif others is not True:
            found += faults(entry, others, where=f"{where}.{key}")
    return found


# -- values of the wire's types --------------------------------------------------------------------


def made(kind: object, *, full: bool) -> object:
    """A value of a wire type: every list, mapping and union at its fullest, or at its emptiest."""
    plain: Mapping[object, object] = {str: "text", int: 7, float: 1.5, bool: full}
    if kind in plain:
        return plain[kind]
    if kind is types.NoneType:
        return None
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return [made(arguments[0], full=full)] * 2 if full else []
    if origin is dict:
        return {"key": made(arguments[1], full=full)} if full else {}
    if origin is types.UnionType:
        return made(arguments[0 if full else -1], full=full)
    assert isinstance(kind, type)
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if full or _required(field)]
    instance: object = kind(**{name: made(hints[name], full=full) for name in names})
    return instance


def _required(field: "dataclasses.Field[object]") -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def operation(endpoint: endpoints.Endpoint) -> object:
    return at(DOCUMENT, "paths", endpoint.path, endpoint.method.lower())


def answer_schema(endpoint: endpoints.Endpoint) -> object:
    return at(operation(endpoint), "responses", "200", "content", endpoint.media, "schema")


def _named(endpoint: endpoints.Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


# -- the document ----------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("endpoint", endpoints.ENDPOINTS, ids=_named)
def test_answers_are_as_the_document_says(endpoint: endpoints.Endpoint, full: bool) -> None:  # noqa: FBT001
    value = jsonvalue.plain(made(endpoint.answer, full=full))
    assert faults(value, answer_schema(endpoint)) == []
    assert json.loads(json.dumps(value)) == value


@pytest.mark.parametrize("endpoint", endpoints.ENDPOINTS, ids=_named)
def test_answers_with_a_field_too_many_are_found(endpoint: endpoints.Endpoint) -> None:
    """So the test before this one can fail."""
    value = jsonvalue.plain(made(endpoint.answer, full=True))
    rows = value if isinstance(value, list) else [value]
    if not rows or not isinstance(rows[0], dict) or typing.get_origin(endpoint.answer) is dict:
        assert faults(object(), answer_schema(endpoint)) != []
        return
    rows[0]["surplus"] = 1
    assert any("surplus" in fault for fault in faults(value, answer_schema(endpoint)))
    first = next(iter(rows[0]))
    rows[0][first] = object()
    assert any(first in fault for fault in faults(value, answer_schema(endpoint)))
    del rows[0][first]
    assert any(f"lacks {first}" in fault for fault in faults(value, answer_schema(endpoint)))


def test_endpoints_are_named_once_and_where_they_were() -> None:
    places = Counter((endpoint.method, endpoint.path) for endpoint in endpoints.ENDPOINTS)
    assert set(places.values()) == {1}
    identifiers = Counter(
        at(operation(endpoint), "operationId") for endpoint in endpoints.ENDPOINTS
    )
    assert set(identifiers.values()) == {1}
    # The routes of the Go project until 0.0.5.
    old = {("GET", "/api/ping"), ("GET", "/api/ranking"), ("GET", "/api/vmstarted/{vmid}")}
    assert old <= set(places)


def test_document_is_json_and_every_reference_leads_somewhere() -> None:
    text = json.dumps(DOCUMENT)
    assert json.loads(text) == DOCUMENT
    schemas = at(DOCUMENT, "components", "schemas")
    assert isinstance(schemas, dict)
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named == set(schemas)
    assert all(schema.get("type") == "object" for schema in schemas.values())
    assert at(DOCUMENT, "info", "version") == "1.2.3"


@pytest.mark.parametrize("endpoint", endpoints.ENDPOINTS, ids=_named)
def test_what_acts_asks_for_the_token_and_nothing_else_does(endpoint: endpoints.Endpoint) -> None:
    shown = operation(endpoint)
    assert isinstance(shown, dict)
    assert ("security" in shown) == endpoint.acts
    assert endpoint.acts or endpoint.method == "GET" or endpoint.name == "plan"
    assert ("requestBody" in shown) == (endpoint.body is not None)
    named = [*re.findall(r"{(\w+)}", endpoint.path), *(p.name for p in endpoint.query)]
    parameters = shown.get("parameters", [])
    assert isinstance(parameters, list)
    assert [parameter["name"] for parameter in parameters] == named


@pytest.mark.parametrize("error", family(), ids=lambda error: error.code)
def test_errors_are_problems_as_the_document_says(error: type[AffinityError]) -> None:
    problem = wire.problem(error("what is wrong", hint="what to do"))
    forms = {
        False: ("application/problem+json", jsonvalue.plain(problem)),
        True: ("application/json", jsonvalue.plain(wire.OldProblem("what is wrong"))),
    }
    for endpoint in endpoints.ENDPOINTS:
        media, value = forms[endpoints.is_old(endpoint.path)]
        shown = at(operation(endpoint), "responses", "default", "content")
        assert faults(value, at(shown, media, "schema")) == []
    assert (problem.status, problem.code) == (error.http_status, error.code)
    assert (problem.detail, problem.hint) == ("what is wrong", "what to do")


def test_inherited_answers_keep_their_fields() -> None:
    assert jsonvalue.plain(wire.Ping("pong")) == {"ping": "pong"}
    ranking = wire.Ranking(0, [wire.Neighbor(1, 0, 0, 27.97)])
    assert jsonvalue.plain([ranking]) == [
        {"cpu": 0, "ranking": [{"cpu": 1, "socket": 0, "core": 0, "latency_ns": 27.97}]}
    ]
    names = [field.name for field in dataclasses.fields(wire.RankingSummary)]
    assert names[:6] == [
        "cpu_count",
        "socket_count",
        "min_latency_ns",
        "max_latency_ns",
        "median_latency_ns",
        "mean_latency_ns",
    ]


# -- bodies ----------------------------------------------------------------------------------------

READERS: Mapping[str, Callable[[Body], object]] = {
    "hook": wire_bodies.HookBody.read,
    "reassign": wire_bodies.ReassignBody.read,
    "plan": wire_bodies.PlanBody.read,
}


@pytest.mark.parametrize(
    ("reader", "body", "value"),
    [
        ("hook", {}, wire_bodies.HookBody()),
        ("hook", {"migrated_from": "pve2"}, wire_bodies.HookBody("pve2")),
        ("reassign", {}, wire_bodies.ReassignBody()),
        ("reassign", {"undo": True}, wire_bodies.ReassignBody(undo=True)),
        ("plan", {"guests": []}, wire_bodies.PlanBody([])),
        (
            "plan",
            {"guests": [{"vmid": 100, "vcpus": 4}]},
            wire_bodies.PlanBody([wire_bodies.PlanGuest(100, 4)]),
        ),
        (
            "plan",
            {"guests": [{"vmid": 100, "vcpus": 4, "sockets": 2, "numa": True, "policy": "pinned"}]},
            wire_bodies.PlanBody(
                [wire_bodies.PlanGuest(100, 4, sockets=2, numa=True, policy="pinned")]
            ),
        ),
    ],
)
def test_bodies_are_read(reader: str, body: Body, value: object) -> None:
    assert READERS[reader](body) == value
    kinds = {endpoint.body.__name__: endpoint for endpoint in endpoints.ENDPOINTS if endpoint.body}
    shown = operation(kinds[type(value).__name__])
    schema = at(shown, "requestBody", "content", "application/json", "schema")
    assert faults(body, schema) == []


@pytest.mark.parametrize(
    ("reader", "body", "named"),
    [
        ("hook", {"migrated-from": "pve2"}, "'migrated-from'"),
        ("hook", {"migrated_from": 1}, "'migrated_from'"),
        ("hook", {"migrated_from": None}, "'migrated_from'"),
        ("reassign", {"undo": "true"}, "'undo'"),
        ("reassign", {"undo": 1}, "'undo'"),
        ("reassign", {"undo": None}, "'undo'"),
        ("reassign", {"undoo": True}, "'undoo'"),
        ("plan", {}, "'guests'"),
        ("plan", {"guests": {}}, "'guests'"),
        ("plan", {"guests": [1]}, "'guests'"),
        ("plan", {"guests": [], "dry": True}, "'dry'"),
        ("plan", {"guests": [{"vmid": 100}]}, "'vcpus'"),
        ("plan", {"guests": [{"vcpus": 1}]}, "'vmid'"),
        ("plan", {"guests": [{"vmid": "100", "vcpus": 1}]}, "'vmid'"),
        ("plan", {"guests": [{"vmid": 99, "vcpus": 1}]}, "'vmid'"),
        ("plan", {"guests": [{"vmid": VMID_MAX + 1, "vcpus": 1}]}, "'vmid'"),
        ("plan", {"guests": [{"vmid": 100, "vcpus": True}]}, "'vcpus'"),
        ("plan", {"guests": [{"vmid": 100, "vcpus": 1.0}]}, "'vcpus'"),
        ("plan", {"guests": [{"vmid": 100, "vcpus": 0}]}, "'vcpus'"),
        ("plan", {"guests": [{"vmid": 100, "vcpus": VCPUS_MOST + 1}]}, "'vcpus'"),
        ("plan", {"guests": [{"vmid": 100, "vcpus": 1, "policy": "x"}]}, "'policy'"),
        ("plan", {"guests": [{"vmid": 100, "vcpus": 1, "policy": "x"}]}, "must be one of shared"),
        ("plan", {"guests": [{"vmid": 100, "vcpus": 1, "sockets": 0}]}, "'sockets'"),
        ("plan", {"guests": [{"vmid": 100, "vcpus": 1, "sockets": 65}]}, "'sockets'"),
        ("plan", {"guests": [{"vmid": 100, "vcpus": 1, "numa": 1}]}, "'numa'"),
        ("plan", {"guests": [{"vmid": 100, "vcpus": 1}] * 2}, "twice"),
        ("plan", {"guests": [{}] * (wire_bodies.PLAN_MOST + 1)}, "'guests'"),
    ],
)
def test_bodies_that_are_wrong_name_the_field(reader: str, body: Body, named: str) -> None:
    with pytest.raises(BadRequestError, match=named) as caught:
        READERS[reader](body)
    assert caught.value.http_status == 400


def test_an_unknown_field_is_told_what_there_is() -> None:
    with pytest.raises(BadRequestError) as caught:
        wire_bodies.ReassignBody.read({"force": True})
    assert "undo" in caught.value.hint


@pytest.mark.parametrize("number", ["100", "999999999"])
def test_vmids_in_paths(number: str) -> None:
    assert endpoints.read_vmid(number) == int(number)


@pytest.mark.parametrize("number", ["", "99", "0100", "1000000000", "-100", "1e3", "²00", "a" * 99])
def test_what_is_no_vmid_is_refused(number: str) -> None:
    with pytest.raises(BadRequestError, match="is no VMID") as caught:
        endpoints.read_vmid(number)
    assert len(caught.value.text) < 60


# -- queries ---------------------------------------------------------------------------------------

TRY = next(endpoint for endpoint in endpoints.ENDPOINTS if endpoint.name == "try_guest").query


@pytest.mark.parametrize(
    "query", [{"vcpus": "1"}, {"vcpus": "8192", "policy": "pinned", "sockets": "2", "numa": "1"}]
)
def test_queries_are_read(query: Mapping[str, str]) -> None:
    assert wire_query.checked(query, TRY) == query


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({}, "'vcpus'"),
        ({"vcpus": ""}, "'vcpus'"),
        ({"vcpus": "0"}, "'vcpus'"),
        ({"vcpus": "8193"}, "'vcpus'"),
        ({"vcpus": "-1"}, "'vcpus'"),
        ({"vcpus": "²"}, "'vcpus'"),
        ({"vcpus": "1e3"}, "'vcpus'"),
        ({"vcpus": "9" * 5000}, "'vcpus'"),
        ({"vcpus": "4", "policy": "greedy"}, "'policy'"),
        ({"vcpus": "4", "policy": ""}, "'policy'"),
        ({"vcpus": "4", "numa": "yes"}, "'numa'"),
        ({"vcpus": "4", "sockets": "65"}, "'sockets'"),
        ({"vcpus": "4", "cpus": "0"}, "'cpus'"),
    ],
)
def test_queries_that_are_wrong_name_the_parameter_and_say_what_is_allowed(
    query: Mapping[str, str], named: str
) -> None:
    with pytest.raises(BadRequestError, match=named) as caught:
        wire_query.checked(query, TRY)
    assert caught.value.hint
    assert len(caught.value.text) < 100


# -- the door for JSON -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " \n", b"", "{}", b"{}\n"])
def test_no_body_is_an_empty_object(text: str | bytes) -> None:
    assert jsonvalue.json_object(text) == {}


@pytest.mark.parametrize(
    "text",
    ["{", "{'a': 1}", "nonsense", b"\xff\xfe\x00", b"\x80", '{"a": 1} {"b": 2}', "[" * 100_000],
)
def test_what_is_no_json_is_said_to_be_none(text: str | bytes) -> None:
    with pytest.raises(BadRequestError, match="not JSON"):
        jsonvalue.json_object(text)


@pytest.mark.parametrize("text", ["[]", "1", '"text"', "null", "true"])
def test_what_is_no_object_is_said_to_be_none(text: str) -> None:
    with pytest.raises(BadRequestError, match="not a JSON object"):
        jsonvalue.json_object(text)


@given(data=st.binary(max_size=60))
def test_any_bytes_are_an_object_or_refused(data: bytes) -> None:
    try:
        value = jsonvalue.json_object(data)
    except BadRequestError:
        return
    assert isinstance(value, dict)


class Colour(StrEnum):
    RED = "red"


@dataclasses.dataclass(frozen=True, slots=True)
class Thing:
    cpus: CpuSet
    colour: Colour
    parts: tuple[int, ...]
    by_number: Mapping[int, float]
    nothing: None = None


def test_values_have_one_json_form() -> None:
    thing = Thing(CpuSet.parse("0-3,8"), Colour.RED, (1, 2), {5: 0.5})
    assert jsonvalue.plain([thing]) == [
        {
            "cpus": "0-3,8",
            "colour": "red",
            "parts": [1, 2],
            "by_number": {"5": 0.5},
            "nothing": None,
        }
    ]


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", CpuSet, 1j])
def test_what_has_no_json_form_is_an_error(value: object) -> None:
    with pytest.raises(TypeError, match="has no JSON form"):
        jsonvalue.plain({"x": value})


def test_only_wire_types_have_a_schema() -> None:
    with pytest.raises(TypeError, match="has no schema"):
        openapi._schema(bytes, {})


def test_every_wire_type_is_told_of() -> None:
    """A dataclass of the wire that no endpoint takes or gives is a left-over."""
    schemas = at(DOCUMENT, "components", "schemas")
    assert isinstance(schemas, dict)
    kinds = {
        kind
        for module in (wire, wire_bodies, wire_events, wire_trial)
        for kind in vars(module).values()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }
    assert {kind.__name__ for kind in kinds} == set(schemas)
