"""Processes that play what they are given, and end what they began also when all is broken off."""

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


def breakable() -> None:
    """Ctrl-C and SIGTERM break this process off, whoever started it: a shell's background job
    ignores SIGINT, one of nohup SIGHUP, and so would what is started."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _unbreakable() -> None:
    """A terminal tells all processes: those that play come to an end of it first. What they start
    is told too: a handler, unlike SIG_IGN, does not outlive exec."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


@contextmanager
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(initializer=_unbreakable) as made:
        try:
            yield made
        except KeyboardInterrupt:
            sys.stderr.write("broken off: what is being played comes to its end first\n")
            made.shutdown(wait=False, cancel_futures=True)
            raise
