"""What a naive tool gets wrong about Proxmox VE, one test each: those mistakes are not made here.

The numbers are those of the list that the project began with.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.formats import pveconf
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.pve.guests import NodeGuests
from proxmox_cpu_affinity.sim import hookscript, processes, qmp
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind, PostStop
from tests.integration.conftest import make_node
from tests.integration.running import Running, add_guest, masks

HOOK = "local:snippets/proxmox-cpu-affinity-hook"
CPUS = sorted(os.sched_getaffinity(0))
TAGGED = {"tags": "cpu-affinity"}

# Threads that all have their process's name, as QEMU's have where debug-threads is off.
NAMELESS = """
import sys, threading
for _ in range(3):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    """One for all tests, each of which has guests of its own: a start costs more than most."""
    for node in make_node(GuestKind.STANDIN):
        hookscript.install(node)
        with Running(node) as running:
            yield running


@pytest.fixture
def guests(sim_node: Node) -> NodeGuests:
    return NodeGuests(Tree(sim_node.root))


def conf(node: Node, vmid: int) -> Path:
    return node.path(f"/etc/pve/qemu-server/{vmid}.conf")


def pve_files(node: Node) -> dict[str, bytes]:
    """All that lies below /etc/pve."""
    root = node.path("/etc/pve")
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@contextlib.contextmanager
def nameless_guest(node: Node, vmid: int) -> Iterator[int]:
    pidfile = node.path(f"/run/qemu-server/{vmid}.pid")
    with subprocess.Popen(
        ["/usr/bin/kvm", "-c", NAMELESS, "-pidfile", str(pidfile)],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pidfile.write_text(f"{process.pid}\n")
        yield process.pid
        pidfile.unlink()


def test_1_keys_of_other_sections_and_of_descriptions_are_not_the_guest_s(
    service: Running,
) -> None:
    ours = f"hookscript: {HOOK}\ntemplate: 1\naffinity: 0\ncores: 64\n"
    comment = "".join(f"#{line}\n" for line in ours.splitlines())
    others = "".join(f"\n{name}\n{ours}" for name in ("[PENDING]", "[special:cloudinit]", "[snap]"))
    conf(service.node, 101).write_text(f"{comment}cores: 1\n{others}")
    found = service.guest(101)
    assert (found["managed"], found["reason_code"], found["vcpus"]) == (False, "not chosen", 1)


def test_2_what_qm_config_shows_is_not_what_runs(service: Running) -> None:
    add_guest(service.node, 102)
    service.node.do("start", 102)
    service.node.do("set", 102, "--sockets", 2)  # pending until its next start
    assert "sockets: 2" in service.node.do("config", 102)
    assert service.guest(102)["vcpus"] == 1


@pytest.mark.parametrize(
    "text",
    ["cores: 2\n", "smp: 2\n", "sockets: 2\ncores: 2\nvcpus: 2\n", "cores: 2\ncpulimit: 1\n"],
)
def test_3_the_count_of_vcpus_is_that_of_the_threads(
    guests: NodeGuests, sim_node: Node, text: str
) -> None:
    if len(CPUS) < 4:  # PVE starts no guest of more vCPUs than the node has CPUs
        (sim_node.path("/sys")).unlink()
        online = sim_node.path("/sys/devices/system/cpu/online")
        online.parent.mkdir(parents=True)
        online.write_text("0-3\n")
    conf(sim_node, 100).write_text(text)
    sim_node.do("start", 100)
    threads = [name for name in masks(sim_node, 100) if " CPU " in name]
    assert len(threads) == guests.config(Vmid(100)).vcpu_count == 2


def test_4_threads_without_telling_names_are_confined_too(service: Running) -> None:
    node = service.node
    conf(node, 104).write_text(f"cores: 1\nhookscript: {HOOK}\n")
    with nameless_guest(node, 104) as pid:
        service.post("/api/v1/guests/104/post-start")
        cpu = int(str(service.guest(104)["cpus"]))
        tids = os.listdir(f"/proc/{pid}/task")
        assert len(tids) == 4
        assert all(os.sched_getaffinity(int(tid)) == {cpu} for tid in tids)
    service.post("/api/v1/guests/104/post-stop")


def test_5_guest_100_is_not_guest_1000(guests: NodeGuests, sim_node: Node) -> None:
    sim_node.do("create", 1000, "--name", "vm-id-100")
    sim_node.do("create", 100)
    sim_node.do("start", 1000)
    assert guests.process(Vmid(100)) is None
    assert list(guests.processes()) == [1000]
    sim_node.do("start", 100)
    both = guests.processes()
    assert {vmid: process.pid for vmid, process in both.items()} == {
        vmid: sim_node.pid(vmid) for vmid in (100, 1000)
    }


def test_6_a_pidfile_that_was_left_behind_is_no_running_guest(service: Running) -> None:
    node = service.node
    add_guest(node, 106)
    node.do("start", 106)
    pid = node.pid(106)
    assert pid is not None
    left = node.path("/run/qemu-server/106.pid").read_bytes()
    os.kill(pid, signal.SIGKILL)
    service.wait_for(lambda: service.guest(106)["running"] is False)
    node.path("/run/qemu-server/106.pid").write_bytes(left)
    assert service.guest(106)["running"] is False
    assert service.guest(106)["cpus"] == ""


def test_7_a_start_and_a_stop_without_any_hook_are_noticed(service: Running) -> None:
    node = service.node
    add_guest(node, 107, hook=False, options=TAGGED)
    node.do("start", 107)
    service.post("/api/v1/guests/107/reassign")
    service.confirms(107)
    pid = node.pid(107)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    service.wait_for(lambda: service.guest(107)["cpus"] == "")


def test_7_a_start_that_was_announced_and_failed_holds_no_guest_up(service: Running) -> None:
    add_guest(service.node, 170)
    service.post("/api/v1/guests/170/pre-start")  # no more is heard of this start
    assert service.guest(170)["outcome"] == "reserved"
    service.node.do("start", 170)
    assert service.guest(170)["outcome"] == "full"


def test_8_a_guest_starts_while_the_service_is_down(sim_node: Node) -> None:
    add_guest(sim_node, 100)
    said = sim_node.do("start", 100)
    assert said.count("the service does not run") == 2  # pre-start and post-start, a line each
    assert sim_node.pid(100) is not None


def test_9_the_hook_leaves_no_process(service: Running) -> None:
    add_guest(service.node, 109)
    service.node.do("start", 109)
    notify = str(service.node.path("/usr/libexec/proxmox-cpu-affinity/notify.py"))
    assert not list(processes.found(lambda argv: notify in argv))


def test_10_nothing_of_ours_calls_qm_while_a_guest_starts(service: Running) -> None:
    node = service.node
    add_guest(node, 110)
    program, real, calls = (node.path(f"/usr/sbin/{name}") for name in ("qm", "qm.real", "calls"))
    program.rename(real)
    program.write_text(f'#!/bin/sh\necho "$*" >> {calls}\nexec {real} "$@"\n')
    program.chmod(0o755)
    try:
        node.do("start", 110)
    finally:
        real.rename(program)
    assert service.guest(110)["outcome"] == "full"
    assert calls.read_text() == "start 110\n"


def test_11_while_a_guest_comes_its_configuration_is_another_node_s(service: Running) -> None:
    node = service.node
    node.do("create", 111)
    node.do("start", 111)
    folder = node.path("/etc/pve/nodes/two/qemu-server")
    folder.mkdir(parents=True)
    conf(node, 111).unlink()
    (folder / "111.conf").write_text(f"cores: 1\nhookscript: {HOOK}\n")
    answer = service.post("/api/v1/guests/111/post-start", {"migrated_from": "two"})
    assert answer["outcome"] == "full"
    (folder / "111.conf").rename(conf(node, 111))


def test_12_the_other_nodes_need_the_hook_too(
    sim_node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    hookscript.install(sim_node)
    members = sim_node.path("/etc/pve/.members")
    members.unlink()
    members.write_text('{"nodename": "pve", "nodelist": {"pve": {}, "two": {}}}')
    sim_node.do("create", 100)
    assert main(["--root", str(sim_node.root), "hookscript", "enable", "100"]) == 0
    assert "Cluster: node two must have the hook on 'local' too" in capsys.readouterr().err


def test_13_another_s_hookscript_stays(sim_node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    hookscript.install(sim_node)
    other = sim_node.add_snippet("other", "#!/bin/sh\n")
    sim_node.do("create", 100, "--hookscript", other)
    before = conf(sim_node, 100).read_bytes()
    for command, status in (("enable", 1), ("disable", 0), ("enable-all", 0), ("disable-all", 0)):
        vmid = [] if command.endswith("all") else ["100"]
        assert main(["--root", str(sim_node.root), "hookscript", command, *vmid]) == status
    assert conf(sim_node, 100).read_bytes() == before
    assert "other hookscript" in capsys.readouterr().out


def test_14_pve_s_files_are_written_by_pve_alone(
    service: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    node = service.node
    add_guest(node, 114, options={"description": "r\u00e4t%3A\nhookscript: none"})
    add_guest(node, 150, hook=False, options={"affinity": "0"})
    before = pve_files(node)
    node.do("start", 114)
    for words in (
        *(["hookscript", "list"], ["hookscript", "enable-all", "--dry-run"], ["ps", "-v"]),
        *(["reassign", "--all"], ["reassign", "114", "--undo"], ["explain", "114"], ["doctor"]),
    ):
        assert main(["--root", str(node.root), *words]) in (0, 3)
    node.do("stop", 114)
    after = pve_files(node)
    assert {name for name in after if after[name] != before.get(name)} <= {".version", ".vmlist"}
    capsys.readouterr()


def test_14_a_locked_guest_is_not_changed(
    sim_node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    hookscript.install(sim_node)
    conf(sim_node, 100).write_text("lock: migrate\n")
    assert main(["--root", str(sim_node.root), "hookscript", "enable", "100"]) == 1
    assert "VM is locked (migrate)" in capsys.readouterr().err
    assert conf(sim_node, 100).read_text() == "lock: migrate\n"


def test_15_affinity_counts_from_the_start_that_applies_it(service: Running) -> None:
    node = service.node
    add_guest(node, 115)
    node.do("start", 115)
    node.do("set", 115, "--affinity", str(CPUS[-1]))
    assert "[PENDING]\naffinity: " in conf(node, 115).read_text()
    service.post("/api/v1/guests/115/reassign")
    assert service.guest(115)["outcome"] == "full"  # pending: PVE's taskset has not spoken
    node.do("stop", 115)
    said = node.do("start", 115)
    assert "left alone: `affinity:` is set in its configuration" in said
    assert all(mask == {CPUS[-1]} for mask in masks(node, 115).values())


def test_16_a_guest_that_is_started_for_its_backup_is_load_until_it_ends(
    service: Running,
) -> None:
    """QEMU in prelaunch runs no vCPU, and reads the guest's disks: nobody asks it which it does."""
    node = service.node
    add_guest(node, 116)
    with node.backing_up(116):
        assert qmp.run_state(node.path("/var/run/qemu-server/116.qmp")) == "prelaunch"
        service.confirms(116)
        cpus = {int(str(service.guest(116)["cpus"]))}
        assert all(mask == cpus for mask in masks(node, 116).values())
    service.wait_for(lambda: service.guest(116)["cpus"] == "")
    assert service.guest(116)["running"] is False


def test_17_cpu_numbers_have_gaps_and_cpus_are_offline_or_isolated(
    sim_node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    host = "generated:1x2x4x1+gaps=2-3+offline=5+isolated=9"
    for vcpus, cpus in ((1, "0"), (64, "0-1,4,6-8")):
        words = ["plan", "--host", host, "--guest", f"100:{vcpus}", "--json"]
        assert main(["--root", str(sim_node.root), *words]) == 0
        assert json.loads(capsys.readouterr().out)["guests"][0]["cpus"] == cpus


def test_18_qemu_s_monitor_is_left_to_pve(service: Running) -> None:
    """It serves one client at a time: were it held, nobody else would be greeted."""
    add_guest(service.node, 118)
    service.node.do("start", 118)
    for _ in range(3):
        service.post("/api/v1/guests/118/reassign")
        assert qmp.run_state(service.node.path("/var/run/qemu-server/118.qmp")) == "running"


def test_19_qm_start_of_an_ha_guest_only_asks_for_it(service: Running) -> None:
    node = service.node
    add_guest(node, 119, options=TAGGED)
    node.run("ha-manager", "add", "vm:119", "--state", "stopped")
    node.do("start", 119)
    assert node.pid(119) is None
    assert service.guest(119)["running"] is False
    node.lrm_round()
    service.confirms(119)


def test_20_the_hook_needs_no_home_locale_or_own_path(service: Running) -> None:
    add_guest(service.node, 120)
    done = subprocess.run(
        [
            str(service.node.path("/var/lib/vz/snippets/proxmox-cpu-affinity-hook")),
            "120",
            "pre-start",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={"LC_ALL": "C", "PATH": "/sbin:/bin:/usr/sbin:/usr/bin"},
        cwd="/",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("proxmox-cpu-affinity: CPU ")


@pytest.mark.parametrize("model", PostStop)
def test_21_both_ways_of_post_stop_free_the_cpus(service: Running, model: PostStop) -> None:
    service.node.configure(post_stop=model)
    vmid = 1210 + model
    add_guest(service.node, vmid)
    service.node.do("start", vmid)
    service.node.do("stop", vmid)
    service.wait_for(lambda: service.guest(vmid)["cpus"] == "")


def test_22_files_beside_a_guest_s_are_no_guests(guests: NodeGuests, sim_node: Node) -> None:
    sim_node.do("create", 100)
    sim_node.do("start", 100)
    pid = sim_node.pid(100)
    for name in ("-1.pid", "qsd-100.pid", "100.swtpm.pid", "0100.pid", "99.pid", "100.pid.new"):
        sim_node.path(f"/run/qemu-server/{name}").write_text(f"{pid}\n")
    folder = sim_node.path("/etc/pve/qemu-server")
    for name in ("100.conf.tmp.4711", "0101.conf", "99.conf", "x.conf", "1000000000.conf"):
        (folder / name).write_text("cores: 1\n")
    assert guests.vmids() == (100,)
    assert list(guests.processes()) == [100]


def test_23_the_cpus_of_numa_nodes_are_the_guest_s_own() -> None:
    text = "cores: 4\nnuma: 1\nnuma0: cpus=0-1;3,hostnodes=0,memory=512,policy=bind\nagent: 1\n"
    found = pveconf.guest_config(text, vmid=Vmid(100), node="pve")
    assert (found.affinity, found.vcpu_count, found.numa) == (None, 4, True)
    assert pveconf.parse(text).warnings == ()
