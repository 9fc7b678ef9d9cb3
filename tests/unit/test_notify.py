"""What systemd is told, over a real datagram socket."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.linux.notify import notify, stay_alive, watchdog_pause


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket on which systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_state_arrives_as_one_message(systemd: socket.socket) -> None:
    notify("READY=1\nSTATUS=answering")
    assert systemd.recv(100) == b"READY=1\nSTATUS=answering"


@pytest.mark.usefixtures("systemd")
def test_nobody_listening_is_no_error(tmp_path: Path) -> None:
    notify("READY=1", address=str(tmp_path / "nobody"))


@pytest.mark.parametrize(
    ("environment", "pause"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_half_of_what_is_granted(environment: dict[str, str], pause: float | None) -> None:
    assert watchdog_pause(environment) == pause


def test_signs_of_life_go_on_while_the_loop_turns(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")

    async def heard() -> None:
        alive = asyncio.create_task(stay_alive())
        for _ in range(3):
            assert await asyncio.to_thread(systemd.recv, 100) == b"WATCHDOG=1"
        alive.cancel()

    asyncio.run(heard())


@pytest.mark.usefixtures("systemd")
def test_without_a_watchdog_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    asyncio.run(asyncio.wait_for(stay_alive(), 10))
