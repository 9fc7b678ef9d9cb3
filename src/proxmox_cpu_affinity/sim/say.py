"""What the simulated programs print, flushed line by line since children share the streams."""

import sys


def out(line: str) -> None:
    """A line of the result, on stdout."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def warn(line: str) -> None:
    """A warning or an error, on stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
