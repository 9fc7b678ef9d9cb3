"""The stream's promises without a service: ids grow, memory is bounded, nobody misses anything."""

import asyncio
import json

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats.wire_events import (
    EVENTS,
    GuestEvent,
    Happening,
    LoadEvent,
    SettingsEvent,
    name_of,
)
from proxmox_cpu_affinity.service.sse import tell
from proxmox_cpu_affinity.service.stream import (
    HEARTBEAT,
    QUEUE,
    READERS,
    RING,
    TEXT_MOST,
    Reader,
    Stream,
    TooManyReadersError,
)


def event(text: str = "") -> SettingsEvent:
    return SettingsEvent("2026-01-31T12:00:00.000+00:00", "balanced", "tag", "exact", text)


def ids(texts: str) -> list[int]:
    return [int(line[4:]) for line in texts.splitlines() if line.startswith("id: ")]


def nothing() -> None:
    """What a reader who is never dropped is told."""


@given(missed=st.integers(0, 3 * RING), published=st.integers(0, 2 * RING))
def test_who_comes_back_is_told_all_he_missed_or_that_he_missed_too_much(
    missed: int, published: int
) -> None:
    stream = Stream()
    stream.publish(event())
    with stream.reader(None, dropped=nothing) as reader:
        first = ids(reader.backlog[0])[0]
        assert '"reason":"new"' in reader.backlog[0]
    for _ in range(published):
        stream.publish(event())
    now = first + published
    with stream.reader(str(now - missed), dropped=nothing) as reader:
        told = "".join(reader.backlog)
        kept = min(RING, published + 1)
        if missed > published + 1:
            assert '"reason":"restarted"' in told
        elif missed > kept:
            assert '"reason":"missed"' in told
            assert ids(told) == [now]
        else:
            assert ids(told) == list(range(now - missed + 1, now + 1))


@given(
    text=st.text(max_size=20) | st.text(min_size=500, max_size=700), number=st.integers(1, 10**9)
)
def test_an_event_is_one_of_the_standard_s_and_of_bounded_size(text: str, number: int) -> None:
    stream = Stream()
    told = GuestEvent("2026-01-31T12:00:00.000+00:00", number, "note", text, "info")
    with stream.reader(None, dropped=nothing) as reader:
        stream.publish(told)
        said = asyncio.run(reader.next(1.0))
    assert len(said) <= 6 * TEXT_MOST + 300  # as JSON a character takes up to six
    head, name, data, *rest = said.split("\n")
    assert (head[:4], name, rest) == ("id: ", "event: guest", ["", ""])
    found = json.loads(data.removeprefix("data: "))
    assert (found["vmid"], found["what"]) == (number, "note")
    cut = f"{text[: TEXT_MOST - 1]}…"
    assert found["text"] == (text if len(text) <= TEXT_MOST else cut)


def test_a_reader_who_does_not_read_is_dropped_and_the_others_are_not() -> None:
    stream, gone = Stream(), []
    with (
        stream.reader(None, dropped=lambda: gone.append("slow")) as slow,
        stream.reader(None, dropped=lambda: gone.append("quick")) as quick,
    ):
        for _ in range(QUEUE):
            stream.publish(event())
            assert asyncio.run(quick.next(1.0))
        assert gone == []
        stream.publish(event())
        assert (gone, stream.dropped, stream.readers) == (["slow"], 1, 1)
        assert len(slow.waiting) == QUEUE
        assert asyncio.run(quick.next(1.0))
    assert stream.readers == 0


def test_load_waits_for_nobody_and_is_kept_for_nobody() -> None:
    stream = Stream()
    with stream.reader(None, dropped=nothing) as reader:
        stream.load(LoadEvent([0, 1], [0.5, 1.0]))
        stream.load(LoadEvent([0, 1], [0.6, 1.0]))
        assert list(reader.waiting) == ['event: load\ndata: {"cpus":[0,1],"busy":[0.5,1.0]}\n\n']
    with stream.reader(None, dropped=nothing) as reader:
        assert len(reader.backlog) == 1
        assert not reader.waiting


def test_more_readers_than_are_taken_are_refused_until_one_goes() -> None:
    stream = Stream()
    crowd = [stream.reader(None, dropped=nothing) for _ in range(READERS)]
    for one in crowd:
        one.__enter__()
    with pytest.raises(TooManyReadersError) as caught, stream.reader(None, dropped=nothing):
        pass
    assert (caught.value.http_status, bool(caught.value.hint)) == (503, True)
    crowd.pop().__exit__(None, None, None)
    with stream.reader(None, dropped=nothing):
        assert stream.readers == READERS


def test_the_first_who_comes_and_the_last_who_goes_are_told_of() -> None:
    stream = Stream()
    told: list[str] = []
    stream.first_came = lambda: told.append("came")
    stream.last_left = lambda: told.append("left")
    with stream.reader(None, dropped=nothing), stream.reader(None, dropped=nothing):
        assert told == ["came"]
    assert told == ["came", "left"]
    with stream.reader(None, dropped=nothing):
        assert told == ["came", "left", "came"]


def test_a_reader_is_kept_alive_and_ends_with_the_stream() -> None:
    async def story() -> list[str]:
        stream = Stream()
        with stream.reader(None, dropped=nothing) as reader:
            heard = [await reader.next(0.001)]
            stream.publish(event())
            stream.close()
            heard.append(await reader.next(60.0))
            heard.append(await reader.next(60.0))
            with pytest.raises(TooManyReadersError), stream.reader(None, dropped=nothing):
                pass
        return heard

    first, second, third = asyncio.run(story())
    assert (first, third) == (HEARTBEAT, "")
    assert len(ids(second)) == 1


def test_a_reader_who_waits_is_woken() -> None:
    async def story() -> str:
        reader = Reader((), nothing)
        waiting = asyncio.create_task(reader.next(60.0))
        await asyncio.sleep(0)
        reader.give("a")
        reader.give("b")
        return await waiting

    assert asyncio.run(story()) == "ab"


def test_every_happening_has_a_name() -> None:
    assert name_of(event()) == "settings"
    kinds = set(Happening.__args__)
    assert kinds == {kind for name, kind in EVENTS.items() if name not in ("load", "reset")}


def test_a_reader_who_has_gone_before_it_is_told_is_no_defect() -> None:
    """aiohttp 3.9 and later begin its handler all the same: the log had a traceback of it."""
    stream = Stream()
    request = make_mocked_request("GET", "/api/v1/events")
    request.protocol.transport = None
    with pytest.raises(ConnectionResetError):
        asyncio.run(tell(request, stream))
    assert stream.readers == 0
