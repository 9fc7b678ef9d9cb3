"""For all tests: nothing that a test started may outlive it."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings


def _children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found.update(int(pid) for pid in (task / "children").read_text().split())
        except OSError:
            continue
    return found


def _story(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return f"{pid} (gone)"
    return f"{pid} {words.decode(errors='replace')[:200]}"


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    """Fail a test that leaves a child process or a thread; processes get a moment to end."""
    children, threads = _children(), set(threading.enumerate())
    yield
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        left = _children() - children
        alive = [t for t in threading.enumerate() if t not in threads and not t.daemon]
        if not left and not alive:
            return
        time.sleep(0.02)
    lines = [_story(pid) for pid in sorted(left)] + [t.name for t in alive]
    pytest.fail("left behind: " + "; ".join(lines))


def pytest_configure() -> None:
    # A busy machine is slow, not wrong: how long an example takes decides nothing.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")
    # Tests must not see settings of whoever runs them.
    for name in [n for n in os.environ if n.startswith("PCA_")]:
        del os.environ[name]
    # Nor how they were started: a shell's background job ignores SIGINT, one of nohup SIGHUP, and
    # so would children (handlers do not outlive execve(2), ignoring does). Whatever of these ends
    # the tests, fixtures still take away their guests, services and folders.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
