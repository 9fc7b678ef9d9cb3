"""The stream of events: who listens sees what happens, may go on where it was, and costs little."""

import contextlib
import http.client
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.service.stream import READERS, RING
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.listening import Listener, Told
from tests.integration.running import PATIENCE, Over, Running, add_guest, cpus_of

MIB = 1 << 20


@pytest.fixture
def service(sim_node: Node) -> Iterator[Running]:
    """A service that has measured already what it wants to: nothing happens by itself."""
    with Running(sim_node) as running:
        running.wait_for(lambda: "latency measured" in running.log)
        yield running


def whats(told: list[Told], vmid: int) -> list[object]:
    return [one.data["what"] for one in told if one.data.get("vmid") == vmid]


def figure(service: Running, name: str) -> float:
    lines = service.get("/metrics").body.decode().splitlines()
    found = [line for line in lines if line.startswith(f"proxmox_cpu_affinity_{name} ")]
    return float(found[0].rpartition(" ")[2])


def happens(service: Running, times: int) -> None:
    """Let that many events happen: settings that are read again."""
    for _ in range(times):
        before = service.log.count("settings read again")
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(lambda: service.log.count("settings read again") > before)  # noqa: B023


def test_a_guests_life_is_told_in_the_words_of_the_log(service: Running) -> None:
    add_guest(service.node, 100)
    with Listener(service) as listener:
        first = listener.next()
        assert first is not None
        assert (first.name, first.data) == ("reset", {"reason": "new"})
        assert listener.headers.get_content_type() == "text/event-stream"
        assert listener.headers["Cache-Control"] == "no-store"
        assert listener.headers["X-Content-Type-Options"] == "nosniff"
        service.node.do("start", 100)
        told = listener.until("guest", vmid=100, what="confined")
        service.node.do("stop", 100)
        told += listener.until("guest", vmid=100, what="gone")
        assert whats(told, 100) == ["placed", "confined", "gone"]
        numbers = [one.number for one in told if one.number is not None]
        assert numbers == sorted(set(numbers))
        for one in told:
            if one.name == "guest":
                words = one.data["text"]
                assert isinstance(words, str)
                assert all(f"{part} vmid=100" in service.log for part in words.split("; ")[:1])


def test_moved_released_refused_and_repaired_are_told(service: Running) -> None:
    add_guest(service.node, 100)
    service.node.do("start", 100)
    service.confirms(100)
    pid = service.node.pid(100)
    assert pid is not None
    with Listener(service) as listener:
        service.post("/api/v1/guests/100/reassign", {"undo": True})
        told = listener.until("guest", vmid=100, what="released")
        service.post("/api/v1/guests/100/reassign")
        told += listener.until("guest", vmid=100, what="confined")
        held = cpus_of(str(service.guest(100)["cpus"]))
        os.sched_setaffinity(pid, os.sched_getaffinity(0) - held)
        service.post("/api/v1/guests/100/post-start")  # the scan that comes every 30 s, now
        told += listener.until("guest", vmid=100, what="repaired")
        assert "1 thread was elsewhere" in str(told[-1].data["text"])
    assert service.guest(100)["drift"] == 1
    assert os.sched_getaffinity(pid) == held


def test_settings_are_told(service: Running) -> None:
    with Listener(service) as listener:
        service.process.send_signal(signal.SIGHUP)
        told = listener.until("settings")[-1]
        assert (told.data["manage"], told.data["strategy"]) == ("tag", "balanced")


def test_a_measurement_is_told(service: Running) -> None:
    """It is over, and nothing has happened since: its two events are what was kept last."""
    with Listener(service) as listener:
        now = listener.next()
    assert now is not None
    assert now.number is not None
    with Listener(service, now.number - 2) as listener:
        told = [one for one in (listener.next(), listener.next()) if one]
    assert [(one.name, one.data["what"]) for one in told] == [
        ("measure", "started"),
        ("measure", "done"),
    ]
    matrix = service.get("/api/v1/status").json["matrix"]
    assert isinstance(matrix, dict)
    assert told[1].data["verdict"] == matrix["verdict"]


def test_load_is_told_while_somebody_listens_and_has_no_id(service: Running) -> None:
    with Listener(service) as listener:
        load = listener.until("load")[-1]
        assert load.number is None
        assert load.data["cpus"] == sorted(os.sched_getaffinity(0))
        busy = load.data["busy"]
        assert isinstance(busy, list)
        assert all(0 <= share <= 1 for share in busy)
        assert len(busy) == len(os.sched_getaffinity(0))


def test_a_reader_goes_on_where_it_was(service: Running) -> None:
    with Listener(service) as listener:
        first = listener.next()
        happens(service, 1)
        seen = listener.until("settings")[-1]
    happens(service, 2)
    assert first is not None
    assert seen.number is not None
    with Listener(service, seen.number) as listener:
        happens(service, 1)
        told = [one for one in (listener.next() for _ in range(3)) if one and one.name != "load"]
        assert [one.number for one in told] == [seen.number + i for i in (1, 2, 3)]
    with Listener(service, first.number) as listener:
        told = [one for one in (listener.next() for _ in range(4)) if one]
        assert [one.name for one in told] == ["settings"] * 4


@pytest.mark.parametrize("last", ["", "x", "-1", "1e5", "9" * 40])
def test_what_is_no_id_is_a_new_readers(service: Running, last: str) -> None:
    with Listener(service, last) as listener:
        told = listener.next()
        assert told is not None
        assert (told.name, told.data) == ("reset", {"reason": "new"})


