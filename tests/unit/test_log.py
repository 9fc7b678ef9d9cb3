"""The log's lines, in a real file."""

import asyncio
import errno
import gc
import logging
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.formats.settings import LogLevel
from proxmox_cpu_affinity.service.log import log, met, reopen, set_up


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    before = (log.level, log.propagate, list(log.handlers), logging.raiseExceptions)
    set_up(LogLevel.INFO, tmp_path / "log")
    yield tmp_path / "log"
    for handler in log.handlers:
        handler.close()
    log.setLevel(before[0])
    log.propagate, log.handlers[:], logging.raiseExceptions = before[1:]


def test_a_thread_s_name_cannot_forge_a_line_nor_reach_the_terminal(file: Path) -> None:
    """A guest's QEMU may call its threads whatever it likes; sequences for terminals got through
    to whoever read the log."""
    log.warning("%s refuses", "\x1b]0;owned\x07\r2026 [INFO] all is well\n", extra={"vmid": 100})
    (line,) = file.read_text().splitlines()
    assert line.isprintable()
    assert line.endswith(" refuses vmid=100")
    assert "[WARN]" in line


def test_a_log_that_was_rotated_away_is_opened_anew(file: Path) -> None:
    log.info("before")
    file.rename(file.with_name("log.1"))
    reopen(LogLevel.WARN)
    log.info("not important enough")
    log.warning("after")
    assert file.read_text().endswith("[WARN] after\n")
    assert "before" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def raising(error: Exception) -> None:
    raise error


async def _in_a_callback(error: Exception) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(met)
    loop.call_soon(raising, error)
    await asyncio.sleep(0.001)


async def _in_a_task(error: Exception) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(met)
    task = asyncio.ensure_future(asyncio.to_thread(raising, error))
    await asyncio.wait([task])
    del task
    gc.collect()


def test_what_the_kernel_refuses_to_the_event_loop_is_one_line(file: Path) -> None:
    """A service out of descriptors filled its log with a traceback for each accept(2)."""
    asyncio.run(_in_a_callback(OSError(errno.EMFILE, "Too many open files")))
    (line,) = file.read_text().splitlines()
    assert line.endswith(": Too many open files")


@pytest.mark.parametrize(
    ("work", "error"), [(_in_a_callback, ValueError("odd")), (_in_a_task, OSError(5, "odd"))]
)
def test_what_nobody_foresaw_says_where_it_came_from(
    work: Callable[[Exception], Coroutine[None, None, None]], error: Exception, file: Path
) -> None:
    asyncio.run(work(error))
    assert "Traceback" in file.read_text()
    assert "in raising" in file.read_text()
