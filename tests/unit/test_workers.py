"""Threads for the service's work, where the kernel gives none."""

import _thread
import asyncio
import errno
import subprocess
import threading
import time
from pathlib import Path
from typing import Never

import pytest

from proxmox_cpu_affinity.latency.protocol import Parameters
from proxmox_cpu_affinity.latency.talk import started
from proxmox_cpu_affinity.linux.workers import Workers, run
from proxmox_cpu_affinity.model.errors import AffinityError, ExhaustedError, MeasureError


def no_thread(*_: object, **__: object) -> Never:
    raise RuntimeError("can't start new thread")


@pytest.fixture
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python's modules have it under that name; the message is the interpreter's own."""
    old = hasattr(threading, "_start_new_thread")  # before Python 3.13
    name = "_start_new_thread" if old else "_start_joinable_thread"
    monkeypatch.setattr(threading, name, no_thread)


def test_the_message_is_the_interpreter_s() -> None:
    """What `no_thread` raises is what a start raises that cannot be: a stack of 64 TiB."""
    before = threading.stack_size(1 << 46)
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            _thread.start_new_thread(print, ())
    finally:
        threading.stack_size(before)


def test_all_workers_are_there_before_the_first_work() -> None:
    """What a later one was refused for stayed in the queue, and was done when all was over."""
    before = threading.active_count()
    with Workers() as workers:
        begun = threading.active_count()
        assert begun - before >= 5
        gate = threading.Event()
        done = [workers.submit(gate.wait) for _ in range(3 * begun)]
        assert threading.active_count() == begun
        gate.set()
        assert all(one.result(30) for one in done)


@pytest.mark.parametrize("given", [0, 1, 3])
def test_no_thread_is_an_error_of_the_family(given: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that were begun by then end."""
    before = threading.active_count()
    start = threading.Thread.start
    left = [None] * given

    def begin(self: threading.Thread) -> None:
        if not left:
            no_thread()
        left.pop()
        start(self)

    monkeypatch.setattr(threading.Thread, "start", begin)
    with pytest.raises(ExhaustedError, match="no thread can be started"):
        Workers()
    began = time.monotonic()
    while threading.active_count() > before and time.monotonic() < began + 30:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.usefixtures("without_threads")
def test_no_thread_is_an_error_of_the_family_also_where_asyncio_wants_one() -> None:
    with pytest.raises(ExhaustedError, match="no thread can be started"):
        run(asyncio.to_thread(int))


def test_an_error_of_another_cause_stays_what_it_is() -> None:
    async def story() -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        run(story())


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EAGAIN, ExhaustedError),
        (errno.ENOMEM, ExhaustedError),
        (errno.EMFILE, ExhaustedError),
        (errno.ENFILE, ExhaustedError),
        (errno.ENOENT, MeasureError),
        (errno.EACCES, MeasureError),
    ],
)
def test_a_measuring_program_that_cannot_be_started(
    number: int, kind: type[AffinityError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may pass is told apart from what stays: only the first is tried again."""

    async def refused(*_: object, **__: object) -> Never:
        raise OSError(number, "no")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)

    async def story() -> None:
        async with started(Path("/nowhere"), Parameters()):
            pass

    with pytest.raises(kind):
        asyncio.run(story())


@pytest.mark.parametrize("fault", [RuntimeError("can't start new thread"), OSError(24, "no")])
def test_a_measuring_program_of_which_asyncio_knows_nothing_ends(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio begins it, and then the thread or the pidfd that waits for it: one was left behind
    at each try."""
    begun: list[subprocess.Popen[bytes]] = []

    async def half(program: Path, *, stdin: int, **_: object) -> Never:
        begun.append(subprocess.Popen([program], stdin=stdin, stdout=subprocess.DEVNULL))
        raise fault

    monkeypatch.setattr(asyncio, "create_subprocess_exec", half)

    async def story() -> None:
        async with started(Path("/bin/cat"), Parameters()):
            pass

    with pytest.raises(ExhaustedError):
        asyncio.run(story())
    (program,) = begun
    try:
        assert program.wait(30) == 0
    finally:
        program.kill()
