"""The log: the journal (or stderr), and a file of its own that SIGHUP reopens.

Lines of the file: `2026-01-31 12:00:00 [INFO] text vmid=100`. A log that cannot be written must
never stop the service: it goes on with the other one.
"""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from proxmox_cpu_affinity.formats.settings import LogLevel
from proxmox_cpu_affinity.model.errors import AffinityError

if TYPE_CHECKING:
    import asyncio

NOTICE = 25
_LEVELS = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.NOTICE: NOTICE,
    LogLevel.WARN: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}
_NAMES = {number: level.value.upper() for level, number in _LEVELS.items()}
# Priorities of the journal (sd-daemon(3)): a line's own prefix.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, NOTICE: 5, logging.WARNING: 4}

log = logging.getLogger("proxmox_cpu_affinity")


class _Lines(logging.Formatter):
    def __init__(self, *, stamped: bool, prioritised: bool) -> None:
        super().__init__(datefmt="%Y-%m-%d %H:%M:%S")
        self._stamped = stamped
        self._prioritised = prioritised

    def format(self, record: logging.LogRecord) -> str:
        # A guest's threads choose their names: none shall forge a line or speak to a terminal.
        text = "".join(sign if sign.isprintable() else " " for sign in record.getMessage())
        vmid = getattr(record, "vmid", None)
        if vmid is not None:
            text += f" vmid={vmid}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        name = _NAMES.get(record.levelno, record.levelname)
        if self._stamped:
            return f"{self.formatTime(record, self.datefmt)} [{name}] {text}"
        if self._prioritised:
            return f"<{_PRIORITIES.get(record.levelno, 3)}>{text}"
        return f"[{name}] {text}"


class _LogFile(logging.StreamHandler[TextIO]):
    """A file that can be opened again after it was renamed; mode 0600, as it was inherited."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(self._open())

    def _open(self) -> TextIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.fdopen(os.open(self.path, flags, 0o600), "a", encoding="utf-8")

    def reopen(self) -> None:
        old = self.setStream(self._open())
        if old is not None:
            old.close()


def failed(what: str, error: BaseException) -> None:
    """One line for an error of the family; of what nobody foresaw, also where it came from."""
    if isinstance(error, AffinityError):
        log.error("%s: %s", what, error.text)
    else:
        log.error("%s", what, exc_info=error)


def met(_: "asyncio.AbstractEventLoop", context: dict[str, Any]) -> None:
    """What the event loop itself met with. A call that the kernel refuses it (accept(2) for want of
    descriptors) it makes again later: one line. What is of a task is nobody's but ours."""
    error = context.get("exception")
    if isinstance(error, OSError) and not context.keys() & {"task", "future"}:
        log.error("%s: %s", context["message"], error.strerror or error)
    else:
        log.error("%s", context["message"], exc_info=error)


def set_up(level: LogLevel, file: Path | None) -> None:
    """Begin to log; `file` None: to stderr alone."""
    logging.raiseExceptions = False  # a full disk must not fill the journal with tracebacks
    logging.addLevelName(NOTICE, "NOTICE")
    log.setLevel(_LEVELS[level])
    log.propagate = False
    log.handlers.clear()
    screen = logging.StreamHandler(sys.stderr)
    journal = "JOURNAL_STREAM" in os.environ
    screen.setFormatter(_Lines(stamped=not journal, prioritised=journal))
    log.addHandler(screen)
    if file is None:
        return
    try:
        lines = _LogFile(file)
    except OSError as error:
        log.warning("the log file cannot be opened (%s): only the journal is used", error.strerror)
        return
    lines.setFormatter(_Lines(stamped=True, prioritised=False))
    log.addHandler(lines)


def reopen(level: LogLevel) -> None:
    """Write into a new file after the old one was rotated away, at this level."""
    log.setLevel(_LEVELS[level])
    for handler in log.handlers:
        if isinstance(handler, _LogFile):
            try:
                handler.reopen()
            except OSError as error:
                log.warning("the log file cannot be opened again (%s)", error.strerror)
