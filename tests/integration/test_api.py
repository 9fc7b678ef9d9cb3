"""The API from outside: who may do what over which listener, and what bad requests get."""

import asyncio
import errno
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from proxmox_cpu_affinity.formats.endpoints import ENDPOINTS, EVENT_STREAM
from proxmox_cpu_affinity.formats.wire_bodies import BODY_LIMIT
from proxmox_cpu_affinity.formats.wire_events import EVENTS, What
from proxmox_cpu_affinity.service.http import Listeners
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind
from tests.integration.conftest import make_node
from tests.integration.running import Running, add_guest


@pytest.fixture
def service(sim_node: Node) -> Iterator[Running]:
    """A service of a test's own."""
    with Running(sim_node) as running:
        yield running


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """One service for the tests that change nothing: a start costs more than all of them."""
    for node in make_node(GuestKind.STANDIN):
        with Running(node) as running:
            yield running


def bearer(service: Running) -> dict[str, str]:
    return {"Authorization": f"Bearer {service.token}"}


def test_every_read_answers_over_both_listeners(service: Running) -> None:
    add_guest(service.node, 100)
    streams = [e for e in ENDPOINTS if e.media == EVENT_STREAM]  # test_events reads these
    reads = [e for e in ENDPOINTS if e.method == "GET" and not e.acts and e not in streams]
    assert (len(reads) >= 16, len(streams)) == (True, 1)
    for endpoint in reads:
        path = endpoint.path.replace("{vmid}", "100")
        path += "?vcpus=1" if endpoint.name == "try_guest" else ""
        for tcp in (False, True):
            answer = service.get(path, tcp=tcp)
            assert answer.status == 200, (path, tcp, answer.body)
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
            assert answer.headers.get_content_type() == endpoint.media


def test_the_ranking_comes_row_by_row(service: Running) -> None:
    """On 512 CPUs it is 15 MB: made at once it held every hook up for 1.7 s and took 100 MB."""
    answer = service.get("/api/v1/core-ranking")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.headers["Cache-Control"] == "no-store"
    assert [entry["cpu"] for entry in answer.list] == sorted(os.sched_getaffinity(0))


def test_routes_of_the_go_project_answer_as_before(service: Running) -> None:
    assert service.get("/api/ping", tcp=True).json == {"ping": "pong"}
    ranking = json.loads(service.get("/api/ranking", tcp=True).body)
    assert [entry["cpu"] for entry in ranking] == sorted(os.sched_getaffinity(0))
    wrong = service.ask("GET", "/api/vmstarted/abc", tcp=True, headers=bearer(service))
    assert (wrong.status, list(wrong.json)) == (400, ["error"])


def test_vmstarted_places_a_guest_with_the_right_to_write(service: Running) -> None:
    add_guest(service.node, 100, hook=False, options={"tags": "cpu-affinity"})
    service.node.do("start", 100)
    refused = service.get("/api/vmstarted/100", tcp=True)
    assert refused.status == 401
    assert service.guest(100)["outcome"] == ""
    answer = service.ask("GET", "/api/vmstarted/100", tcp=True, headers=bearer(service))
    cpu = service.guest(100)["cpus"]
    assert answer.json == {"action": f"new affinity: {cpu}"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic cm9vdDpyb290"},
    ],
)
def test_writes_over_tcp_need_the_token(shared: Running, headers: dict[str, str]) -> None:
    for endpoint in (e for e in ENDPOINTS if e.acts):
        path = endpoint.path.replace("{vmid}", "100")
        answer = shared.ask(endpoint.method, path, {}, tcp=True, headers=headers)
        assert answer.status == 401, path
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_token_opens_writes_and_outlives_a_restart(service: Running) -> None:
    token = service.token
    assert service.node.path("/run/proxmox-cpu-affinity/token").stat().st_mode & 0o777 == 0o600
    answer = service.ask("POST", "/api/v1/reassign", {}, tcp=True, headers=bearer(service))
    assert (answer.status, json.loads(answer.body)) == (200, [])
    service.end()
    service.start()
    assert service.token == token


