"""What the herald tells of beside guests, and that telling costs nobody anything."""

import json
import logging
from pathlib import Path

import pytest

from proxmox_cpu_affinity.engine.facts import Rules, compile_host
from proxmox_cpu_affinity.formats.settings import Settings
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.reconcile import State, step
from proxmox_cpu_affinity.reconcile.actions import Level, Tell
from proxmox_cpu_affinity.reconcile.events import ScopesReached
from proxmox_cpu_affinity.service import herald as module
from proxmox_cpu_affinity.service.herald import Herald
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

HOST = topology(generate(parse_spec("1x1x4x1")))


@pytest.fixture
def herald(tmp_path: Path) -> Herald:
    return Herald(Tree(tmp_path), began=0.0)


def told(herald: Herald) -> dict[str, object]:
    """The last event: its name and data, without the time."""
    herald.stream.first_came = lambda: None  # there is no event loop here
    number = herald.stream._last - 1
    with herald.stream.reader(str(number), dropped=lambda: None) as reader:
        lines = reader.backlog[-1].splitlines()
    data = json.loads(lines[2].removeprefix("data: "))
    assert data.pop("time").endswith("+00:00")
    return {"event": lines[1].removeprefix("event: "), **data}


def test_cpus_that_came_and_went_are_named(herald: Herald) -> None:
    herald.cpus(CpuSet.parse("0-3"), CpuSet.parse("0,2-3,8-9"), "CPUs changed")
    assert told(herald) == {
        "event": "host",
        "online": "0,2-3,8-9",
        "came": "8-9",
        "went": "1",
        "text": "CPUs changed",
    }


def test_a_measurement_begins_and_ends(herald: Herald) -> None:
    matrix = predicted(HOST)
    herald.measuring(matrix)
    assert told(herald)["what"] == "started"
    herald.measured(matrix, changed=True)
    assert told(herald) == {
        "event": "measure",
        "what": "done",
        "verdict": "predicted",
        "measured_share": 0.0,
        "text": "latency measured: predicted, 0 % of the pairs",
    }
    herald.measured(matrix, changed=False)
    assert told(herald)["text"] == "the latencies stay as they were"


def test_settings_in_force_are_told(herald: Herald) -> None:
    herald.settings(Settings())
    assert told(herald) == {
        "event": "settings",
        "strategy": "balanced",
        "manage": "tag",
        "width": "auto",
        "text": "settings read again",
    }


def test_a_defect_in_telling_is_logged_and_goes_no_further(
    herald: Herald, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(module, "happened", broken)
    monkeypatch.setattr(logging.getLogger("proxmox_cpu_affinity"), "propagate", True)
    before = State(compile_host(HOST, predicted(HOST), Rules()))
    event = ScopesReached(1.0)
    after, _ = step(before, event)
    herald.step(before, after, event, (Tell(Level.INFO, None, "x"),))
    assert "what happened could not be told" in caplog.text
    assert "a defect" in caplog.text
