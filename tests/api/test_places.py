"""Other users, and links where the service keeps its socket, token, port, lock and state."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from proxmox_cpu_affinity.service.access import keep_token
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running

NOBODY = 65534
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

CALL = """
import http.client, socket, sys
place, method, path, token = sys.argv[1:]
if place.isdigit():
    there = http.client.HTTPConnection("127.0.0.1", int(place), timeout=20)
else:
    there = http.client.HTTPConnection("localhost", timeout=20)
    there.sock = socket.socket(socket.AF_UNIX)
    there.sock.connect(place)
headers = {"Authorization": "Bearer " + token} if token else {}
there.request(method, path, "{}" if method == "POST" else None, headers)
print(there.getresponse().status)
"""


def as_nobody(*words: str) -> "subprocess.CompletedProcess[str]":
    """A Python program as a user without any right; its name and arguments."""
    return subprocess.run(
        ["/usr/bin/python3", "-I", "-c", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
    )


@only_root
def test_another_user_reads_over_tcp_and_does_nothing_else(unharmed: Running) -> None:
    unharmed.node.root.chmod(0o755)  # the node's own folder is this user's alone
    port, there = str(unharmed.port), str(unharmed.socket)
    assert as_nobody(CALL, port, "GET", "/api/v1/guests", "").stdout == "200\n"
    assert (
        as_nobody(CALL, port, "POST", "/api/v1/plan", "").stdout == "400\n"
    )  # it may, without one
    for path in ("/api/v1/reassign", "/api/v1/guests/100/post-stop"):
        assert as_nobody(CALL, port, "POST", path, "").stdout == "401\n"
    assert as_nobody(CALL, port, "GET", "/api/vmstarted/100", "").stdout == "401\n"
    refused = as_nobody(CALL, there, "GET", "/api/v1/ping", "")
    assert "PermissionError" in refused.stderr
    with_token = as_nobody(CALL, port, "POST", "/api/v1/reassign", unharmed.token)
    assert with_token.stdout == "200\n"  # the token is the right, whoever has it


@only_root
@pytest.mark.parametrize(
    "name", ["run/proxmox-cpu-affinity/token", "run/proxmox-cpu-affinity/lock"]
)
def test_another_user_cannot_read_what_is_ours(unharmed: Running, name: str) -> None:
    unharmed.node.root.chmod(0o755)
    path = str(unharmed.node.root / name)
    assert "PermissionError" in as_nobody("import sys; open(sys.argv[1])", path).stderr


@only_root
def test_another_user_cannot_see_or_write_the_state(unharmed: Running) -> None:
    unharmed.node.root.chmod(0o755)
    folder = str(unharmed.node.path("/var/lib/proxmox-cpu-affinity"))
    done = as_nobody("import os, sys; os.listdir(sys.argv[1])", folder)
    assert "PermissionError" in done.stderr
    for place in (folder, str(unharmed.socket.parent)):
        done = as_nobody("import sys; open(sys.argv[1] + '/x', 'w')", place)
        assert "PermissionError" in done.stderr


@pytest.fixture
def target(sim_node: Node) -> Path:
    """A file of somebody else's that links lead to."""
    path = sim_node.root / "theirs"
    path.write_text("x" * 43 + "\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "name", ["run/{}/token", "run/{}/port", "run/{}/api.sock", "var/lib/{}/state.json"]
)
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_is_not_followed(
    sim_node: Node,
    target: Path,
    name: str,
    dangling: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    path = sim_node.root / name.format("proxmox-cpu-affinity")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(sim_node.root / "nothing" if dangling else target)
    refused = Running(sim_node)
    with refused as service:
        if name.endswith("api.sock"):
            assert service.process.wait(20) == 1
        else:
            assert service.answers()
            assert service.end() == 0
            assert not path.is_symlink()
    assert target.read_text() == "x" * 43 + "\n"
    assert not (sim_node.root / "nothing").exists()


@pytest.mark.parametrize("name", ["run/{}/lock", "var/log/{}.log"])
def test_neither_the_lock_nor_the_log_is_written_through_a_link(
    sim_node: Node, target: Path, name: str
) -> None:
    path = sim_node.root / name.format("proxmox-cpu-affinity")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    with Running(sim_node) as service:
        if path.name == "lock":
            assert service.process.wait(20) == 1
        else:
            service.says("cannot be opened")
    assert target.read_text() == "x" * 43 + "\n"


def _fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def _link(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("t" * 43)
    other.chmod(0o600)
    path.symlink_to(other)


def _open_to_all(path: Path) -> None:
    path.write_text("t" * 43)
    path.chmod(0o644)


def _short(path: Path) -> None:
    path.write_text("short\n")
    path.chmod(0o600)


def _of_bytes(path: Path) -> None:
    path.write_bytes(b"\xff" * 43)
    path.chmod(0o600)


def _anothers(path: Path) -> None:
    _open_to_all(path)
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    else:
        path.write_text("")


@pytest.mark.parametrize("lay", [_fifo, _link, _open_to_all, _short, _of_bytes, _anothers])
def test_what_others_could_know_is_no_token(tmp_path: Path, lay: Callable[[Path], None]) -> None:
    path = tmp_path / "token"
    lay(path)
    token = keep_token(path)
    assert (len(token) >= 43, token != "t" * 43) == (True, True)
    assert (path.stat().st_mode & 0o777, path.is_symlink()) == (0o600, False)
    assert keep_token(path) == token


def test_a_state_that_is_a_fifo_does_not_hold_the_start(sim_node: Node) -> None:
    folder = sim_node.path("/var/lib/proxmox-cpu-affinity")
    folder.mkdir(parents=True)
    os.mkfifo(folder / "state.json")
    with Running(sim_node) as service:
        assert service.answers()


def test_a_further_socket_is_for_us_alone_too(sim_node: Node) -> None:
    with Running(sim_node, "--socket", "/tmp/further.sock") as service:
        assert service.answers()
        assert sim_node.path("/tmp/further.sock").stat().st_mode & 0o777 == 0o600
