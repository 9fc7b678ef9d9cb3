"""`hookscript enable` and `disable` of guests that run: the service is told at once, and what
became of them is said and true; a service that is down is said, and fails nothing."""

import json
import os
from collections.abc import Iterator, Mapping

import pytest

from proxmox_cpu_affinity.cli.client import Client
from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.cli.poke import Became, poke
from proxmox_cpu_affinity.cli.switch import Change, Did
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import GuestNotFoundError
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.sim import hookscript
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind
from tests.integration.conftest import make_node
from tests.integration.running import Running, add_guest, masks

OURS = "local:snippets/proxmox-cpu-affinity-hook"
ALL = os.sched_getaffinity(0)


class World:
    """A node with its service, and `hookscript`."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.node = running.node

    def held(self, vmid: int) -> set[int]:
        """The CPUs of all threads together, by the kernel."""
        return set().union(*masks(self.node, vmid).values())


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """One service for all; its next scan is 30 s away, so what happens at once was asked for."""
    for node in make_node(GuestKind.STANDIN):
        hookscript.install(node)
        with Running(node) as running:
            yield World(running)
            assert running.end() == 0


def said(node: Node, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> list[str]:
    """What the command says on stdout; nothing on stderr."""
    assert main(["--root", str(node.root), "hookscript", *words]) == status
    out, err = capsys.readouterr()
    assert err == ""
    return str(out).splitlines()


def threads(node: Node, vmid: int) -> int:
    return len(masks(node, vmid))


def test_enable_takes_a_running_guest_up_and_disable_lets_it_go(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    node = world.node
    add_guest(node, 100, hook=False)
    node.do("start", 100)
    assert world.held(100) == ALL
    first, second = said(node, capsys, "enable", "100")
    assert first == f"VM 100: hookscript enabled ({OURS})"
    (cpu,) = world.held(100)
    assert second.startswith(f"VM 100: runs on CPU {cpu} (")
    assert second.endswith(f": {threads(node, 100)} threads read back")
    assert said(node, capsys, "enable", "100") == ["VM 100: already enabled, nothing to do"]
    assert said(node, capsys, "disable", "100") == [
        "VM 100: hookscript disabled",
        f"VM 100: let go, {threads(node, 100)} threads read back",
    ]
    assert world.held(100) == ALL
    assert world.running.guest(100)["cpus"] == ""


def test_a_dry_run_pokes_nobody(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    node = world.node
    add_guest(node, 110)
    node.do("start", 110)
    held = world.held(110)
    assert len(said(node, capsys, "disable", "110", "--dry-run")) == 1
    assert world.held(110) == held


def test_a_guest_managed_by_its_tag_stays_where_it_is(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    node = world.node
    add_guest(node, 120, options={"tags": "cpu-affinity"})
    node.do("start", 120)
    (cpu,) = world.held(120)
    for word, by in (("disable", "its tag cpu-affinity"), ("enable", "its hookscript")):
        assert said(node, capsys, word, "120")[1] == f"VM 120: stays on CPU {cpu}, managed by {by}"
        assert world.held(120) == {cpu}


def test_a_guest_that_is_let_go_by_hand_is_taken_up_again(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    node = world.node
    add_guest(node, 130)
    node.do("start", 130)
    world.running.post("/api/v1/guests/130/reassign", {"undo": True})
    assert world.held(130) == ALL
    assert said(node, capsys, "disable", "130")[1].startswith("VM 130: on no CPUs of ours: ")
    assert said(node, capsys, "enable", "130")[1].startswith("VM 130: runs on CPU ")
    assert len(world.held(130)) == 1


def test_a_guest_with_the_tag_off_is_left_alone_with_the_reason(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    node = world.node
    add_guest(node, 140, hook=False, options={"tags": "cpu-affinity-off"})
    node.do("start", 140)
    assert said(node, capsys, "enable", "140")[1] == (
        "VM 140: on no CPUs of ours: it has the tag cpu-affinity-off"
    )
    assert world.held(140) == ALL


def test_all_are_told_of_and_json_says_the_same(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    node = world.node
    for vmid in (150, 151, 152):
        add_guest(node, vmid, hook=False)
    for vmid in (150, 151):
        node.do("start", vmid)
    told = {
        entry["vmid"]: entry
        for entry in json.loads("\n".join(said(node, capsys, "enable-all", "--json")))
    }
    assert list(told[150]) == ["vmid", "status", "notes", "running"]
    for vmid in (150, 151):
        (cpu,) = world.held(vmid)
        assert told[vmid]["running"].startswith(f"runs on CPU {cpu} (")
    assert told[152]["running"] == ""
    lines = said(node, capsys, "disable-all")
    for vmid in (150, 151):
        assert f"VM {vmid}: let go, {threads(node, vmid)} threads read back" in lines
        assert world.held(vmid) == ALL
    assert "VM 152: hookscript disabled" in lines


@pytest.mark.parametrize("words", [("enable", "100"), ("disable", "101"), ("disable-all",)])
def test_a_service_that_is_down_is_said_once_and_fails_nothing(
    sim_node: Node, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    add_guest(sim_node, 100, hook=False)
    for vmid in (101, 102):
        add_guest(sim_node, vmid)
    for vmid in (100, 101, 102):
        sim_node.do("start", vmid)
    assert main(["--root", str(sim_node.root), "hookscript", *words]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    named = {"100": "VM 100", "101": "VM 101"}.get(words[-1], "VMs 101, 102")
    start = f"proxmox-cpu-affinity-service --root {sim_node.root} --port 0 &"
    assert line == (
        f"{named}: as before until the service looks: the service is not running"
        f" (start it with: {start})"
    )


def test_what_the_service_refuses_for_one_guest_keeps_no_other_from_it(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    node = world.node
    for vmid in (160, 161):
        add_guest(node, vmid, hook=False)
        node.do("start", vmid)

    class Refusing(Client):
        """As if 160 had left the node since it was switched."""

        def get(
            self, name: str, *, vmid: int | None = None, query: Mapping[str, str] | None = None
        ) -> object:
            if vmid == 160:
                raise GuestNotFoundError("there is no guest 160 on this node")
            return Client.get(self, name, vmid=vmid, query=query)

    changes = [Change(Vmid(vmid), Did.ENABLED, "") for vmid in (160, 161)]
    for vmid in (160, 161):
        node.do("set", vmid, "--hookscript", OURS)
    poked = poke(Tree(node.root), Refusing(world.running.socket), changes)
    assert poked.trouble == ""
    assert poked.became[Vmid(160)] == Became("there is no guest 160 on this node", bad=True)
    assert poked.became[Vmid(161)].text.startswith("runs on CPU ")


def test_of_a_guest_that_does_not_run_nothing_is_said(
    sim_node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    add_guest(sim_node, 100)
    for word in ("disable", "enable"):
        assert len(said(sim_node, capsys, word, "100")) == 1


def test_a_guest_that_cannot_be_placed_is_a_part_of_the_work(
    sim_node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    hookscript.install(sim_node)
    add_guest(sim_node, 100, hook=False)
    sim_node.do("start", 100)
    everything = f"PCA_RESERVED_CPUS=0-{os.cpu_count() or 1}\n"
    with Running(sim_node, settings=everything) as running:
        first, second = said(sim_node, capsys, "enable", "100", status=3)
        assert first == f"VM 100: hookscript enabled ({OURS})"
        assert second == f"VM 100: {running.guest(100)['refused']}"
        assert running.end() == 0
