"""Whether a guest lives: its console and its agent's beat say something from time to time.

A guest that hangs is told so within a minute or two, not when the time of all checks is over.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

BEGAN = b"began\n"  # the agent's first word


class GuestError(Exception):
    """The guest did not do what it must; the text is for the person at the keyboard."""


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
