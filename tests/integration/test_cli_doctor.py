"""`doctor`: each thing that can be wrong is found, named, and told what to do about."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.client import Client
from proxmox_cpu_affinity.cli.doctor import node as node_checks
from proxmox_cpu_affinity.cli.doctor import service as service_checks
from proxmox_cpu_affinity.cli.doctor.check import Finding, Patient, examined
from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.cli.remedies import Remedies
from proxmox_cpu_affinity.formats import wire
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.sim import hookscript
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running, add_guest

HOOK = "local:snippets/proxmox-cpu-affinity-hook"
CHECKS = [check.name for check in (*node_checks.CHECKS, *service_checks.CHECKS)]


def patient(root: Path) -> Patient:
    return Patient(Tree(root), Client(root / "run/proxmox-cpu-affinity/api.sock", Remedies(root)))


def finding(patient: Patient, name: str) -> Finding:
    every = (*node_checks.CHECKS, *service_checks.CHECKS)
    (found,) = examined(patient, [check for check in every if check.name == name])
    return found


def write(node: Node, vmid: int, text: str) -> None:
    node.path(f"/etc/pve/qemu-server/{vmid}.conf").write_text(text)


@pytest.fixture
def service(sim_node: Node) -> Iterator[Running]:
    hookscript.install(sim_node)
    with Running(sim_node) as running:
        yield running


def test_a_healthy_node_has_no_failure(
    service: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    add_guest(service.node, 100)
    service.node.do("start", 100)
    root = str(service.node.root)
    assert main(["--root", root, "doctor"]) == 0
    said = capsys.readouterr()
    assert max(len(line) for line in said.out.splitlines() if "    -> " not in line) <= 80
    rows = [line for line in said.out.splitlines() if not line.startswith(" ")]
    assert [row.split()[0] for row in rows] == ["Check", *CHECKS]
    assert all(row.split()[1] in ("ok", "warning") for row in rows[1:])
    assert said.err.startswith(f"{len(CHECKS)} checks: ")
    assert said.err.endswith(", 0 failed\n")
    assert main(["--root", root, "doctor", "--json", "-q"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert said.err == ""
    assert [list(entry) for entry in found] == [["check", "status", "text", "advice"]] * len(CHECKS)
    status = {entry["check"]: entry for entry in found}
    assert status["sockets"]["text"] == f"Unix socket and port {service.port} answer"
    assert status["guests"]["text"] == "managed guests that run: 1 of 1 on their CPUs"
    assert status["hook"]["text"] == "on 'local' for VM 100"
    for entry in found:
        assert bool(entry["advice"]) is (entry["status"] != "ok"), entry


def test_without_pve_and_service_two_checks_fail_and_the_others_say_what_they_lack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(tmp_path), "doctor", "--json"]) == 1
    found = {entry["check"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert {name for name, entry in found.items() if entry["status"] == "failed"} == {
        *("pve", "service"),
    }
    assert found["hook"]["text"] == "not known: this is no Proxmox VE node"
    assert found["matrix"]["text"] == "not known: the service is not running"
    assert (found["hook"]["advice"], found["matrix"]["advice"]) == (
        *("see the check: pve", "see the check: service"),
    )


def test_a_configuration_that_cannot_be_read_is_a_failure(sim_node: Node) -> None:
    sim_node.path("/etc/pve/qemu-server/100.conf").mkdir()
    found = finding(patient(sim_node.root), "pve")
    assert (found.status, found.text) == ("failed", "VM 100: configuration cannot be read")


def test_our_hook_is_looked_for_on_every_storage_in_use(sim_node: Node) -> None:
    at = sim_node.root
    assert finding(patient(at), "hook").text.startswith("no guest uses it; /var/lib/vz/snippets/")
    assert finding(patient(at), "hook").status == "warning"
    hookscript.install(sim_node)
    assert finding(patient(at), "hook").text == "no guest uses it; it is ready on 'local'"
    write(sim_node, 100, f"hookscript: {HOOK}\n")
    write(sim_node, 101, f"hookscript: {HOOK.replace('local', 'nfs')}\n")
    found = finding(patient(at), "hook")
    assert (found.status, found.text) == ("failed", "storage 'nfs' does not exist (VM 101)")
    write(sim_node, 101, f"[snap]\nhookscript: {HOOK.replace('local', 'nfs')}\n")
    assert finding(patient(at), "hook").text == "on 'local' for VM 100"
    sim_node.path("/etc/pve/storage.cfg").write_text("dir: local\n\tpath /var/lib/vz\n\tdisable\n")
    found = finding(patient(at), "hook")
    assert (found.status, found.text) == ("warning", "storage 'local' is disabled")
    sim_node.path("/var/lib/vz/snippets/proxmox-cpu-affinity-hook").chmod(0o644)
    found = finding(patient(at), "hook")
    assert found.status == "failed"
    assert "hook is not executable (VM 100)" in found.text
    assert found.advice == "put it there: proxmox-cpu-affinity hookscript install local"


@pytest.mark.parametrize(
    ("volume", "text"),
    [
        ("local:snippets/gone", "VM 100: /var/lib/vz/snippets/gone: No such file or directory"),
        ("local:snippets/plain", "VM 100: /var/lib/vz/snippets/plain is not executable"),
        ("local:snippets/folder", "VM 100: /var/lib/vz/snippets/folder is not a regular file"),
        ("nfs:snippets/x", "VM 100: storage 'nfs' does not exist"),
        ("local:iso/x", "VM 100: 'local:iso/x' is not in the snippets directory"),
    ],
)
def test_anybody_s_missing_hookscript_is_named(sim_node: Node, volume: str, text: str) -> None:
    sim_node.add_snippet("plain", "#!/bin/sh\n", mode=0o644)
    sim_node.path("/var/lib/vz/snippets/folder").mkdir()
    write(sim_node, 100, f"hookscript: {volume}\n")
    write(sim_node, 101, "cores: 1\n")
    found = finding(patient(sim_node.root), "hookscripts")
    assert (found.status, found.text) == ("failed", text)
    assert "qm set VMID --delete hookscript" in found.advice
    write(sim_node, 100, f"hookscript: {sim_node.add_snippet('fine', '')}\n")
    found = finding(patient(sim_node.root), "hookscripts")
    assert (found.status, found.text) == ("ok", "1 guest with one, it can be run")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("cores: 2\n", "warning"),
        ("", "warning"),
        ("lxc.cgroup2.cpuset.cpus: 0-1\n", "ok"),
        ("lxc.cgroup.cpuset.cpus = 0\n", "ok"),
        ("#lxc.cgroup2.cpuset.cpus: 0\n", "warning"),
        ("cores: 1\n\n[snap]\nlxc.cgroup2.cpuset.cpus: 0\n", "warning"),
    ],
)
def test_containers_that_pvestatd_moves(sim_node: Node, text: str, status: str) -> None:
    sim_node.path("/etc/pve/lxc/200.conf").write_text(text)
    found = finding(patient(sim_node.root), "containers")
    assert found.status == status
    if status == "warning":
        assert found.text.startswith("CT 200: pvestatd spreads them over all CPUs")
        assert "lxc.cgroup2.cpuset.cpus: LIST" in found.advice
        sim_node.path("/etc/default/proxmox-cpu-affinity").write_text("PCA_RESERVED_CPUS=0-1\n")
        assert finding(patient(sim_node.root), "containers").advice == (
            "to keep them apart: lxc.cgroup2.cpuset.cpus: 0-1 in their configuration"
        )


def test_isolated_cpus_are_named(tmp_path: Path) -> None:
    for path, text in generate(parse_spec("1x1x4x1+isolated=2-3")).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    found = finding(patient(tmp_path), "isolated")
    assert found.status == "warning"
    # Who may have them: tests/scenarios/dedicated-on-isolated-cpus.
    assert found.text == "CPUs 2-3 are isolated by the kernel: for cpu-dedicated guests only"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("pinning: one-to-one\n", "pinning"),
        ("vcpu-affinity: 0=1\n", "vcpu-affinity"),
        ("vcpupin0: 3\n", "vcpupin0"),
        ("cpuaffinity: 1-2\n", "cpuaffinity"),
        ("cores: 1\n[PENDING]\npinning: numa\n", "pinning"),
    ],
)
def test_keys_that_look_like_native_pinning_are_told(sim_node: Node, text: str, key: str) -> None:
    write(sim_node, 100, text)
    found = finding(patient(sim_node.root), "vcpu-pinning")
    assert found.status == "warning"
    assert found.text.startswith(f"VM 100: {key}: ")


@pytest.mark.parametrize(
    "text",
    ["affinity: 1\n", "#pinning: numa\n", "[snap]\npinning: numa\n", "cpu: host\ncpuunits: 5\n"],
)
def test_keys_that_pin_no_vcpu_are_not(sim_node: Node, text: str) -> None:
    write(sim_node, 100, text)
    assert finding(patient(sim_node.root), "vcpu-pinning").status == "ok"


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        ("", "ok", "understood"),
        ("PCA_STRATEGY=best\n", "failed", "line 1: PCA_STRATEGY='best' must be balanced or"),
        ("nonsense\n", "failed", "line 1: 'nonsense' is not NAME=VALUE"),
        ("PCA_SOCKET_RETRY=3\n", "warning", "PCA_SOCKET_RETRY has no meaning any more"),
        ("PCA_STRATGY=balanced\n", "warning", "unknown setting PCA_STRATGY"),
    ],
)
def test_settings_are_read_as_the_service_would(
    sim_node: Node, text: str, status: str, says: str
) -> None:
    sim_node.path("/etc/default/proxmox-cpu-affinity").write_text(text)
    found = finding(patient(sim_node.root), "settings")
    assert found.status == status
    assert says in found.text
    assert bool(found.advice) is (status != "ok")


def test_sockets_that_others_can_open_are_a_failure(service: Running) -> None:
    at = service.node.root
    service.node.path("/run/proxmox-cpu-affinity/token").chmod(0o644)
    found = finding(patient(at), "sockets")
    assert found.status == "failed"
    assert found.text == "/run/proxmox-cpu-affinity/token can be opened by others than root"
    service.node.path("/run/proxmox-cpu-affinity/token").chmod(0o600)
    port = service.node.path("/run/proxmox-cpu-affinity/port")
    told = port.read_text()
    port.write_text("1\n")
    assert finding(patient(at), "sockets").status == "failed"
    port.unlink()
    assert finding(patient(at), "sockets").status == "warning"
    port.write_text(told)
    assert finding(patient(at), "sockets").status == "ok"


# What the service may say, in place of a service that would have to be brought to say it.

STATUS = wire.Status(
    *("0.1.0", 1.0, "pve", "", 4, "0-3", 1, 1, 1, "balanced", "tag", "exact", "threads"),
    *(1, 1, ""),
    wire.MatrixState("trusted", 1.0, measuring=False, pairs_done=6, pairs_all=6, conditions=[]),
    [],
    committed=50,
)
GUEST = wire.GuestView(
    *(100, "", True, "", "shared", 2, True, 1000, "0-1", "0-1", "full", "threads", 6, [], []),
    width="exact",
)


def told(*, status: wire.Status = STATUS, guest: wire.GuestView = GUEST) -> Patient:
    """A patient whose service said this."""
    made = patient(Path("/nowhere"))
    made.__dict__.update(status=status, guests=[guest])
    return made


def matrix(verdict: str, *conditions: str, measuring: bool = False) -> Patient:
    found = replace(
        STATUS.matrix, verdict=verdict, conditions=list(conditions), measuring=measuring
    )
    return told(status=replace(STATUS, matrix=found))


@pytest.mark.parametrize(
    ("name", "patient", "status", "says"),
    [
        ("matrix", matrix("trusted"), "ok", "measured and trusted, 100 % of the pairs"),
        ("matrix", matrix("predicted", measuring=True), "ok", "being measured: 6 of 6 pairs"),
        ("matrix", matrix("unstable", "host busy"), "warning", "is used (host busy)"),
        ("matrix", matrix("predicted", "nothing measured"), "warning", "not measured; nothing"),
        ("service", told(), "ok", "0.1.0 answers"),
        ("service", told(status=replace(STATUS, version="0.0.9")), "warning", "it is 0.0.9"),
        ("service", told(status=replace(STATUS, warnings=["odd"])), "warning", "odd"),
        ("guests", told(), "ok", "1 of 1 on"),
        ("guests", told(guest=replace(GUEST, outcome="part")), "warning", "held in part only"),
        ("guests", told(guest=replace(GUEST, outcome="failed")), "failed", "VM 100 not held"),
        ("guests", told(guest=replace(GUEST, outcome="", refused="no CPU")), "failed", "no CPU"),
        ("guests", told(guest=replace(GUEST, outcome="pending")), "ok", "1 will be after the"),
        ("overcommit", told(), "ok", "2 vCPUs of placed guests, CPUs 0-3 for guests; no CPU"),
        ("overcommit", told(status=replace(STATUS, overlap="0")), "warning", "share CPU 0"),
        ("width", told(), "ok", "PCA_WIDTH=exact, host committed 50 %: VM 100 on own CPUs"),
        ("width", told(guest=replace(GUEST, width="node")), "ok", "VM 100 in nodes"),
        ("width", told(guest=replace(GUEST, cpus="")), "ok", "no guest is placed"),
    ],
)
def test_what_the_service_says_is_judged(
    name: str, patient: Patient, status: str, says: str
) -> None:
    found = finding(patient, name)
    assert found.status == status
    assert says in found.text
    assert bool(found.advice) is (status != "ok")


def test_what_may_not_be_read_is_not_known_and_not_ok(sim_node: Node) -> None:
    hookscript.install(sim_node)
    write(sim_node, 100, f"hookscript: {HOOK}\n")
    sim_node.path("/etc/pve/qemu-server/101.conf").mkdir()  # even root cannot read it
    sim_node.path("/etc/pve/lxc/200.conf").mkdir()
    seen = patient(sim_node.root)
    for name in ("hook", "hookscripts", "vcpu-pinning"):
        found = finding(seen, name)
        assert found.status == "warning"
        assert found.text.startswith("not known of VM 101; else: ")
    found = finding(seen, "containers")
    assert (found.status, found.text) == (
        "warning",
        "not known of CT 200: configuration cannot be read",
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become nobody")
def test_to_another_user_nothing_is_ok_that_only_root_can_know(
    service: Running,
) -> None:
    root = service.node.root
    add_guest(service.node, 100)
    root.chmod(0o755)
    for file in root.glob("etc/pve/**/*"):
        if file.is_file():
            file.chmod(0o640)
    code = "import sys; from proxmox_cpu_affinity.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "--root", str(root), "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        user=65534,
        group=65534,
        extra_groups=[],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1, done.stderr
    found = {entry["check"]: entry for entry in json.loads(done.stdout)}
    assert {name for name, entry in found.items() if entry["status"] == "ok"} == {
        *("containers", "isolated", "settings"),  # there are none, and files that all may read
    }
    for name in ("matrix", "guests", "overcommit"):
        assert found[name]["text"].startswith("not known: not permitted to talk to the service")
        assert found[name]["advice"] == "run this as root"
    assert str(root) not in found["service"]["text"]


def test_a_service_on_all_addresses_of_ipv6_is_asked_there(sim_node: Node) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("there is no IPv6 here")
    with Running(sim_node, settings="PCA_HOST=::\nPCA_INSECURE_ALLOW_REMOTE=true\n") as service:
        found = finding(patient(sim_node.root), "sockets")
        assert (found.status, found.text) == (
            *("ok", f"Unix socket and port {service.port} answer"),
        )
        assert service.end() == 0


def test_cpus_for_guests_are_named_and_not_counted(service: Running) -> None:
    at = patient(service.node.root)
    at.status = replace(at.status, usable="0", overlap="")
    text = "0 vCPUs of placed guests, CPU 0 for guests; no CPU is shared"
    assert finding(at, "overcommit").text == text


def test_one_is_no_plural(sim_node: Node) -> None:
    hookscript.install(sim_node)
    write(sim_node, 100, f"hookscript: {HOOK}\n")
    assert finding(patient(sim_node.root), "pve").text == "node pve, 1 guest"
    assert finding(patient(sim_node.root), "hookscripts").text == "1 guest with one, it can be run"
    write(sim_node, 101, "cores: 1\n")
    assert finding(patient(sim_node.root), "pve").text == "node pve, 2 guests"
