"""`status watch`: lines, JSON, and a picture on a terminal that is left as it was."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from proxmox_cpu_affinity.cli.watching import BARS
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import PATIENCE, Running, add_guest

WATCH = (sys.executable, "-m", "proxmox_cpu_affinity", "status", "watch")
ENTERED, LEFT = b"\x1b[?1049h", b"\x1b[?1049l"  # the terminal's other screen
HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"  # its cursor


@pytest.fixture
def service(sim_node: Node) -> Iterator[Running]:
    with Running(sim_node) as running:
        running.says("latency measured")
        yield running


class Watching:
    """A `status watch` of which the output is read as it comes."""

    def __init__(self, process: "subprocess.Popen[bytes]", handle: int) -> None:
        self.process = process
        self._handle = handle
        self.seen = b""

    def until(self, *words: str) -> None:
        """Wait until the output has these words, in this order."""
        deadline = time.monotonic() + PATIENCE
        while not self._has(words):
            assert time.monotonic() < deadline, (words, self.seen.decode())
            self._read(0.2)

    def more(self) -> None:
        """Wait for further output."""
        assert self._read(PATIENCE)

    def _has(self, words: tuple[str, ...]) -> bool:
        rest = self.seen
        for word in words:
            _, found, rest = rest.partition(word.encode())
            if not found:
                return False
        return True

    def _read(self, patience: float) -> bool:
        ready, _, _ = select.select([self._handle], [], [], patience)
        try:
            data = os.read(self._handle, 65536) if ready else b""
        except OSError:  # the other end of the terminal is closed (pty(7))
            data = b""
        self.seen += data
        return bool(data)

    def interrupt(self) -> int:
        """Ctrl-C; the exit status, when all it wrote was read."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(PATIENCE)
        while self._read(0.2):
            pass
        return status


@contextmanager
def watching(service: Running, *words: str, terminal: bool = False) -> Iterator[Watching]:
    environment = {
        **os.environ,
        "PCA_ROOT": str(service.node.root),
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
    }
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, 110, 0, 0))
    process = subprocess.Popen(
        [*WATCH, *words],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    os.close(theirs)
    try:
        yield Watching(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)
        os.close(ours)


def readers(service: Running) -> int:
    text = service.get("/metrics").body.decode()
    line = next(
        row for row in text.splitlines() if row.startswith("proxmox_cpu_affinity_event_readers ")
    )
    return int(float(line.split()[1]))


def test_without_a_terminal_each_event_is_a_line(service: Running) -> None:
    add_guest(service.node, 100)
    with watching(service) as watch:
        service.wait_for(lambda: readers(service) == 1)
        service.node.do("start", 100)
        watch.until("guest 100 placed: CPU", "guest 100 confined: ")
        service.node.do("stop", 100)
        watch.until("guest 100 gone: stopped: CPU")
        assert watch.interrupt() == 130
        lines = watch.seen.decode().splitlines()
        assert len(lines) == 3
        assert not any("load" in line or "\x1b" in line for line in lines)
        stamp = lines[0][:19]
        assert time.strptime(stamp, "%Y-%m-%d %H:%M:%S")
        assert stamp[:16] in service.log


def test_json_is_one_object_a_line(service: Running) -> None:
    add_guest(service.node, 100)
    with watching(service, "--json") as watch:
        service.wait_for(lambda: readers(service) == 1)
        service.node.do("start", 100)
        watch.until('"what": "confined"', '"event": "load"')
        assert watch.interrupt() == 130
        told = [json.loads(line) for line in watch.seen.decode().splitlines()]
    assert told[0]["event"] == "reset"
    assert all(list(one) == ["event", "id", "data"] for one in told)
    confined = next(one for one in told if one["data"].get("what") == "confined")
    assert (confined["event"], confined["data"]["vmid"]) == ("guest", 100)
    assert int(confined["id"]) > int(told[0]["id"])


def test_a_terminal_shows_the_host_and_is_left_as_it_was(service: Running) -> None:
    add_guest(service.node, 100)
    with watching(service, terminal=True) as watch:
        watch.until("0 placed and running", "cache group", "VMID")
        service.node.do("start", 100)
        watch.until("1 placed and running, 1 on their CPUs", "A 100", "full", "guest 100 confined")
        while not set(BARS) & set(
            watch.seen.decode(errors="ignore")
        ):  # the load: each bar is one of these
            watch.more()
        assert watch.interrupt() == 130
    seen = watch.seen
    assert seen.count(ENTERED) == seen.count(LEFT) == 1
    assert seen.count(HIDDEN) == seen.count(SHOWN) == 1
    assert seen.index(ENTERED) < seen.index(LEFT)
    assert b"Traceback" not in seen


def test_a_service_that_goes_and_comes_is_followed(service: Running) -> None:
    add_guest(service.node, 100)
    with watching(service) as watch:
        service.wait_for(lambda: readers(service) == 1)
        service.end()
        watch.until("Warning: the service")
        service.start()
        watch.until("some events were missed (restarted)")
        service.node.do("start", 100)
        watch.until("guest 100 confined")
        assert watch.seen.count(b"Warning") == 1
        assert watch.interrupt() == 130


def test_a_terminal_says_that_the_connection_is_lost(service: Running) -> None:
    with watching(service, terminal=True) as watch:
        watch.until("0 placed and running")
        service.wait_for(lambda: readers(service) == 1)
        service.end()
        watch.until("connection lost: ")
        service.start()
        mark = len(watch.seen)
        watch.until("some events were missed")
        assert b"placed and running" in watch.seen[mark:]
        assert watch.interrupt() == 130


def test_without_a_service_it_says_so_and_ends(sim_node: Node) -> None:
    done = subprocess.run(
        [*WATCH],
        env={**os.environ, "PCA_ROOT": str(sim_node.root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "the service is not running" in done.stderr
    assert "Hint: start it with" in done.stderr