def test_socket_is_for_root_alone(shared: Running) -> None:
    assert shared.socket.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_may_not_act_over_the_socket(service: Running) -> None:
    """Even with the file's mode opened up, the peer's uid decides."""
    for path in (service.socket, service.socket.parent, service.node.root):
        path.chmod(0o777)
    program = (
        "import http.client, socket, sys\n"
        "there = http.client.HTTPConnection('localhost')\n"
        "there.sock = socket.socket(socket.AF_UNIX)\n"
        "there.sock.connect(sys.argv[1])\n"
        "there.request('POST', '/api/v1/reassign', '{}')\n"
        "print(there.getresponse().status)\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", program, str(service.socket)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        user=65534,
        group=65534,
        cwd="/",
    )
    assert done.stdout.strip() == "403", done.stderr


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8245", "", "192.0.2.7", "[::2]:80"])
def test_foreign_host_is_refused(shared: Running, host: str) -> None:
    answer = shared.ask("GET", "/api/v1/ping", tcp=True, headers={"Host": host})
    assert (answer.status, answer.json["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9999", "127.0.0.1:8245", "[::1]:1", "127.0.0.2", "LOCALHOST"]
)
def test_loopback_names_with_any_port_are_this_service(shared: Running, host: str) -> None:
    assert shared.ask("GET", "/api/v1/ping", tcp=True, headers={"Host": host}).status == 200


def test_page_of_another_site_is_refused(shared: Running) -> None:
    foreign = {"Origin": "https://evil.example", **bearer(shared)}
    answer = shared.ask("POST", "/api/v1/reassign", {}, tcp=True, headers=foreign)
    assert answer.status == 403
    null = shared.ask("GET", "/api/v1/ping", tcp=True, headers={"Origin": "null"})
    assert null.status == 403
    own = {"Origin": f"http://localhost:{shared.port}"}
    assert shared.ask("GET", "/api/v1/ping", tcp=True, headers=own).status == 200


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff", "not JSON"),
        ({"undoo": True}, "unknown field 'undoo'"),
        ({"undo": "yes"}, "'undo' must be true or false"),
        ({"undo": 1}, "'undo' must be true or false"),
        (b'{"undo": false, "undo": true}', "twice"),
        (b"[" * 60000, "not JSON"),
    ],
)
def test_bad_bodies_name_what_is_wrong(shared: Running, body: object, says: str) -> None:
    answer = shared.ask("POST", "/api/v1/reassign", body)
    assert answer.status == 400
    assert answer.headers.get_content_type() == "application/problem+json"
    assert says in str(answer.json["detail"])


@pytest.mark.parametrize("announced", [True, False])
def test_large_body_is_refused_and_the_service_lives(
    shared: Running,
    announced: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    head = b"POST /api/v1/plan HTTP/1.1\r\nHost: localhost\r\n"
    if announced:
        head += b"Content-Length: 104857600\r\n\r\n"
    else:
        head += b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"x" * BODY_LIMIT
    with socket.socket(socket.AF_UNIX) as there:
        there.settimeout(20)
        there.connect(str(shared.socket))
        there.sendall(head)
        try:
            for _ in range(4):
                there.sendall(chunk if announced else b"%x\r\n%s\r\n" % (len(chunk), chunk))
            answer = there.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            answer = there.recv(65536)
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert shared.answers()


def test_half_a_request_holds_nobody_else(shared: Running) -> None:
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(str(shared.socket))
        there.sendall(b"POST /api/v1/plan HTTP/1.1\r\nHost: localhost\r\nContent-Le")
        assert shared.answers()


def test_who_asks_and_reads_nothing_does_not_hold_the_end(service: Running) -> None:
    def answered() -> float:
        text = service.get("/metrics").body.decode()
        found = re.search(r'_request_duration_seconds_count\{endpoint="topology"\} (\d+)', text)
        assert found is not None
        return float(found[1])

    def is_stuck(sent: int) -> bool:
        while (before := answered()) < sent:
            time.sleep(0.3)
            if answered() == before > 0:
                return True
        return False

    with socket.socket(socket.AF_UNIX) as there:
        there.settimeout(5)
        there.connect(str(service.socket))
        asked = b"GET /api/v1/topology HTTP/1.1\r\nHost: localhost\r\n\r\n"
        sent = 0
        while not is_stuck(sent):  # as much as is taken: the answers fill the socket
            there.sendall(asked * 16)
            sent += 16
            assert sent < 10_000, "nothing ever stands still"
        assert service.end() == 0


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1/guests/100", 404, "guest-not-found"),
        ("/api/v1/guests/099", 400, "bad-request"),
        ("/api/v1/guests/1000000000", 400, "bad-request"),
        ("/api/v1/guests/x", 400, "bad-request"),
        ("/api/v1/nothing", 404, "not-found"),
        ("/api/v1/heatmap.svg?affinity=maybe", 400, "bad-request"),
    ],
)
def test_errors_are_problems_with_code_and_status(
    shared: Running, path: str, status: int, code: str
) -> None:
    answer = shared.get(path)
    assert (answer.status, answer.json["code"], answer.json["status"]) == (status, code, status)


