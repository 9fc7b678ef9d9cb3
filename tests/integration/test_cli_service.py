"""`status` and `reassign` against a real service on a simulated node."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.sim import hookscript
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running, add_guest, masks

SETTINGS = "PCA_STRATEGY=balanced\n"


class World:
    """A node, its service, and the command line."""

    def __init__(self, running: Running, capsys: pytest.CaptureFixture[str]) -> None:
        self.running = running
        self.node = running.node
        self._capsys = capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        status = main(["--root", str(self.node.root), *words])
        return status, *self._capsys.readouterr()

    def result(self, *words: str) -> str:
        status, out, err = self.run(*words)
        assert (status, err) == (0, ""), err
        return out

    def rows(self, *words: str) -> list[list[str]]:
        return [re.split("  +", line) for line in self.result(*words).splitlines()]


@pytest.fixture
def world(sim_node: Node, capsys: pytest.CaptureFixture[str]) -> Iterator[World]:
    hookscript.install(sim_node)
    with Running(sim_node, "--stdout", settings=SETTINGS) as running:
        yield World(running, capsys)
        assert running.end() == 0


def api(world: World, path: str) -> object:
    return json.loads(world.running.get(f"/api/v1/{path}").body)


def test_status_begins_with_the_inherited_line_and_goes_on_in_words(world: World) -> None:
    first, *rest = world.result("status").splitlines()
    assert first == "Service is running (pong received)"
    said = dict(re.split(": +", line, maxsplit=1) for line in rest)
    assert said["Strategy"] == "balanced, width exact"
    assert said["Guests"].startswith("0 placed and running")
    assert said["Node"] == world.node.name
    assert "PCA_MANAGE=tag" in said["Manages"]
    whole = json.loads(world.result("status", "--json"))
    assert whole["strategy"] == "balanced"
    assert next(iter(whole)) == "version"


def test_ping(world: World) -> None:
    assert world.result("status", "ping") == "pong\n"
    assert world.result("status", "ping", "--json") == '"pong"\n'
    assert world.result("status", "--json", "ping") == '"pong"\n'


def test_core_ranking(world: World) -> None:
    found = json.loads(world.result("status", "core-ranking", "--json"))
    assert [list(entry) for entry in found] == [["cpu", "ranking"]] * len(found)
    for entry in found:
        nearest = [other["latency_ns"] for other in entry["ranking"]]
        assert nearest == sorted(nearest)
        assert [list(o)[:4] for o in entry["ranking"]] == [
            ["cpu", "socket", "core", "latency_ns"]
        ] * (len(found) - 1)
    rows = world.rows("status", "core-ranking")
    assert rows[0] == ["Source", "Neighbor", "Socket", "Core", "Latency (ns)"]
    assert len(rows) == 1 + len(found) * (len(found) - 1)
    assert all(re.fullmatch(r"\d+\.\d\d", row[4]) for row in rows[1:])


def test_core_ranking_summary(world: World) -> None:
    found = json.loads(world.result("status", "core-ranking-summary", "--json"))
    assert list(found)[:6] == [
        *("cpu_count", "socket_count", "min_latency_ns", "max_latency_ns"),
        *("median_latency_ns", "mean_latency_ns"),
    ]
    lines = world.result("status", "core-ranking-summary").splitlines()
    names = [line.partition(":")[0] for line in lines]
    assert names[:4] == ["CPU Count", "Socket Count", "Min (Best)", "Max (Worst)"]
    assert lines[0].split()[-1] == str(found["cpu_count"])


def test_core_vm_affinity_is_what_the_guests_have(world: World) -> None:
    assert world.result("status", "core-vm-affinity") == "VMID  Selected CPUs\n"
    assert json.loads(world.result("status", "core-vm-affinity", "--json")) == {}
    for vmid in (20001, 100):
        add_guest(world.node, vmid)
        world.node.do("start", vmid)
    found = json.loads(world.result("status", "core-vm-affinity", "--json"))
    assert set(found) == {"100", "20001"}
    rows = world.rows("status", "core-vm-affinity")
    assert rows[0] == ["VMID", "Selected CPUs"]
    assert [row[0] for row in rows[1:]] == ["100", "20001"]
    for vmid, cpus in found.items():
        assert [vmid, ",".join(map(str, cpus))] in rows
        assert all(mask == set(cpus) for mask in masks(world.node, int(vmid)).values())
    assert "Guests:          2 placed and running, 2 on their CPUs" in world.result("status")


def test_svg_goes_to_stdout_or_into_a_file(world: World, tmp_path: Path) -> None:
    add_guest(world.node, 100)
    world.node.do("start", 100)
    picture = world.result("status", "svg")
    assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    file = tmp_path / "picture.svg"
    for words in (("-o", str(file)), ("--output", str(file))):
        assert world.run("status", "svg", *words) == (0, "", f"written to {file}\n")
        assert file.read_text() == picture
    marked = world.result("status", "svg", "--affinity")
    assert ElementTree.fromstring(marked) is not None
    assert "100" in marked
    assert marked != picture
    status, out, err = world.run("status", "svg", "-o", str(tmp_path / "none" / "x.svg"))
    assert (status, out) == (2, "")
    assert "No such file" in err


def test_socket_names_another_service_before_and_behind_the_command(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    socket = str(world.running.socket)
    for words in (["--socket", socket, "ping"], ["ping", "--socket", socket]):
        assert main(["--root", str(tmp_path), "status", *words]) == 0
        assert capsys.readouterr() == ("pong\n", "")
    assert main(["--root", str(world.node.root), "status", "--socket", "/nowhere"]) == 1
    assert capsys.readouterr().err.startswith("Error: the service is not running\n")


COLUMNS = ["VMID", "Status", "Notes", "CPUs", "Changed"]
NOT_OURS = "proxmox-cpu-affinity hook not enabled"


def test_reassign_places_and_undo_lets_go(world: World) -> None:
    node = world.node
    add_guest(node, 100)
    before = os.sched_getaffinity(0)
    node.do("start", 100)
    (cpu,) = next(iter(masks(node, 100).values()))
    assert world.rows("reassign", "100") == [COLUMNS, ["100", "success", str(cpu), "no"]]
    assert all(mask == {cpu} for mask in masks(node, 100).values())
    undone = ["100", "success", "let go until its next start", "-", f"from {cpu}"]
    assert world.rows("reassign", "100", "--undo")[1] == undone
    assert all(mask == before for mask in masks(node, 100).values())
    (row,) = json.loads(world.result("reassign", "100", "--json"))
    assert list(row)[:3] == ["vmid", "status", "notes"]
    (now,) = next(iter(masks(node, 100).values()))
    assert (row["cpus"], row["before"], row["changed"]) == (str(now), "", True)
    assert row["told"].startswith(f"runs on CPU {now} (")
    assert all(len(mask) == 1 for mask in masks(node, 100).values())


def test_reassign_all_names_every_running_guest(world: World) -> None:
    node = world.node
    add_guest(node, 100)
    add_guest(node, 101, hook=False)
    add_guest(node, 102, hook=False, options={"affinity": "0"})
    add_guest(node, 103)
    add_guest(node, 104, hook=False, options={"tags": "cpu-affinity"})
    for vmid in (100, 101, 102, 104):
        node.do("start", vmid)
    free = masks(node, 101)
    world.running.post("/api/v1/guests/104/reassign")
    cpus = {vmid: str(world.running.guest(vmid)["cpus"]) for vmid in (100, 104)}
    left = [
        ["101", "skipped", NOT_OURS, "-", "-"],
        ["102", "skipped", "`affinity:` is set in its configuration", "-", "-"],
    ]
    dry = world.rows("reassign", "--all", "--dry-run")
    assert dry == [
        COLUMNS,
        ["100", "dry-run", "would reassign", cpus[100], "-"],
        *left,
        ["104", "dry-run", "would reassign", cpus[104], "-"],
    ]
    done = world.rows("reassign", "--all")
    assert [done[0], *done[2:4]] == [COLUMNS, *left]
    assert [row[:2] for row in done[1:]] == [
        *(["100", "success"], ["101", "skipped"], ["102", "skipped"], ["104", "success"]),
    ]
    assert masks(node, 101) == free
    undone = world.rows("reassign", "--all", "--undo")
    assert [row[:2] for row in undone[1:]] == [row[:2] for row in done[1:]]


def test_a_guest_managed_by_tag_or_like_all_is_managed(world: World) -> None:
    """The inherited note is for those that nothing chooses."""
    node = world.node
    add_guest(node, 100, hook=False, options={"tags": "cpu-affinity"})
    add_guest(node, 101, hook=False)
    for vmid in (100, 101):
        node.do("start", vmid)
    for dry, status in ((["--dry-run"], "dry-run"), ([], "success")):
        assert world.rows("reassign", "100", *dry)[1][1] == status
        assert world.rows("reassign", "101", *dry)[1][1:3] == ["skipped", NOT_OURS]
    settings = node.path("/etc/default/proxmox-cpu-affinity")
    settings.write_text("PCA_MANAGE=all\n")
    world.running.process.send_signal(signal.SIGHUP)
    world.running.wait_for(lambda: api_of(world, 101)["managed"])
    assert world.rows("reassign", "101")[1][1] == "success"
    assert api_of(world, 101)["managed_by"] == "all"
    settings.write_text("PCA_MANAGE=hook\n")
    world.running.process.send_signal(signal.SIGHUP)
    world.running.wait_for(lambda: not api_of(world, 100)["managed"])
    for dry in (["--dry-run"], []):
        assert world.rows("reassign", "100", *dry)[1][1:3] == ["skipped", NOT_OURS]


def api_of(world: World, vmid: int) -> dict[str, object]:
    return world.running.guest(vmid)


def test_a_running_guest_without_a_place_is_a_failure(world: World) -> None:
    node = world.node
    add_guest(node, 100)
    node.do("start", 100)
    online = f"0-{os.cpu_count() or 1}"
    node.path("/etc/default/proxmox-cpu-affinity").write_text(f"PCA_RESERVED_CPUS={online}\n")
    world.running.process.send_signal(signal.SIGHUP)
    world.running.wait_for(lambda: world.running.guest(100)["refused"])
    status, out, _ = world.run("reassign", "100", "--json")
    (row,) = json.loads(out)
    assert (status, row["status"]) == (1, "failed")
    assert row["notes"] == world.running.guest(100)["refused"]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_reassign_skips_what_is_not_ours_or_not_running(world: World, dry: list[str]) -> None:
    add_guest(world.node, 100)
    add_guest(world.node, 101, hook=False)
    world.node.do("start", 101)
    stopped = ["100", "skipped", "VM is not running", "-", "-"]
    assert world.rows("reassign", "100", *dry)[1] == stopped
    assert world.rows("reassign", "101", *dry)[1] == ["101", "skipped", NOT_OURS, "-", "-"]
    status, out, err = world.run("reassign", "999", *dry)
    assert (status, out) == (1, "")
    assert err.startswith("Error: there is no guest 999")
    nothing = ["100", "skipped", "nothing to undo", "-", "-"]
    assert world.rows("reassign", "--undo", "100", *dry)[1] == nothing


def test_a_dry_run_changes_nothing(world: World) -> None:
    add_guest(world.node, 100)
    world.node.do("start", 100)
    world.rows("reassign", "--undo", "100")
    before = (masks(world.node, 100), api(world, "decisions"))
    would = ["100", "dry-run", "would reassign", "-", "-"]
    assert world.rows("reassign", "100", "--dry-run")[1] == would
    assert (masks(world.node, 100), api(world, "decisions")) == before


@pytest.mark.parametrize("words", [[], ["100", "--all"], ["--json"], ["--undo"]])
def test_reassign_takes_either_a_vmid_or_all(
    words: list[str], sim_node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(sim_node.root), "reassign", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Error: give either a VMID or --all")


@pytest.mark.parametrize(
    "words", [["status"], ["status", "ping"], ["status", "core-ranking"], ["reassign", "100"]]
)
def test_a_service_that_is_down_is_a_message_a_hint_and_status_1(
    words: list[str], sim_node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(sim_node.root), *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    start = f"proxmox-cpu-affinity-service --root {sim_node.root} --port 0 &"
    assert said.err == f"Error: the service is not running\nHint: start it with: {start}\n"


def test_reassign_outside_of_a_pve_node(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--root", str(tmp_path), "reassign", "100"]) == 1
    assert capsys.readouterr().err.startswith("Error: /etc/pve is missing")
