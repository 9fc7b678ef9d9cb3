"""Bad requests over the wire: each is answered with what is wrong, and nothing else changes.

Beside test_api, which looks at who may do what, and test_wire, which reads bodies alone.
"""

import json
import re
import socket
from collections.abc import Iterator

import pytest

from proxmox_cpu_affinity.formats.wire_bodies import PLAN_MOST
from tests.integration.conftest import with_a_guest
from tests.integration.running import PATIENCE, Running, masks


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    """One on whose node guest 100 runs."""
    yield from with_a_guest()


@pytest.fixture(autouse=True)
def _nothing_changes(service: Running) -> Iterator[None]:
    def all_of_it() -> list[object]:
        paths = ("guests", "decisions", "core-vm-affinity")
        told = [service.get(f"/api/v1/{path}").body for path in paths]
        return [*told, masks(service.node, 100), service.process.poll()]

    before = all_of_it()
    yield
    assert all_of_it() == before


def plan(*guests: object) -> dict[str, object]:
    return {"guests": list(guests)}


ONE = {"vmid": 100, "vcpus": 1}


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("guests/100/pre-start", {"migrated_from": 1}, "'migrated_from' must be a text"),
        ("guests/100/post-start", {"phase": "x"}, "unknown field 'phase'"),
        ("guests/100/pre-stop", {"vmid": 100}, "unknown field 'vmid'"),
        ("guests/100/post-stop", [], "not a JSON object"),
        ("guests/100/reassign", {"undo": "true"}, "'undo' must be true or false"),
        ("guests/100/reassign", {"undo": None}, "'undo' must be true or false"),
        ("reassign", {"all": True}, "unknown field 'all'"),
        ("plan", {}, "'guests' must be a list"),
        ("plan", {"guests": {"100": 1}}, "'guests' must be a list"),
        ("plan", plan(1), "every entry of 'guests' must be an object"),
        ("plan", plan({"vmid": "100", "vcpus": 1}), "'vmid' must be a whole number"),
        ("plan", plan({"vmid": 100, "vcpus": True}), "'vcpus' must be a whole number"),
        ("plan", plan({"vmid": 100, "vcpus": 1.5}), "'vcpus' must be a whole number"),
        ("plan", plan({"vmid": 99, "vcpus": 1}), "'vmid' must be from 100 to 999999999"),
        ("plan", plan({"vmid": 100, "vcpus": 0}), "'vcpus' must be from 1 to 8192"),
        ("plan", plan({"vmid": 100}), "'vcpus' must be a whole number"),
        ("plan", plan({**ONE, "cores": 1}), "unknown field 'cores'"),
        ("plan", plan(ONE, ONE), "a guest stands twice in the plan"),
        ("plan", plan(*([ONE] * (PLAN_MOST + 1))), "may hold 1000 entries at most"),
        ("plan", {"guests": [], "host": "x"}, "unknown field 'host'"),
    ],
)
def test_a_body_of_the_wrong_form_names_the_field(
    service: Running, path: str, body: object, says: str
) -> None:
    answer = service.ask("POST", f"/api/v1/{path}", body)
    assert (answer.status, answer.json["code"]) == (400, "bad-request")
    assert says in str(answer.json["detail"])


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "says"),
    [
        ("POST", "guests/999/reassign", 404, "guest-not-found", "there is no guest 999"),
        ("GET", "guests/999", 404, "guest-not-found", "there is no guest 999"),
        ("POST", "guests/0100/reassign", 400, "bad-request", "'0100' is no VMID"),
        ("POST", "guests/1e3/post-start", 400, "bad-request", "'1e3' is no VMID"),
        ("GET", "guests/%00", 400, "bad-request", "is no VMID"),
        ("GET", "guests/100/more", 404, "not-found", "there is no path /api/v1/guests/100/more"),
        ("POST", "guests/100/start", 404, "not-found", "no path /api/v1/guests/100/start"),
        ("DELETE", "guests/100", 405, "method-not-allowed", ""),
        ("PUT", "reassign", 405, "method-not-allowed", ""),
    ],
)
def test_what_is_not_there_is_named(
    service: Running, method: str, path: str, status: int, code: str, says: str
) -> None:
    answer = service.ask(method, f"/api/v1/{path}", {} if method == "POST" else None)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert says in str(answer.json["detail"])
    assert answer.headers.get_content_type() == "application/problem+json"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET /api/v1/ping HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the beginning of TLS
        b"GET /api/v1/ping HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /api/v1/reassign HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
        b"POST /api/v1/reassign HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/reassign HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nx",
        b"GET /api/v1/ping HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
@pytest.mark.parametrize("tcp", [False, True])
def test_half_a_request_and_what_is_none_end_with_the_connection(
    service: Running,
    sent: bytes,
    tcp: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    with socket.socket(socket.AF_INET if tcp else socket.AF_UNIX) as there:
        there.settimeout(PATIENCE)
        there.connect(("127.0.0.1", service.port) if tcp else str(service.socket))
        there.sendall(sent)
        there.shutdown(socket.SHUT_WR)
        answer = bytearray()
        try:
            while piece := there.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
    assert not answer or re.match(rb"HTTP/1\.[01] 4\d\d ", answer), answer[:80]
    assert service.answers()


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil", "::1:80"]
)
def test_a_foreign_host_is_told_whose_name_is_wrong(service: Running, host: str) -> None:
    answer = service.ask("GET", "/api/v1/guests", tcp=True, headers={"Host": host})
    assert (answer.status, answer.json["code"]) == (403, "forbidden")
    assert "Host" in str(answer.json["detail"])
    assert json.loads(answer.body).get("hint") is not None
