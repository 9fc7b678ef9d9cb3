"""The log's lines, in a real file."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.formats.settings import LogLevel
from proxmox_cpu_affinity.service.log import log, reopen, set_up


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
