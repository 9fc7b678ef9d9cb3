"""The OpenAPI 3.1 document of the API, made from the endpoint table and the wire types."""

import dataclasses
import re
import types
import typing

from proxmox_cpu_affinity.formats.endpoints import ENDPOINTS, EVENT_STREAM, Endpoint, is_old
from proxmox_cpu_affinity.formats.wire import OldProblem, Problem
from proxmox_cpu_affinity.formats.wire_events import EVENTS
from proxmox_cpu_affinity.formats.wire_query import Parameter
from proxmox_cpu_affinity.model.ids import VMID_MAX, VMID_MIN

Schema = dict[str, object]
_PLAIN: dict[object, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def document(version: str) -> Schema:
    """The whole document as a JSON-able mapping."""
    schemas: Schema = {}
    paths: dict[str, dict[str, object]] = {}
    for endpoint in ENDPOINTS:
        operation = _operation(endpoint, schemas)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "proxmox-cpu-affinity", "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, schemas: Schema) -> Schema:
    content = {endpoint.media: {"schema": _schema(endpoint.answer, schemas)}}
    problem = {"application/problem+json": {"schema": _schema(Problem, schemas)}}
    if is_old(endpoint.path):
        problem = {"application/json": {"schema": _schema(OldProblem, schemas)}}
    word = re.sub(r"[{}]", "", endpoint.path).strip("/").replace("/", "_").replace("-", "_")
    operation: Schema = {
        "operationId": f"{endpoint.method.lower()}_{word}",
        "summary": endpoint.summary,
        "responses": {
            "200": {"description": "done", "content": content},
            "default": {"description": "an error", "content": problem},
        },
    }
    parameters = [_parameter(parameter) for parameter in endpoint.query]
    if "{vmid}" in endpoint.path:
        schema = {"type": "integer", "minimum": VMID_MIN, "maximum": VMID_MAX}
        parameters.append({"name": "vmid", "in": "path", "required": True, "schema": schema})
    if parameters:
        operation["parameters"] = parameters
    if endpoint.media == EVENT_STREAM:
        operation["description"] = "The data of each event is one JSON object: see x-events."
        operation["x-events"] = {name: _schema(kind, schemas) for name, kind in EVENTS.items()}
    if endpoint.body is not None:
        body = {"application/json": {"schema": _schema(endpoint.body, schemas)}}
        operation["requestBody"] = {"required": bool(_required(endpoint.body)), "content": body}
    if endpoint.acts:
        operation["security"] = [{"token": []}]
    return operation


def _parameter(parameter: Parameter) -> Schema:
    schema: Schema = {"type": "string", "enum": list(parameter.choices)}
    if parameter.is_number:
        schema = {"type": "integer", "minimum": parameter.low, "maximum": parameter.high}
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.summary,
        "required": parameter.required,
        "schema": schema,
    }


def _schema(kind: object, schemas: Schema) -> Schema:
    """The JSON schema of a wire type; dataclasses become components, named once."""
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0], schemas)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], schemas)}
    if origin is types.UnionType:
        return {"anyOf": [_schema(part, schemas) for part in arguments]}
    if kind is type(None):
        return {"type": "null"}
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise TypeError(f"{kind!r} has no schema")
    if kind.__name__ not in schemas:
        schemas[kind.__name__] = {}  # stands for itself while its fields are looked at
        hints = typing.get_type_hints(kind)
        schemas[kind.__name__] = {
            "type": "object",
            "properties": {
                f.name: {**_schema(hints[f.name], schemas), **f.metadata}
                for f in dataclasses.fields(kind)
            },
            "required": _required(kind),
            "additionalProperties": False,
        }
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _required(kind: type) -> list[str]:
    """The fields without a default."""
    return [
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
