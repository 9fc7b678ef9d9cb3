"""`scripts/dummy-guests` on a simulated node: what it makes, what it leaves alone, how it fails."""

import os
import subprocess
from pathlib import Path

import pytest

from proxmox_cpu_affinity.sim import hookscript
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running, cpus_of, masks

PROGRAM = Path(__file__).parents[2] / "scripts/dummy-guests"
CPUS = os.sched_getaffinity(0)
TEMPLATE, CLONES = 9000, range(9001, 9006)
HOOKED, FIXED, BARE = range(9001, 9003), range(9003, 9005), 9005


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The program on the node below a root, whatever its exit status."""
    return subprocess.run(
        [PROGRAM, *words, "--root", root],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def dummies(node: Node, action: str, *words: str) -> str:
    """What the program says, once it is done."""
    done = run(node.root, action, *words)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def configs(node: Node) -> dict[int, str]:
    """Every guest's configuration file."""
    folder = node.path("/etc/pve/qemu-server")
    return {int(file.stem): file.read_text() for file in folder.glob("*.conf")}


def value(node: Node, vmid: int, key: str) -> str | None:
    """A key of a guest's configuration."""
    lines = configs(node)[vmid].splitlines()
    return dict(line.split(": ", 1) for line in lines).get(key)


def mask(node: Node, vmid: int) -> set[int]:
    """The CPUs that all threads of a guest have in common with each other: one set, or it fails."""
    found = {frozenset(cpus) for cpus in masks(node, vmid).values()}
    assert len(found) == 1, masks(node, vmid)
    return set(found.pop())


def right_masks(service: Running) -> None:
    """The hooked guests are confined as the service says, the others are not touched."""
    node = service.node
    for vmid in HOOKED:
        service.confirms(vmid)
        cores = value(node, vmid, "cores")
        assert mask(node, vmid) == cpus_of(str(service.guest(vmid)["cpus"]))
        assert len(mask(node, vmid)) == int(cores or 0)
    for vmid in FIXED:
        assert mask(node, vmid) == cpus_of(value(node, vmid, "affinity") or "")
    assert mask(node, BARE) == CPUS
    assert not any(service.guest(vmid)["managed"] for vmid in (*FIXED, BARE))


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
def test_whole_life_beside_a_foreign_guest(sim_node: Node) -> None:
    hookscript.install(sim_node)
    sim_node.do("create", 9050, "--name", "foreign", "--tags", "dummy-guests", "--memory", 64)
    sim_node.do("start", 9050)
    foreign = (configs(sim_node), sim_node.pid(9050))
    with Running(sim_node) as service:
        dummies(sim_node, "create", "--count", "5")
        assert set(configs(sim_node)) == {TEMPLATE, *CLONES, 9050}
        assert dummies(sim_node, "start").count("threads read back") == len(HOOKED)
        right_masks(service)
        before = [sim_node.pid(vmid) for vmid in CLONES]
        assert all(before)

        dummies(sim_node, "reboot")
        after = [sim_node.pid(vmid) for vmid in CLONES]
        assert all(after)
        assert not set(after) & set(before)
        right_masks(service)

        dummies(sim_node, "destroy")
        assert (configs(sim_node), sim_node.pid(9050)) == foreign
        assert mask(sim_node, 9050) == CPUS
        assert not service.get("/api/v1/core-vm-affinity").json


def test_create_makes_what_is_wanted(sim_node: Node) -> None:
    hook = hookscript.install(sim_node)
    dummies(sim_node, "create", "--count", "7", "--first", "200")
    clones = range(201, 208)
    assert value(sim_node, 200, "template") == "1"
    assert {value(sim_node, vmid, "template") for vmid in clones} == {None}
    assert {value(sim_node, vmid, "tags") for vmid in (200, *clones)} == {"dummy-guest"}
    sizes = [value(sim_node, vmid, "cores") for vmid in clones]
    assert sizes == [str(min(size, len(CPUS))) for size in (1, 2, 4, 1, 2, 4, 1)]
    assert [value(sim_node, vmid, "hookscript") for vmid in clones] == [hook] * 6 + [None]
    fixed = [vmid for vmid in clones if value(sim_node, vmid, "affinity")]
    assert fixed == [205, 206]
    shown = dummies(sim_node, "status", "--first", "200").splitlines()
    assert [line.split()[0] for line in shown] == ["VMID", *map(str, range(200, 208))]


def test_create_again_completes_what_was_interrupted(sim_node: Node) -> None:
    hookscript.install(sim_node)
    sim_node.do("create", TEMPLATE, "--tags", "dummy-guest", "--memory", 32)
    dummies(sim_node, "create", "--count", "4")
    whole = configs(sim_node)
    assert set(whole) == {TEMPLATE, 9001, 9002, 9003, 9004}
    sim_node.do("set", 9001, "--delete", "hookscript")
    sim_node.do("destroy", 9003)
    dummies(sim_node, "create", "--count", "4")
    assert value(sim_node, 9003, "affinity") is not None
    assert configs(sim_node) == {**whole, 9003: configs(sim_node)[9003]}


@pytest.mark.parametrize("vmid", [TEMPLATE, 9003])
def test_vmid_of_a_foreign_guest_is_refused(sim_node: Node, vmid: int) -> None:
    hookscript.install(sim_node)
    sim_node.do("create", vmid, "--memory", 64)
    before = configs(sim_node)
    done = run(sim_node.root, "create")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"dummy-guests: VM {vmid} exists and is no dummy guest\n"
    for action in ("start", "reboot", "stop", "destroy"):
        assert dummies(sim_node, action) == ""
    assert configs(sim_node) == before


def test_dry_run_changes_nothing(sim_node: Node) -> None:
    assert dummies(sim_node, "create", "--dry-run").count("qm clone 9000 90") == 6
    assert configs(sim_node) == {}
    hookscript.install(sim_node)
    dummies(sim_node, "create", "--count", "4")
    before = configs(sim_node)
    for action, count in (("start", 4), ("destroy", 5)):
        assert dummies(sim_node, action, "--dry-run").count(f"qm {action} 900") == count
    assert configs(sim_node) == before
    assert not any(sim_node.pid(vmid) for vmid in before)


def test_failure_is_one_line_and_the_exit_status(sim_node: Node) -> None:
    done = run(sim_node.root, "create")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "qm set 9001" in done.stderr
    assert "hookscript" in done.stderr
    dummies(sim_node, "destroy")
    assert configs(sim_node) == {}


def test_guest_that_fails_keeps_no_other_from_it(sim_node: Node) -> None:
    hookscript.install(sim_node)
    dummies(sim_node, "create", "--count", "4")
    sim_node.do("set", 9002, "--lock", "backup")
    done = run(sim_node.root, "start")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "VM is locked (backup)" in done.stderr
    running = [sim_node.pid(vmid) is not None for vmid in range(9001, 9005)]
    assert running == [True, False, True, True]
    assert dummies(sim_node, "stop").count("qm stop") == 3
    assert not any(sim_node.pid(vmid) for vmid in configs(sim_node))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["dance"],
        ["start", "stop"],
        ["create", "--count"],
        ["create", "--count", "3"],
        ["create", "--count", "100"],
        ["create", "--count", "010"],
        ["create", "--first", "99"],
        ["create", "--first", "-1"],
        ["create", "--firs", "9000"],
    ],
)
def test_wrong_usage_is_told(tmp_path: Path, words: list[str]) -> None:
    done = run(tmp_path, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: dummy-guests" in done.stderr


def test_node_that_is_none_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, "create")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert list(tmp_path.iterdir()) == []
