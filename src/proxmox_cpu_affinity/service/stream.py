"""The stream of events: a ring of what happened last, and readers that are told of what happens.

Ids grow, also over restarts: the time of the start in ms, times 1000, then one more for each event.
Memory is bounded: RING events of at most TEXT_MOST characters and a few cpulists, READERS readers
with QUEUE events waiting; a reader that falls further behind is dropped. Nothing runs while nobody
listens. Out of scope: HTTP (sse), what is told (happenings).
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from proxmox_cpu_affinity.formats import jsonvalue
from proxmox_cpu_affinity.formats.wire_events import Happening, LoadEvent, ResetEvent, name_of
from proxmox_cpu_affinity.model.errors import AffinityError

RING = 500
TEXT_MOST = 600
READERS = 32
QUEUE = 100
GRACE = 0.5  # seconds
HEARTBEAT = ":\n\n"


class TooManyReadersError(AffinityError):
    """The stream has as many readers as it takes."""

    code = "too-many-readers"
    http_status = 503
    default_hint = "close another page or `status watch` of this node, then try again"


@dataclass(slots=True, eq=False)
class Reader:
    """One reader's end: what it has not been sent yet."""

    backlog: tuple[str, ...]  # what it is sent first
    dropped: Callable[[], None]  # called when it is too slow: ends its connection at once
    waiting: deque[str] = field(default_factory=deque)
    ended: bool = False
    _ready: asyncio.Event = field(default_factory=asyncio.Event)

    def give(self, text: str) -> bool:
        """Let it be sent; whether there was room."""
        if len(self.waiting) >= QUEUE:
            return False
        self.waiting.append(text)
        self._ready.set()
        return True

    def end(self) -> None:
        """Let it have what is waiting, then end."""
        self.ended = True
        self._ready.set()

    def missed(self) -> str:
        """What it is sent first; kept no longer."""
        text = "".join(self.backlog)
        self.backlog = ()
        return text

    async def next(self, patience: float) -> str:
        """What is to be sent now: a comment after `patience` seconds without any, empty when the
        stream has ended."""
        if not self.waiting and not self.ended:
            try:
                await asyncio.wait_for(self._ready.wait(), patience)
            except TimeoutError:
                return HEARTBEAT
        self._ready.clear()
        text = "".join(self.waiting)
        self.waiting.clear()
        return text


class Stream:
    """What happened last, and who is told of what happens next."""

    def __init__(self) -> None:
        self._first = self._last = int(time.time() * 1000) * 1000
        self._ring: deque[tuple[int, str]] = deque(maxlen=RING)
        self._readers: set[Reader] = set()
        self.first_came: Callable[[], None] = _nothing
        self.last_left: Callable[[], None] = _nothing
        self._closed = False
        self.dropped = 0

    @property
    def readers(self) -> int:
        return len(self._readers)

    def publish(self, happening: Happening) -> None:
        """Keep an event and tell every reader."""
        told = jsonvalue.plain(happening)
        assert isinstance(told, dict)
        self._last += 1
        text = _encoded(name_of(happening), _short(told), number=self._last)
        self._ring.append((self._last, text))
        for reader in tuple(self._readers):
            if not reader.give(text):
                self._drop(reader)

    def load(self, event: LoadEvent) -> None:
        """Tell the readers that keep up; this is kept for nobody."""
        text = _encoded("load", jsonvalue.plain(event))
        for reader in self._readers:
            if not reader.waiting:
                reader.give(text)

    @contextmanager
    def reader(self, last_id: str | None, *, dropped: Callable[[], None]) -> Iterator[Reader]:
        """A further reader, who had everything up to `last_id`. TooManyReadersError."""
        if self._closed or len(self._readers) >= READERS:
            raise TooManyReadersError(f"{len(self._readers)} read the events already")
        reader = Reader(tuple(self._missed(last_id)), dropped)
        self._readers.add(reader)
        try:
            if len(self._readers) == 1:
                self.first_came()
            yield reader
        finally:
            self._readers.discard(reader)
            if not self._readers:
                self.last_left()

    def close(self) -> None:
        """End every reader's stream; nobody is let in any more. Who takes nothing is dropped after
        GRACE: the end of the service waits for nobody."""
        self._closed = True
        for reader in self._readers:
            reader.end()
        asyncio.get_running_loop().call_later(GRACE, self._hurry)

    def _hurry(self) -> None:
        for reader in tuple(self._readers):
            reader.dropped()

    def _drop(self, reader: Reader) -> None:
        self.dropped += 1
        self._readers.discard(reader)
        reader.end()
        reader.dropped()

    def _missed(self, last_id: str | None) -> Iterator[str]:
        """What a reader is sent first: what it missed, or that it missed too much."""
        known = _number(last_id)
        oldest = self._last - len(self._ring)  # the id before the oldest that is kept
        if known is None:
            yield self._reset("new")
        elif not self._first <= known <= self._last:
            yield self._reset("restarted")
        elif known < oldest:
            yield self._reset("missed")
        else:
            yield from (text for number, text in self._ring if number > known)

    def _reset(self, reason: str) -> str:
        return _encoded("reset", jsonvalue.plain(ResetEvent(reason)), number=self._last)


def _nothing() -> None:
    """Who wants to know of readers puts something else in its place."""


def _number(text: str | None) -> int | None:
    """An id as a number; anything that is none is a new reader's."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 18):
        return None
    return int(text)


def _short(told: dict[str, object]) -> dict[str, object]:
    text = told["text"]
    assert isinstance(text, str)
    return {**told, "text": f"{text[: TEXT_MOST - 1]}…"} if len(text) > TEXT_MOST else told


def _encoded(name: str, told: object, *, number: int | None = None) -> str:
    """An event as the stream has it (HTML standard, 9.2.6). JSON has no line breaks in it."""
    data = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {data}\n\n"
