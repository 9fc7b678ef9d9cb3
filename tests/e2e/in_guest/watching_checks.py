"""What is told of all this while it happens: events, figures, the page."""

import json
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.in_guest import kernel, node
from tests.e2e.in_guest.cpus_checks import switchable
from tests.e2e.promises import shows

Event = Mapping[str, object]


@contextmanager
def watched() -> Iterator[Callable[[], list[Event]]]:
    """What `status watch --json` has told so far, without the load."""
    with tempfile.TemporaryFile("w+") as file:
        process = subprocess.Popen(
            [node.UNIT, "status", "watch", "--json"], stdin=subprocess.DEVNULL, stdout=file
        )

        def told() -> list[Event]:
            text = Path(f"/proc/self/fd/{file.fileno()}").read_text()
            events = [json.loads(line) for line in text.splitlines(keepends=True) if "\n" in line]
            return [event for event in events if event["event"] != "load"]

        try:
            node.wait_for("it listens", lambda: bool(told()))
            yield told
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(node.PATIENCE)


def of(told: list[Event], vmid: int) -> list[object]:
    """What happened to a guest, in order."""
    data = [event["data"] for event in told]
    return [one["what"] for one in data if isinstance(one, dict) and one.get("vmid") == vmid]


def read(path: str) -> tuple[str, Mapping[str, str]]:
    """An answer of the service as text, and its headers."""
    connection = node.Connection("localhost")
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200, f"{path}: {answer.status}"
        return answer.read().decode(), dict(answer.headers)
    finally:
        connection.close()


@shows(2)
def check_events_tell_of_births_lost_cpus_and_ends() -> None:
    node.ready()
    with watched() as told, switchable() as offline:
        for vmid in (100, 101):
            node.fresh(vmid)
        node.confirmed(100, 101)
        assert all(node.guest(v)["confined_after_s"] == 0.0 for v in (100, 101)), node.log()
        vmid = next(v for v in (100, 101) if 0 not in kernel.held(v))
        cpu = max(kernel.held(vmid))
        offline(cpu)
        node.wait_for("it has moved", lambda: "moved" in of(told(), vmid))
        node.confirmed(vmid)
        hosts = [event["data"] for event in told() if event["event"] == "host"]
        assert isinstance(hosts[0], dict)
        assert (hosts[0]["went"], hosts[0]["came"]) == (str(cpu), ""), hosts
        node.stop(vmid)
        node.wait_for("its end is told", lambda: of(told(), vmid)[-1:] == ["gone"])
        assert of(told(), vmid)[0] == "placed", of(told(), vmid)
        assert "confined" in of(told(), vmid)


@shows(2)
def check_figures_and_the_page_are_served() -> None:
    node.ready()
    node.fresh(100)
    node.fresh(101, keys={"hookscript": "", "tags": "cpu-affinity"})
    node.confirmed(100, 101)
    text, headers = read("/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4"), headers
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    held = "proxmox_cpu_affinity_guest_start_to_confined_seconds"
    assert float(lines[held + '{vmid="100"}']) == 0.0
    assert float(lines[held + '{vmid="101"}']) >= 0.0
    assert float(lines['proxmox_cpu_affinity_guest_confined{vmid="101"}']) == 1.0
    text, headers = read("/")
    assert "<title>" in text
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