def test_wrong_method_is_told(shared: Running) -> None:
    answer = shared.ask("POST", "/api/v1/ping", {})
    assert (answer.status, answer.json["code"]) == (405, "method-not-allowed")


def test_plan_changes_nothing_and_is_bounded(shared: Running) -> None:
    guests = [{"vmid": 100 + i, "vcpus": 1} for i in range(3)]
    answer = shared.ask("POST", "/api/v1/plan", {"guests": guests}, tcp=True)
    assert answer.status == 200
    rows = answer.json["guests"]
    assert isinstance(rows, list)
    assert [row["vmid"] for row in rows] == [100, 101, 102]
    assert shared.get("/api/v1/core-vm-affinity").json == {}
    whole = shared.get("/api/v1/status").json["cpus"]
    assert isinstance(whole, int)
    alone = {"vmid": 103, "vcpus": whole, "policy": "dedicated"}
    rows = shared.ask("POST", "/api/v1/plan", {"guests": [*guests, alone]}).json["guests"]
    assert isinstance(rows, list)
    assert rows[3]["start"] is None
    assert "of its own wanted" in rows[3]["reason"]
    many = [{"vmid": 100 + i, "vcpus": 1} for i in range(1001)]
    assert shared.ask("POST", "/api/v1/plan", {"guests": many}).status == 400
    twice = [{"vmid": 100, "vcpus": 1}] * 2
    assert shared.ask("POST", "/api/v1/plan", {"guests": twice}).status == 400


def test_openapi_describes_every_route(shared: Running) -> None:
    document = shared.get("/openapi.json").json
    paths = document["paths"]
    assert isinstance(paths, dict)
    assert {(e.path, e.method.lower()) for e in ENDPOINTS} == {
        (path, method) for path, methods in paths.items() for method in methods
    }


def test_docs_tell_of_every_route_event_and_figure(service: Running) -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    for endpoint in ENDPOINTS:
        assert f"`{endpoint.method} {endpoint.path}" in text, endpoint.path
        assert all(f"`{parameter.name}`" in text for parameter in endpoint.query)
    assert all(f"`{name}`" in text for name in (*EVENTS, *What))
    add_guest(service.node, 100)
    service.node.do("start", 100)
    service.confirms(100)
    figures = service.get("/metrics").body.decode()
    names = re.findall(r"^# TYPE proxmox_cpu_affinity_(\w+) ", figures, re.MULTILINE)
    assert len(names) >= 30
    assert [name for name in names if f"`{name}`" not in text] == []


def test_port_that_is_taken_costs_the_tcp_listener_only(sim_node: Node) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with Running(sim_node, "--port", str(other.getsockname()[1])) as service:
            assert service.answers()
            service.wait_for(lambda: "only the socket is served" in service.log)


def test_no_socket_for_an_address_is_an_error_as_a_port_that_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with ::1 where IPv6 is off: the service ended with an IndexError."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    async def story() -> None:
        listeners = Listeners(web.Application())
        await listeners.open()
        with monkeypatch.context() as patched:
            patched.setattr(socket, "socket", refused)
            with pytest.raises(OSError, match="gives no socket"):
                await listeners.tcp("::1", 0)
        assert await listeners.tcp("127.0.0.1", 0) > 0
        await listeners.close()

    asyncio.run(story())


def test_address_beyond_loopback_needs_the_insecure_setting(sim_node: Node) -> None:
    with Running(sim_node, "--host", "0.0.0.0") as service:
        assert service.process.returncode == 78
        service.says("is not a loopback address")


def test_additional_socket_of_the_settings(sim_node: Node) -> None:
    with Running(sim_node, settings="PCA_SOCKET_FILE=/run/other.sock\n") as service:
        with socket.socket(socket.AF_UNIX) as there:
            there.connect(str(sim_node.path("/run/other.sock")))
        assert service.end() == 0
        assert not sim_node.path("/run/other.sock").exists()


def test_socket_left_by_a_killed_service_is_taken_over(service: Running) -> None:
    service.kill()
    assert service.socket.exists()
    service.start()
    assert service.answers()