def test_the_id_of_another_run_is_told_to_begin_anew(service: Running) -> None:
    with Listener(service) as listener:
        happens(service, 1)
        seen = listener.until("settings")[-1]
        service.end()
        listener.ends()
    service.start()
    with Listener(service, seen.number) as listener:
        told = listener.next()
        assert told is not None
        assert (told.name, told.data) == ("reset", {"reason": "restarted"})
        assert told.number is not None
        assert seen.number is not None
        assert told.number > seen.number
    with Listener(service, told.number + 10_000) as listener:
        late = listener.next()
        assert late is not None
        assert late.data == {"reason": "restarted"}


def test_streams_end_with_the_service(service: Running) -> None:
    with Listener(service) as first, Listener(service) as second:
        first.next()
        second.next()
        service.process.send_signal(signal.SIGTERM)
        first.ends()
        second.ends()
    assert service.process.wait(20) == 0
    assert "failed" not in service.log


def test_readers_who_take_nothing_do_not_hold_the_end(service: Running) -> None:
    """Some are stuck and not dropped yet: each has a little less to read than the one before."""
    add_guest(service.node, 100)
    crowd: list[Listener] = []
    try:
        while not crowd or figure(service, "event_readers_dropped_total") == 0:
            if len(crowd) < READERS - 1:
                crowd.append(Listener(service))
                assert crowd[-1].next() is not None
            happened = events(service)
            flood(service, 100, lambda: events(service) >= happened + 30)  # noqa: B023
        assert service.end() == 0
    finally:
        for listener in crowd:
            listener.close()


def test_one_reader_too_many_is_told_to_come_back(service: Running) -> None:
    crowd = [Listener(service) for _ in range(READERS)]
    try:
        for listener in crowd:
            assert listener.next() is not None
        answer = service.get("/api/v1/events")
        assert (answer.status, answer.json["code"]) == (503, "too-many-readers")
        assert "try again" in str(answer.json["hint"])
        assert service.get("/api/v1/ping").status == 200
        crowd.pop().close()
        service.wait_for(lambda: figure(service, "event_readers") < READERS)
        with Listener(service) as listener:
            assert listener.next() is not None
    finally:
        for listener in crowd:
            listener.close()


def flood(service: Running, vmid: int, until: Callable[[], bool]) -> None:
    """Let much happen, over one connection: a guest is announced again and again."""
    there = Over(service.socket)
    try:
        deadline = time.monotonic() + 4 * PATIENCE
        while not until():
            assert time.monotonic() < deadline, "it never came true"
            for _ in range(50):
                there.request("POST", f"/api/v1/guests/{vmid}/pre-start", "{}")
                assert there.getresponse().read()
    finally:
        there.close()


def events(service: Running) -> float:
    return figure(service, 'guest_events_total{what="placed"}')


def test_a_reader_that_missed_more_than_is_kept_begins_anew(service: Running) -> None:
    add_guest(service.node, 100)
    with Listener(service) as listener:
        first = listener.next()
    assert first is not None
    flood(service, 100, lambda: events(service) > RING)
    with Listener(service, first.number) as listener:
        told = listener.next()
        assert told is not None
        assert (told.name, told.data) == ("reset", {"reason": "missed"})
        newest = told.number
    assert newest is not None
    with Listener(service, newest - RING) as listener:  # as much as is kept
        kept = [listener.next() for _ in range(RING)]
        assert [one.number for one in kept if one] == list(range(newest - RING + 1, newest + 1))
    with Listener(service, newest - RING - 1) as listener:
        told = listener.next()
        assert told is not None
        assert told.data == {"reason": "missed"}


def test_a_slow_reader_is_dropped_and_the_others_are_served(service: Running) -> None:
    add_guest(service.node, 100)
    with Listener(service) as slow, Listener(service) as quick:
        slow.next()
        seen: list[int] = []

        def read() -> None:
            while len(seen) < 300 and (told := quick.next()) is not None:
                seen.append(told.number or 0)

        reader = threading.Thread(target=read)
        reader.start()
        flood(service, 100, lambda: figure(service, "event_readers_dropped_total") == 1)
        flood(service, 100, lambda: not reader.is_alive())
        reader.join()
        assert len(seen) == 300
        assert figure(service, "event_readers") == 1
        with contextlib.suppress(ConnectionResetError, http.client.IncompleteRead):
            slow.ends()  # what was on its way may still be read; then it is over
        numbers = [number for number in seen if number]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert "failed" not in service.log


def test_memory_is_flat_however_much_happens(service: Running) -> None:
    """The ring is full, the queues are bounded: what is kept does not grow."""
    add_guest(service.node, 100)
    with Listener(service) as stuck:
        stuck.next()
        flood(service, 100, lambda: events(service) > 2 * RING)
        before = resident(service)
        flood(service, 100, lambda: events(service) > 4 * RING)
        assert resident(service) < before + 3 * MIB


def resident(service: Running) -> int:
    """Bytes of memory that the service holds."""
    words = Path(f"/proc/{service.process.pid}/statm").read_text().split()
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE")


def test_nobody_listens_and_nothing_wakes(service: Running) -> None:
    """The main thread sleeps through: no timer of the stream's, no reading of the load."""
    with Listener(service) as listener:
        listener.until("load")
    service.wait_for(lambda: figure(service, "event_readers") == 0)
    # Scans wake it twice a minute; one of three looks may fall on one.
    assert any(switches_during(service, 3.0) <= 3 for _ in range(3))


def switches_during(service: Running, seconds: float) -> int:
    """How often the service's main thread went to sleep in that time."""

    def switches() -> int:
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)
        assert found is not None
        return int(found[1])

    before = switches()
    time.sleep(seconds)
    return switches() - before
