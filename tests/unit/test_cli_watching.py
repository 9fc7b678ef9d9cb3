"""What `status watch` makes of events: lines, and the picture of a host."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.cli.following import Told, events
from proxmox_cpu_affinity.cli.watching import BARS, KEPT, KEPT_LOW, Picture, busy_of, line_of
from proxmox_cpu_affinity.formats import wire
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.model.errors import AffinityError
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

NOON = "2026-01-31T12:00:00.123+00:00"
MATRIX = wire.MatrixState(
    verdict="trusted", measured_share=1.0, measuring=False, pairs_done=0, pairs_all=0, conditions=[]
)


def status(score: wire.ScoreView | None = None) -> wire.Status:
    return wire.Status(
        version="1",
        uptime_s=1.0,
        node="pve",
        model_name="CPU",
        cpus=8,
        usable="0-7",
        packages=1,
        nodes=1,
        cache_groups=2,
        strategy="balanced",
        manage="tag",
        width="exact",
        confinement="scope",
        guests_running=1,
        guests_confined=1,
        overlap="",
        matrix=MATRIX,
        warnings=[],
        score=score,
    )


def guest(vmid: int, cpus: str) -> wire.GuestView:
    return wire.GuestView(
        vmid=vmid,
        name=f"g{vmid}",
        managed=True,
        reason="",
        policy="shared",
        vcpus=2,
        running=bool(cpus),
        pid=1,
        cpus=cpus,
        applied=cpus,
        outcome="full" if cpus else "",
        confinement="scope",
        threads=4,
        faults=[],
        warnings=[],
        nodes=[0],
        score=0.125,
        bound=0.1,
    )


def picture(spec: str, *guests: wire.GuestView) -> Picture:
    return Picture(topology(generate(parse_spec(spec))), status(), guests)


def test_events_of_a_stream_are_read_whatever_lies_between() -> None:
    text = 'retry: 2000\n\n:\n\nid: 7\nevent: reset\ndata: {"reason":"new"}\n\n:\n\nid:8\nevent:x\n'
    text += 'data:{"a": 1}\nof-later: 1\n\nevent: load\ndata: {"cpus":[0]}\n\nevent: cut'
    assert list(events(text.split("\n"))) == [
        Told("reset", {"reason": "new"}, "7"),
        Told("x", {"a": 1}, "8"),
        Told("load", {"cpus": [0]}, ""),
    ]


@pytest.mark.parametrize("data", ["", "{", "[]", "[" * 100_000])
def test_an_event_that_is_no_object_is_said_to_be_strange(data: str) -> None:
    with pytest.raises(AffinityError, match="not understood"):
        list(events(["event: guest", f"data: {data}", ""]))


def test_each_event_is_a_line_but_the_load_and_the_greeting() -> None:
    told = Told("guest", {"time": NOON, "vmid": 100, "what": "placed", "text": "CPU 1: x"}, "1")
    line = line_of(told)
    assert line is not None
    stamp, words = line[:19], line[20:]
    assert time.strptime(stamp, "%Y-%m-%d %H:%M:%S")
    assert words == "guest 100 placed: CPU 1: x"
    measured = line_of(Told("measure", {"time": NOON, "text": "latency measured"}))
    assert measured == f"{stamp} measure: latency measured"
    assert line_of(Told("reset", {"reason": "missed"})) == "some events were missed (missed)"
    assert line_of(Told("reset", {"reason": "new"})) is None
    assert line_of(Told("load", {"cpus": [0], "busy": [0.5]})) is None


@given(
    name=st.text(max_size=9),
    data=st.dictionaries(
        st.sampled_from(("time", "text", "vmid", "what", "reason", "cpus", "busy")),
        st.none() | st.text() | st.integers() | st.lists(st.integers()),
    ),
)
def test_no_event_of_a_later_service_is_too_strange(
    name: str, data: dict[str, str | int | None]
) -> None:
    told = Told(name, data)
    line = line_of(told)
    assert line is None or line
    assert isinstance(busy_of(told), dict)


def test_the_picture_has_the_host_its_load_its_guests_and_what_happened() -> None:
    shown = picture("1x2x4x1", guest(100, "0-1"), guest(101, "4-5"), guest(102, ""))
    lines = shown.lines(100)
    assert lines[0] == "pve: 1 placed and running, 1 on their CPUs"
    assert lines[2:4] == [
        "package 0  node 0  cache group 0  A A . .",
        "package 0  node 0  cache group 1  B B . .",
    ]
    assert not set(BARS) & set("".join(lines))
    shown.busy = busy_of(Told("load", {"cpus": list(range(8)), "busy": [1.0, 0.5] + [0.0] * 6}))
    lines = shown.lines(100)
    assert "package 0  node 0  cache group 0  █ ▅ ▁ ▁" in lines
    rows = [line.split() for line in lines if line.startswith(("100 ", "101 ", "102 "))]
    assert rows == [
        ["100", "g100", "shared", "0-1", "0", "full", "75", "%", "12.5", "%", "10.0", "%"],
        ["101", "g101", "shared", "4-5", "0", "full", "0", "%", "12.5", "%", "10.0", "%"],
    ]
    shown.happened.extend(f"event {i}" for i in range(KEPT + 3))
    shown.trouble = "the service has ended"
    lines = shown.lines(100)
    assert lines[0] == "connection lost: the service has ended"
    assert lines[-KEPT:] == [f"event {i}" for i in range(3, KEPT + 3)]


def test_a_narrow_terminal_has_what_guests_lose_rather_than_their_nodes() -> None:
    """What they lose was beyond the edge of 80 columns."""
    shown = picture("1x2x4x1", replace(guest(100, "0,2,4,6"), name="a-long-name-of-a-guest"))
    for width, gone in ((100, ""), (76, "Nodes"), (66, "Policy"), (58, "At best")):
        lines = shown.lines(width)
        assert max(map(len, lines)) <= width
        [head] = [line for line in lines if line.startswith("VMID")]
        assert not gone or gone not in head
        assert "Loses" in head


@pytest.mark.parametrize("height", [10, 24])
@pytest.mark.parametrize("spec", ["1x1x4x1", "2x4x8x2", "2x16x8x2"])
def test_what_happened_last_is_seen_on_a_terminal_however_low(spec: str, height: int) -> None:
    """The events were below the bottom of 24 lines as soon as there were a few guests."""
    shown = picture(spec, *(guest(100 + i, str(i % 4)) for i in range(30)))
    shown.happened.extend(f"event {i}" for i in range(KEPT))
    whole = shown.lines(80)
    assert shown.lines(80, len(whole)) == whole
    shown.busy = {9999: 0.5}  # nobody's: the table stays as it is
    lines = shown.lines(80, height)
    assert len(lines) == height
    assert lines[0].startswith("pve: ")
    assert lines[-KEPT_LOW:] == whole[-KEPT_LOW:]
    cut = len(lines) - KEPT_LOW - 2
    assert lines[:cut] == whole[:cut]
    missing = len(whole) - KEPT - 1 - cut
    assert lines[cut] == f"({missing} more lines on a higher terminal)"


@pytest.mark.parametrize("spec", ["1x1x1x1", "1x1x4x1", "2x4x8x2", "2x16x8x2"])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_cpu_is_in_the_picture_once_however_many(spec: str, width: int) -> None:
    shown = picture(spec)
    count = len(shown.topology.online)
    shown.status = wire.Status(
        **{name: getattr(shown.status, name) for name in wire.Status.__slots__}
        | {"usable": str(shown.topology.online)}
    )
    shown.busy = dict.fromkeys(shown.topology.online, 0.0)
    drawn = [line.rpartition("  ")[2] for line in shown.lines(width)]
    assert sum(line.count(BARS[0]) for line in drawn) == count
