"""Whether a guest lives: its console and its agent's beat say something from time to time.

A guest that hangs is told so within a minute or two, not when the time of all checks is over.
"""

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

BEGAN = b"began\n"  # the agent's first word
LINES = 15


class GuestError(Exception):
    """The guest did not do what it must; the text is for the person at the keyboard."""


def last_lines(said: bytes) -> str:
    """The end of what was said, without colours and without systemd's moving stars."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said.decode(errors="replace"))
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    told = [line for line in lines if line and not re.match(r"\[[ *]*\] ", line)]
    return "\n".join(told[-LINES:]) or "it said nothing"


@dataclass(slots=True)
class Pulse:
    """Watches the files to which QEMU writes what the console and the agent's beat say."""

    console: Path
    beats: Path
    patience: float  # seconds without a word of either
    _said: int = -1
    _since: float = field(default_factory=time.monotonic)

    def fault(self) -> str:
        """What is wrong; empty where the guest lives."""
        files = [file for file in (self.console, self.beats) if file.exists()]
        said, now = sum(file.stat().st_size for file in files), time.monotonic()
        if said != self._said:
            self._said, self._since = said, now
        if self.beats in files and self.beats.read_bytes().count(BEGAN) > 1:
            return "the agent in the guest has ended, with what it ran, and was started again"
        silent = now - self._since
        return f"no sign of life for {silent:.0f} s" if silent > self.patience else ""
