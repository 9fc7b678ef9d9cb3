"""/etc/pve is empty, or does not answer, while guests run: they are shown, kept, and can be let go.

pmxcfs unmounts /etc/pve when it ends, and gives an error for everything when it was killed.
"""

import os
from collections.abc import Iterator

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running, add_guest, masks

CPUS = set(os.sched_getaffinity(0))
SAID = "guests stay, and are shown, as they were: "
MISSING = "/etc/pve is missing or not mounted"
UNREAD = "its configuration cannot be read: this was known before"


@pytest.fixture
def service(sim_node: Node) -> Iterator[Running]:
    """Guest 100 runs and is placed, guest 101 does not run, 102 runs and is not ours."""
    for vmid in (100, 101, 102):
        add_guest(sim_node, vmid, hook=vmid != 102)
    for vmid in (100, 102):
        sim_node.do("start", vmid)
    with Running(sim_node) as running:
        running.confirms(100)
        yield running
        _back(sim_node)


def _away(node: Node) -> None:
    pve = node.path("/etc/pve")
    pve.rename(pve.with_name("pve.away"))
    pve.mkdir()


def _back(node: Node) -> None:
    pve = node.path("/etc/pve")
    away = pve.with_name("pve.away")
    if away.exists():
        pve.rmdir()
        away.rename(pve)


def shown(service: Running) -> dict[object, dict[str, object]]:
    return {guest["vmid"]: guest for guest in service.get("/api/v1/guests").list}


def warnings(service: Running) -> list[str]:
    found = service.get("/api/v1/status").json["warnings"]
    assert isinstance(found, list)
    return found


def test_placed_guests_are_shown_with_a_sentence_while_pve_is_away(service: Running) -> None:
    """Once the API gave an error, and the page said that there are no guests."""
    before = shown(service)
    assert before[100]["warnings"] == []
    assert warnings(service) == []
    _away(service.node)
    now = shown(service)
    assert {v: (g["running"], g["cpus"], g["pid"]) for v, g in now.items() if v != 101} == {
        v: (g["running"], g["cpus"], g["pid"]) for v, g in before.items() if v != 101
    }
    assert now[100]["managed_by"] == "hook"
    assert all(guest["warnings"] == [UNREAD] for v, guest in now.items() if v in before)
    assert service.guest(100) == now[100]
    (said,) = warnings(service)
    assert said.startswith(SAID + MISSING)
    page = service.get("/", tcp=True).body.decode()
    assert MISSING in page
    assert "No guest of this node is known." not in page
    _back(service.node)
    assert shown(service)[100] == before[100]
    assert warnings(service) == []


def test_a_service_that_starts_without_pve_shows_what_it_kept_and_who_runs(
    service: Running,
) -> None:
    cpus = service.guest(100)["cpus"]
    service.kill()
    _away(service.node)
    service.start()
    service.says(MISSING)
    now = shown(service)
    assert set(now) == {100, 102}
    assert (now[100]["cpus"], now[100]["managed"], now[100]["vcpus"]) == (cpus, True, 1)
    assert (now[102]["managed"], now[102]["reason"]) == (False, "its configuration cannot be read")
    assert now[102]["running"]


def test_a_guest_is_let_go_without_its_configuration(service: Running) -> None:
    """Once that was refused: "this is no Proxmox VE node"."""
    _away(service.node)
    row = service.post("/api/v1/guests/100/reassign", {"undo": True})
    assert row["status"] == "success"
    assert set.union(*masks(service.node, 100).values()) == CPUS
    answer = service.ask("POST", "/api/v1/guests/100/reassign", {})
    assert answer.json["code"] == "not-a-pve-host"


def test_all_guests_are_let_go_by_command_too(
    service: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    _away(service.node)
    capsys.readouterr()
    root = str(service.node.root)
    assert main(["--root", root, "reassign", "--all", "--undo"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["100", "success"]
    assert set.union(*masks(service.node, 100).values()) == CPUS
    assert main(["--root", root, "reassign", "--all"]) == 1
    assert MISSING in capsys.readouterr().err


def test_a_folder_that_cannot_be_listed_is_no_node_without_guests(service: Running) -> None:
    """Once nothing was said, and all that was known of stopped guests was forgotten."""
    folder = service.node.path("/etc/pve/nodes/pve/qemu-server")
    away = folder.with_name("away")
    folder.rename(away)
    folder.write_text("")  # for root may read whatever a mode forbids
    assert set(shown(service)) == {100, 101, 102}
    (said,) = warnings(service)
    assert said == f"{SAID}/etc/pve/nodes/pve/qemu-server cannot be read: Not a directory"
    folder.unlink()
    away.rename(folder)


def test_one_file_that_cannot_be_read_hides_no_placed_guest(service: Running) -> None:
    """Once it was left out of the list in silence."""
    file = service.node.path("/etc/pve/qemu-server/100.conf")
    text = file.read_text()
    file.unlink()
    file.mkdir()
    assert shown(service)[100]["warnings"] == [UNREAD]
    assert service.guest(100)["cpus"] == shown(service)[100]["cpus"]
    file.rmdir()
    file.write_text(text)


def test_ps_shows_who_runs_while_pve_is_away(
    service: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once it ended: "this is no Proxmox VE node"."""
    _away(service.node)
    capsys.readouterr()
    assert main(["--root", str(service.node.root), "ps"]) == 0
    said = capsys.readouterr()
    rows = [line.split() for line in said.out.splitlines()[1:]]
    assert [(row[0], row[2], row[5], row[7]) for row in rows] == [
        (vmid, "-", "-", "-") for vmid in ("100", "102")
    ]
    assert f"VM 100: its configuration cannot be read: {MISSING}" in said.err
