"""GET /metrics: what Prometheus' own tool says of it, and whether it is true; what builds on it."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running, add_guest, cpus_of

DOCS = Path(__file__).parents[2] / "docs"
PREFIX = "proxmox_cpu_affinity_"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (prometheus)")
_SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? ([^ ]+)")


@pytest.fixture
def service(sim_node: Node) -> Iterator[Running]:
    with Running(sim_node) as running:
        yield running


def text_of(service: Running) -> str:
    answer = service.get("/metrics", tcp=True)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return answer.body.decode()


def samples(text: str) -> dict[str, float]:
    """Name and labels, without our prefix, to the number."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, number = line.rpartition(" ")
            assert name not in found, f"{name} twice"
            found[name.removeprefix(PREFIX)] = float(number)
    return found


def live(service: Running) -> str:
    """The text after a guest was started, moved about and stopped, and another runs."""
    for vmid in (100, 101):
        add_guest(service.node, vmid)
        service.node.do("start", vmid)
        service.confirms(vmid)
    service.node.do("stop", 101)
    service.says("stopped")
    return text_of(service)


@needs_promtool
def test_promtool_finds_nothing_to_say(service: Running) -> None:
    for text in (text_of(service), live(service)):
        assert PROMTOOL is not None
        done = subprocess.run(
            [PROMTOOL, "check", "metrics"], input=text, text=True, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_promtool
def test_promtool_takes_the_alerts() -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "check", "rules", str(DOCS / "alerts.yml")],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout


def test_figures_are_those_of_the_api(service: Running) -> None:
    found = samples(live(service))
    guest, status = service.guest(100), service.get("/api/v1/status").json
    assert found['guest_cpus{vmid="100"}'] == len(cpus_of(str(guest["cpus"])))
    assert found['guest_nodes{vmid="100"}'] == 1
    assert found['guest_confined{vmid="100"}'] == 1
    assert found['guest_slowdown_ratio{vmid="100"}'] == guest["score"]
    assert found['guest_start_to_confined_seconds{vmid="100"}'] == guest["confined_after_s"]
    assert not any('vmid="101"' in name for name in found)
    assert (found["guests_running"], found["guests_refused"]) == (1, 0)
    assert found["cpus_online"] == status["cpus"]
    score = status["score"]
    assert isinstance(score, dict)
    assert found["slowdown_ratio"] == score["slowdown"]
    assert found["slowdown_gap_ratio"] == score["gap"]
    assert found['guest_events_total{what="gone"}'] == 1
    assert found['confinements_total{outcome="full"}'] >= 2
    assert found['hook_duration_seconds_count{phase="pre-start"}'] == 2
    assert found['hook_duration_seconds_bucket{le="+Inf",phase="post-start"}'] == 2
    assert found["start_to_confined_seconds_count"] == 2
    assert found['api_request_duration_seconds_count{endpoint="guest"}'] >= 2
    verdicts = [n for name, n in found.items() if name.startswith("matrix_verdict")]
    assert sorted(verdicts) == [0, 0, 1]
    assert found["process_resident_memory_bytes"] > 0


def test_series_are_bounded_whatever_is_asked(service: Running) -> None:
    """No label comes from outside: not a path, not a VMID that is none of ours."""
    before = samples(text_of(service)).keys()
    for path in ("/nowhere", "/api/v1/guests/4711", "/api/v1/guests/x", "/api/v1/try?vcpus=x"):
        assert service.get(path).status in (400, 404)
    assert samples(text_of(service)).keys() == before


def names_used(text: str) -> set[str]:
    """The metrics that a text speaks of."""
    return set(re.findall(r"\b(?:proxmox_cpu_affinity|process)_[a-z_]+\b", text))


def test_dashboard_and_alerts_use_what_there_is(service: Running) -> None:
    text = live(service)
    there = {match[1] for match in map(_SAMPLE.match, text.splitlines()) if match}
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    used = set()
    for panel in dashboard["panels"]:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            names = names_used(target["expr"])
            assert names, target
            used |= names
    used |= names_used((DOCS / "alerts.yml").read_text())
    assert used <= there, used - there
    assert len(used) >= 25


def test_dashboard_is_one_grafana_takes() -> None:
    """The fields that its loader needs, panels that do not lie upon each other, no id twice."""
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    assert dashboard["title"]
    assert dashboard["schemaVersion"] >= 36
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["type"] in ("stat", "timeseries")
        assert panel["datasource"]["uid"] == "${datasource}"
    variables = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert variables == ["datasource", "node"]
