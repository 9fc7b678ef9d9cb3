"""Threads for the service's work, where the kernel gives none."""

import _thread
import asyncio
import errno
import threading
from pathlib import Path
from typing import Never

import pytest

from proxmox_cpu_affinity.latency.protocol import Parameters
from proxmox_cpu_affinity.latency.talk import started
from proxmox_cpu_affinity.linux.workers import Workers
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


@pytest.mark.usefixtures("without_threads")
def test_no_thread_is_an_error_of_the_family() -> None:
    with Workers() as workers, pytest.raises(ExhaustedError, match="no thread can be started"):
        workers.submit(int)


def test_an_error_of_another_cause_stays_what_it_is() -> None:
    workers = Workers()
    assert workers.submit(int, "7").result(30) == 7
    workers.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        workers.submit(int)


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
