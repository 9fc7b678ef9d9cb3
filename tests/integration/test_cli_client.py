"""The client against servers that misbehave, and every error of the family on its way through."""

import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.client import Client
from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.cli.remedies import Remedies
from proxmox_cpu_affinity.formats import jsonvalue, wire, wire_bodies
from proxmox_cpu_affinity.model.errors import AffinityError, ServiceDownError, family

CODES = {kind.code: kind for kind in family()}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a short name."""
    with tempfile.TemporaryDirectory(prefix="pc-", dir="/tmp") as name:
        yield Path(name)


def request(peer: socket.socket) -> bytes:
    """All of a request: its head, and a body as long as that says."""
    data = peer.recv(65536)
    while data:
        head, end, body = data.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if end and len(body) >= int(length or 0):
            break
        data += peer.recv(65536)
    return data


@contextmanager
def answering(folder: Path, answer: bytes) -> Iterator[tuple[Path, list[bytes]]]:
    """A server that reads one request, answers so, and closes."""
    path = folder / "api.sock"
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(10)

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.settimeout(10)
                asked.append(request(peer))
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield path, asked
        thread.join()


def reply(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def problem(error: AffinityError) -> bytes:
    told = json.dumps(jsonvalue.plain(wire.problem(error))).encode()
    return reply(told, error.http_status)


@pytest.mark.parametrize("code", CODES)
def test_an_error_of_the_api_is_the_class_it_was(
    code: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = CODES[code]
    with (
        answering(folder, problem(kind("what is wrong", hint="what to do"))) as (path, _),
        pytest.raises(AffinityError) as caught,
    ):
        Client(path).get("status")
    assert type(caught.value) is kind
    assert (caught.value.text, caught.value.hint) == ("what is wrong", "what to do")
    path.unlink()
    with answering(folder, problem(kind("what is wrong", hint="what to do"))) as (path, _):
        status = main(["status", "ping", "--socket", str(path)])
    assert status == kind.exit_status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith("Error: what is wrong\nHint: what to do\n")


STATUSES = {
    "internal-error": 1,
    "usage": 2,
    "bad-request": 1,
    "syntax": 1,
    "setting": 78,
    "not-a-pve-host": 1,
    "guest-not-found": 1,
    "not-found": 1,
    "forbidden": 1,
    "unauthorized": 1,
    "too-large": 1,
    "refused": 1,
    "service-down": 1,
    "program-failed": 1,
    "measure": 1,
    "store": 1,
    "unplaceable": 1,
}


def test_exit_statuses_are_a_contract() -> None:
    assert {code: CODES[code].exit_status for code in STATUSES} == STATUSES


def test_an_error_that_this_program_does_not_know_is_still_told(folder: Path) -> None:
    told = wire.Problem("later", 418, "a later error", "of-a-later-version", "a hint")
    answer = reply(json.dumps(jsonvalue.plain(told)).encode(), 418)
    with (
        answering(folder, answer) as (path, _),
        pytest.raises(AffinityError, match="a later error") as caught,
    ):
        Client(path).get("status")
    assert caught.value.hint == "a hint"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "does not answer"),
        (b"rubbish\r\n\r\n", "does not answer"),
        (b"HTTP/1.1 200 x\r\nContent-Length: 10\r\n\r\nshort", "does not answer"),
        (reply(b"not JSON"), "not JSON"),
        (reply(b"[" * 100_000), "not JSON"),
        (reply(b"\xff"), "not JSON"),
        (reply(b"busy", 503), "status 503"),
        (reply(b"{}", 500), "status 500"),
    ],
)
def test_a_server_that_talks_nonsense_is_one_error(answer: bytes, text: str, folder: Path) -> None:
    with (
        answering(folder, answer) as (path, _),
        pytest.raises(AffinityError, match=text) as caught,
    ):
        Client(path).get("status")
    assert caught.value.hint


def test_requests_are_those_of_the_contract(folder: Path) -> None:
    with answering(folder, reply(b"{}")) as (path, asked):
        Client(path).post("reassign_guest", wire_bodies.ReassignBody(undo=True), vmid=100)
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v1/guests/100/reassign HTTP/1.1\r\n")
    assert b"\r\nHost: localhost\r\n" in head
    assert json.loads(body) == {"undo": True}
    path.unlink()
    with answering(folder, reply(b"<svg/>")) as (path, asked):
        assert Client(path).text("heatmap", query={"affinity": "1"}) == "<svg/>"
    assert asked[0].startswith(b"GET /api/v1/heatmap.svg?affinity=1 HTTP/1.1\r\n")


def test_nobody_there_and_nobody_listening(folder: Path) -> None:
    with pytest.raises(ServiceDownError, match="not running") as caught:
        Client(folder / "none.sock").get("ping")
    assert "systemctl start" in caught.value.hint
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "dead.sock"))
    with pytest.raises(ServiceDownError, match="not running"):
        Client(folder / "dead.sock", Remedies(folder)).get("ping")


def test_a_socket_path_that_is_too_long_is_an_error_not_a_traceback(folder: Path) -> None:
    with pytest.raises(ServiceDownError):
        Client(folder / ("x" * 200)).get("ping")


def test_a_silent_server_costs_the_time_limit_only(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s.sock"))
        server.listen()
        body = wire_bodies.ReassignBody()
        with pytest.raises(ServiceDownError, match=r"within 0\.05 s"):
            Client(folder / "s.sock").post("reassign_all", body, timeout=0.05)
