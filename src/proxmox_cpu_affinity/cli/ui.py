"""The only place that prints: results to stdout, talk to stderr, animation on terminals only.

Out of scope: what is said. Texts come from the commands, without control characters' effects.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from textwrap import wrap
from typing import TextIO

Row = Sequence[object]
GAP = "  "
_EVERY = 0.2  # seconds between two states of a progress line


def prepare() -> None:
    """Let no stream that is closed, and no character that its encoding lacks, end a command."""
    sys.stdin = sys.stdin or _nowhere()
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _nowhere() -> TextIO:
    return open(os.devnull, "r+", encoding="utf-8")


def flush() -> None:
    """Write what is still held back, so that a broken pipe is met here and not at the exit."""
    sys.stdout.flush()


def settle() -> None:
    """Where what is still held back cannot be written, for nobody reads it or there is no room, let
    the interpreter's last flush go nowhere (docs of `signal`): it would fail once more."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())


def result(text: str) -> None:
    """A line of the result."""
    print(clean(text))


def lines(*texts: str) -> None:
    """Lines of the result."""
    for text in texts:
        print(clean(text))


def heading(text: str) -> None:
    """What the next table of the result is of, behind an empty line."""
    print(f"\n{clean(text)}")


def coloured(words: Iterable[tuple[str, int | None]]) -> str:
    """Words in the colours of these codes (ECMA-48, SGR); of None in none."""
    return "".join(
        clean(text) if code is None else f"\x1b[{code}m{clean(text)}\x1b[0m" for text, code in words
    )


def raw(text: str) -> None:
    """A result as it is, like a picture."""
    sys.stdout.write(text)


def line_out(text: str) -> None:
    """One line of a conversation: written at once, for the other side waits for it."""
    print(text, flush=True)


def document(value: object) -> None:
    """A result as JSON."""
    import json

    print(json.dumps(value, indent=2))


def talk(text: str) -> None:
    """A remark."""
    print(clean(text), file=sys.stderr)


def talk_table(headers: Sequence[str], rows: Iterable[Row]) -> None:
    """A table that is a remark."""
    for line in plain_table(headers, [[clean(str(cell)) for cell in row] for row in rows]):
        print(line, file=sys.stderr)


def relay(text: str) -> None:
    """What a program said on its stderr."""
    sys.stderr.write(text)


def warn(text: str) -> None:
    talk(f"Warning: {text}")


def error(text: str, hint: str = "") -> None:
    talk(f"Error: {text}")
    if hint:
        talk(f"Hint: {hint}")


def clean(text: str) -> str:
    """A text on one line without control characters: names of guests' threads can hold any."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def table(headers: Sequence[str], rows: Iterable[Row]) -> None:
    """Columns: on a terminal folded to its width, else plain, two blanks apart."""
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(headers, cells)
        return
    for line in plain_table(headers, cells):
        print(line)


def fits(headers: Sequence[str], rows: Iterable[Row]) -> bool:
    """Whether stdout is a terminal wide enough for this table."""
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    return sys.stdout.isatty() and max(map(len, plain_table(headers, cells))) <= width()


def plain_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table whose columns are as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield GAP.join(padded).rstrip()


def pairs(lines: Iterable[tuple[str, object]]) -> None:
    """Names and values, the values aligned; on a terminal folded to its width."""
    known = [(name, str(value)) for name, value in lines]
    indent = max((len(name) for name, _ in known), default=0) + 1 + len(GAP)
    for name, value in known:
        first, *rest = folded(value, width() - indent) if on_terminal() else [clean(value)]
        print(f"{name + ':':{indent}}{first}".rstrip())
        for line in rest:
            print(" " * indent + line)


def folded(text: str, room: int) -> list[str]:
    """A text in lines of so many columns, at least 30. Words stay whole: they are to be copied."""
    return wrap(clean(text), max(room, 30), break_long_words=False, break_on_hyphens=False) or [""]


def width() -> int:
    """Columns of the terminal on stdout; 80 where it is none: mails and tickets take that."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def in_colour() -> bool:
    """Whether results may have colours: a terminal that knows some, and nobody who wants none
    (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def height() -> int | None:
    """Lines of the terminal on stdout; None where it is none, or does not say."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).lines or None
    except (OSError, ValueError):
        return None


@contextmanager
def progress(what: str, *, quiet: bool = False) -> Iterator["Progress"]:
    """A line on stderr that shows how far something is, where stderr is a terminal."""
    shown = Progress(what, active=sys.stderr.isatty() and not quiet)
    try:
        yield shown
    finally:
        shown.wipe()


@contextmanager
def screen() -> Iterator[Callable[[Sequence[str]], None]]:
    """The whole terminal on stdout for pictures of lines, which is given back as it was."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, markup=False)
    with Live(console=console, screen=True, auto_refresh=False) as shown:

        def show(lines: Sequence[str]) -> None:
            text = "\n".join(map(clean, lines))
            shown.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

        yield show


def on_terminal() -> bool:
    """Whether results go to a terminal."""
    return sys.stdout.isatty()


class Progress:
    """A progress line, or a picture above it; `show` may be called as often as one likes."""

    def __init__(self, what: str, *, active: bool) -> None:
        self._what = what
        self._active = active
        self._last = 0.0
        self._drawn = 0  # lines above the cursor that are ours

    def show(
        self, done: int, total: int, picture: Callable[[], Sequence[str]] | None = None
    ) -> None:
        """Draw anew; of a picture that does not fit the terminal the line alone."""
        now = time.monotonic()
        if not self._active or (now - self._last < _EVERY and done < total):
            return
        self._last = now
        above = list(picture()) if picture is not None else []
        if not _room_for(above):
            above = []
        lines = "".join(f"{line}\x1b[K\n" for line in above)
        line = f"{self._what} {done} of {total}\x1b[K"
        print(f"{self._back()}{lines}{line}", end="", file=sys.stderr, flush=True)
        self._drawn = len(above)

    def wipe(self) -> None:
        if self._active and self._last:
            rest = "\x1b[J" if self._drawn else "\x1b[K"
            print(f"{self._back()}{rest}", end="", file=sys.stderr, flush=True)
            self._drawn = 0

    def _back(self) -> str:
        return "\r" + (f"\x1b[{self._drawn}A" if self._drawn else "")


def _room_for(lines: Sequence[str]) -> bool:
    """Whether the terminal on stderr can show these lines and one more."""
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return len(lines) + 2 <= size.lines and max(map(len, lines), default=0) < size.columns


def _rich_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, len(GAP), 0, 0), header_style="bold")
    for header in headers:
        drawn.add_column(Text(header), overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    Console(file=sys.stdout, highlight=False, markup=False).print(drawn)
