"""The simulated node's pvesh, pvesm and ha-manager, and the cluster file system's status files."""

import json
import re

import pytest

from proxmox_cpu_affinity.sim.node import Node

from .conftest import Recorder


def test_ha_takes_over_power_commands(sim_node: Node) -> None:
    hook = Recorder(sim_node)
    sim_node.do("create", 100, "--hookscript", hook.volume)
    sim_node.do("create", 1000)
    sim_node.run("ha-manager", "add", "vm:100", "--state", "stopped")
    assert sim_node.run("ha-manager", "config").stdout == "vm:100\n\tstate stopped\n\n"
    assert sim_node.do("start", 1000) == ""  # vm:100 is not vm:1000
    assert sim_node.do("start", 100) == "Requesting HA start for VM 100\n"
    assert sim_node.pid(100) is None
    sim_node.lrm_round()
    assert sim_node.pid(100) is not None
    status = sim_node.run("ha-manager", "status").stdout.splitlines()
    assert status[0] == "quorum OK"
    assert status[-1] == "service vm:100 (pve, started)"
    assert sim_node.do("stop", 100) == "Requesting HA stop for VM 100\n"
    sim_node.lrm_round()
    assert sim_node.pid(100) is None
    assert hook.calls() == [
        f"100 {phase}" for phase in ("pre-start", "post-start", "pre-stop", "post-stop")
    ]
    kept = sim_node.qm("destroy", 100)
    assert (kept.returncode, "used in HA resources" in kept.stdout) == (255, True)
    sim_node.run("ha-manager", "set", "100", "--state", "ignored")
    assert sim_node.do("start", 100) == ""
    sim_node.run("ha-manager", "remove", "vm:100")
    assert sim_node.run("ha-manager", "config").stdout == ""


def test_pvesm(sim_node: Node) -> None:
    volume = sim_node.add_snippet("hook", "#!/bin/sh\n")
    assert sim_node.run("pvesm", "path", volume).stdout == "/var/lib/vz/snippets/hook\n"
    assert sim_node.run("pvesm", "path", "none:snippets/x").returncode == 255
    head, local = sim_node.run("pvesm", "status", "--content", "snippets").stdout.splitlines()
    assert head.split() == ["Name", "Type", "Status", "Total", "Used", "Available", "%"]
    assert local.split()[:3] == ["local", "dir", "active"]
    assert volume in sim_node.run("pvesm", "list", "local").stdout
    assert sim_node.run("pvesm", "set", "local", "--content", "iso,backup").returncode == 0
    assert len(sim_node.run("pvesm", "status", "-content", "snippets").stdout.splitlines()) == 1
    storage = "\ndir: off\n\tpath /srv\n\tcontent snippets\n\tdisable\n\nnfs: away\n\tserver x\n"
    with sim_node.path("/etc/pve/storage.cfg").open("a") as file:
        file.write(storage)
    states = [line.split()[:3] for line in sim_node.run("pvesm", "status").stdout.splitlines()[1:]]
    assert states == [
        ["away", "nfs", "inactive"],
        ["local", "dir", "active"],
        ["off", "dir", "disabled"],
    ]


def get(host: Node, path: str, *words: str) -> object:
    done = host.run("pvesh", "get", path, "--output-format", "json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_pvesh(sim_node: Node) -> None:
    sim_node.do("create", 100, "--cores", 2, "--memory", 64, "--affinity", "1", "--tags", "a;b")
    sim_node.do("create", 101, "--name", "web", "--start")
    found = get(sim_node, "/nodes/localhost/qemu/100/config", "--current", "1")
    assert isinstance(found, dict)
    # As the real one: integers are numbers, property strings and lists are text.
    assert [found[key] for key in ("cores", "memory", "affinity")] == [2, "64", "1"]
    assert re.fullmatch("[0-9a-f]{40}", found["digest"])
    guests = get(sim_node, "/cluster/resources", "--type", "vm")
    assert isinstance(guests, list)
    assert [(entry["id"], entry["name"], entry["status"]) for entry in guests] == [
        ("qemu/100", "VM 100", "stopped"),
        ("qemu/101", "web", "running"),
    ]
    assert guests[0]["tags"] == "a;b"
    assert guests[0]["node"] == "pve"
    listed = get(sim_node, "/nodes/pve/qemu")
    assert isinstance(listed, list)
    assert listed[1]["pid"] == sim_node.pid(101)
    current = get(sim_node, "/nodes/pve/qemu/101/status/current")
    assert isinstance(current, dict)
    assert current["qmpstatus"] == "running"
    everything = get(sim_node, "/cluster/resources")
    assert isinstance(everything, list)
    assert {entry["type"] for entry in everything} == {"qemu", "node", "storage"}


@pytest.mark.parametrize(
    "words",
    [
        ("get", "/nodes/pve/qemu/100/config"),
        ("get", "/nodes/elsewhere/qemu"),
        ("get", "/no/such/path"),
        ("get", "/nodes", "--output-format", "yaml"),
        ("create", "/nodes"),
        (),
    ],
)
def test_pvesh_refuses(sim_node: Node, words: tuple[str, ...]) -> None:
    done = sim_node.run("pvesh", *words)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr


@pytest.mark.parametrize("program", ["pvesm", "ha-manager"])
def test_the_others_refuse_unknown_commands(sim_node: Node, program: str) -> None:
    done = sim_node.run(program, "nonsense")
    assert done.returncode == 255
    assert f"ERROR: unknown command '{program} nonsense'" in done.stderr


def test_status_files_of_the_cluster_file_system(sim_node: Node) -> None:
    def read(name: str) -> dict[str, object]:
        value = json.loads(sim_node.path(f"/etc/pve/{name}").read_text())
        assert isinstance(value, dict)
        return value

    assert "ids" not in read(".vmlist")
    before = read(".version")
    sim_node.do("create", 100)
    assert read(".members")["nodename"] == "pve"
    assert read(".vmlist")["ids"] == {
        "100": {"node": "pve", "type": "qemu", "version": read(".vmlist")["version"]}
    }
    assert read(".version")["vmlist"] != before["vmlist"]
    sim_node.do("destroy", 100)
    assert "ids" not in read(".vmlist")
