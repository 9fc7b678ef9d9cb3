"""The simulated node's qm: its output, messages and exit statuses, as PVE's."""

import fcntl
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.formats import pveconf
from proxmox_cpu_affinity.sim import node
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind

from .conftest import Recorder, short_root

MISSING = "Configuration file 'nodes/pve/qemu-server/100.conf' does not exist\n"


@pytest.fixture(scope="module")
def idle_node() -> Iterator[Node]:
    """One node for all the tests that only see it refuse; it has the guest 200."""
    with short_root() as root:
        made = node.create(root, guest=GuestKind.STANDIN)
        try:
            made.add_snippet("data", "", mode=0o644)
            made.do("create", 200, "--name", "web")
            yield made
        finally:
            made.destroy()


def config(host: Node, vmid: int = 100) -> Path:
    return host.path(f"/etc/pve/nodes/pve/qemu-server/{vmid}.conf")


def refused(host: Node, *words: object, status: int, says: str) -> None:
    """A command fails with this status, and this on stdout (tasks) or stderr (all else)."""
    done = host.qm(*words)
    assert (done.returncode, says in done.stdout + done.stderr) == (status, True), done


@pytest.mark.parametrize(
    "words",
    [
        *(("start",), ("stop",), ("shutdown",), ("reboot",), ("status",), ("config",)),
        *(("pending",), ("destroy",), ("template",), ("unlock",), ("showcmd",), ("reset",)),
    ],
)
def test_a_missing_guest(idle_node: Node, words: tuple[str, ...]) -> None:
    refused(idle_node, *words, 100, status=2, says=MISSING)


def test_set_and_clone_of_a_missing_guest(idle_node: Node) -> None:
    refused(idle_node, "set", 100, "--cores", 2, status=2, says=MISSING)
    refused(idle_node, "clone", 100, 101, status=2, says=MISSING)


def test_a_guest_of_another_node_is_missing_here(sim_node: Node) -> None:
    other = sim_node.path("/etc/pve/nodes/other/qemu-server")
    other.mkdir(parents=True)
    (other / "100.conf").write_text("cores: 1\n")
    refused(sim_node, "config", 100, status=2, says=MISSING)
    refused(sim_node, "create", 100, status=255, says="already exists on node 'other'")
    assert sim_node.do("list") == ""


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("nonsense",), 255, "ERROR: unknown command 'qm nonsense'"),
        ((), 255, "ERROR: no command specified"),
        (("start",), 255, "400 not enough arguments\nqm start <vmid> [OPTIONS]"),
        (("start", "100", "101"), 255, "400 too many arguments"),
        (("start", "99"), 2, "400 Parameter verification failed.\nvmid: invalid format"),
        (("start", "0100"), 2, "vmid: invalid format"),
        (("start", "100", "--what", "1"), 255, "Unknown option: what\n400 unable to parse option"),
        (("set", "100", "--cores"), 255, "Option cores requires an argument"),
        (("set", "200"), 255, "no options specified"),
        (
            *(("set", "200", "--name", "a", "--delete", "name"), 2),
            "delete: you can't use '-name' and '-delete name' at the same time",
        ),
        (("stop", "100", "--timeout", "soon"), 2, "timeout: type check ('integer') failed"),
    ],
)
def test_usage(idle_node: Node, words: tuple[str, ...], status: int, says: str) -> None:
    refused(idle_node, *words, status=status, says=says)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("cores", "many", "cores: type check ('integer') failed - got 'many'"),
        ("cores", "0", "cores: value must have a minimum value of 1"),
        ("numa", "maybe", "numa: type check ('boolean') failed - got 'maybe'"),
        ("affinity", "3-1", "affinity: invalid format"),
        ("hookscript", "local:snippets/none", "script 'local:snippets/none' does not exist"),
        ("hookscript", "local:snippets/data", "script 'local:snippets/data' is not executable"),
        ("hookscript", "local:iso/data", "'local:iso/data' is not in the snippets directory"),
        ("hookscript", "gone:snippets/data", "storage 'gone' does not exist"),
        ("hookscript", "data", "hookscript: invalid format"),
        ("delete", "no-such-key", "delete: unknown option 'no-such-key'"),
    ],
)
def test_values_are_checked_when_set(idle_node: Node, key: str, value: str, says: str) -> None:
    before = config(idle_node, 200).read_bytes()
    refused(idle_node, "set", 200, f"--{key}", value, status=2, says=says)
    if key != "delete":
        refused(idle_node, "create", 100, f"-{key}={value}", status=2, says=says)
    assert config(idle_node, 200).read_bytes() == before
    assert not config(idle_node).exists()


def test_set(sim_node: Node) -> None:
    sim_node.do("create", 100, "--name", "web")
    said = sim_node.do("set", 100, "--numa", "yes", "-affinity", "1", "--description", "a: b\nc")
    assert said == "update VM 100: -affinity 1 -description a: b\nc -numa 1\n"
    text = config(sim_node).read_text()
    assert text.startswith("#a%3A b\n#c\naffinity: 1\n")
    assert "\nnuma: 1\n" in text
    assert sim_node.do("set", 100, "--delete", "affinity,numa") == (
        "update VM 100: -delete affinity,numa\n"
    )
    assert "affinity" not in config(sim_node).read_text()


def test_deleting_an_unset_key_only_warns(sim_node: Node) -> None:
    sim_node.do("create", 100)
    done = sim_node.qm("set", 100, "--delete", "hookscript")
    assert done.returncode == 0
    assert done.stderr == "cannot delete 'hookscript' - not set in current configuration!\n"


def test_a_digest_guards_against_concurrent_changes(sim_node: Node) -> None:
    sim_node.do("create", 100)
    shown = json.loads(sim_node.run("pvesh", "get", "/nodes/pve/qemu/100/config").stdout)
    sim_node.do("set", 100, "--name", "a", "--digest", shown["digest"])
    refused(
        sim_node,
        *("set", 100, "--name", "b", "--digest", shown["digest"]),
        status=255,
        says="detected modified configuration",
    )


def test_a_held_lock(sim_node: Node) -> None:
    sim_node.configure(lock_timeout=0.2)
    sim_node.do("create", 100)
    says = "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout\n"
    with sim_node.path("/run/lock/qemu-server/lock-100.conf").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for words in (("set", 100, "--cores", 2), ("start", 100), ("stop", 100), ("template", 100)):
            refused(sim_node, *words, status=4, says=says)
        assert sim_node.do("config", 100)  # reading takes no lock
        assert sim_node.do("status", 100) == "status: stopped\n"


def test_the_lock_key(sim_node: Node) -> None:
    sim_node.do("create", 100, "--lock", "backup")
    for words in (("set", 100, "--cores", 2), ("start", 100), ("destroy", 100), ("template", 100)):
        refused(sim_node, *words, status=255, says="VM is locked (backup)\n")
    sim_node.do("start", 100, "--skiplock")
    sim_node.do("unlock", 100)
    sim_node.do("stop", 100)
    assert "lock" not in config(sim_node).read_text()


def test_list(sim_node: Node) -> None:
    assert sim_node.do("list") == ""
    sim_node.do("create", 1000, "--name", "a-name-of-more-than-20-letters", "--memory", 2048)
    sim_node.do("create", 101, "--start")
    config(sim_node, 101).with_name("101.conf.tmp.4711").write_text("left over")
    pid = sim_node.pid(101)
    assert sim_node.do("list") == (
        "      VMID NAME                 STATUS     MEM(MB)    BOOTDISK(GB) PID       \n"
        f"       101 VM 101               running    512                0.00 {pid:<10}\n"
        "      1000 a-name-of-more-than-20-letters stopped    2048               0.00 0         \n"
    )


def test_config_merges_what_is_pending(sim_node: Node) -> None:
    sim_node.do("create", 100, "--cores", 1, "--affinity", "0", "--start")
    sim_node.do("set", 100, "--cores", 2, "--delete", "affinity", "--tags", "a;b")
    assert "[PENDING]\ncores: 2\ndelete: affinity\n" in config(sim_node).read_text()
    merged = sim_node.do("config", 100)
    assert "cores: 2\n" in merged
    assert "affinity" not in merged
    assert "tags: a;b\n" in merged  # at once
    current = sim_node.do("config", 100, "--current")
    assert "cores: 1\n" in current
    assert "affinity: 0\n" in current
    lines = sim_node.do("pending", 100).splitlines()
    assert lines[:2] == ["cur affinity: 0", "del affinity: 0"]
    assert lines[2:4] == ["cur cores: 1", "new cores: 2"]
    sim_node.do("stop", 100)
    assert "PENDING" not in config(sim_node).read_text()
    assert "cores: 2\n" in sim_node.do("config", 100, "--current")


def test_a_reboot_applies_what_is_pending(sim_node: Node) -> None:
    sim_node.do("create", 100, "--cores", 1, "--start")
    sim_node.do("set", 100, "--cores", 2)
    sim_node.do("reboot", 100)
    assert "\ncores: 2\n" in "\n" + config(sim_node).read_text()


def test_config_shows_the_description_encoded_and_snapshots_on_demand(sim_node: Node) -> None:
    sim_node.do("create", 100)
    config(sim_node).write_text("#t: x\ncores: 2\n\n[snap]\ncores: 4\n")
    assert sim_node.do("config", 100) == "cores: 2\ndescription: t%3A x%0A\n"
    assert sim_node.do("config", 100, "--snapshot", "snap") == "cores: 4\n"
    refused(sim_node, "config", 100, "--snapshot", "no", status=255, says="does not exist")


def test_a_configuration_of_other_bytes(sim_node: Node) -> None:
    sim_node.do("create", 100)
    config(sim_node).write_bytes(b"args: -name caf\xe9\n#\xff\n")
    said = sim_node.do("config", 100).encode("utf-8", "surrogateescape")
    assert said == b"args: -name caf\xe9\ndescription: %FF%0A\n"
    sim_node.do("set", 100, "--tags", "a")
    assert config(sim_node).read_bytes() == b"#%FF\nargs: -name caf\xe9\ntags: a\n"


def test_start_is_refused(sim_node: Node) -> None:
    sim_node.do("create", 100, "--start", 1)
    refused(sim_node, "start", 100, status=255, says="VM 100 already running\n")
    refused(sim_node, "destroy", 100, status=255, says="VM 100 is running - destroy failed\n")
    refused(sim_node, "template", 100, status=255, says="can't convert a VM to template")
    sim_node.do("stop", 100)
    sim_node.do("template", 100)
    refused(sim_node, "start", 100, status=255, says="you can't start a vm if it's a template\n")
    refused(sim_node, "template", 100, status=255, says="can't convert a template to a template")


def test_stopping_what_does_not_run(sim_node: Node) -> None:
    hook = Recorder(sim_node)
    sim_node.do("create", 100, "--hookscript", hook.volume)
    assert sim_node.do("stop", 100) == ""
    assert sim_node.qm("shutdown", 100).stderr == "VM 100 not running\n"
    refused(sim_node, "reboot", 100, status=255, says="VM 100 not running\n")
    refused(sim_node, "reset", 100, status=255, says="VM 100 not running\n")
    assert hook.calls() == []


def test_create_clone_destroy(sim_node: Node) -> None:
    hook = Recorder(sim_node)
    sim_node.do("create", 100, "--name", "web", "--affinity", "1", "--hookscript", hook.volume)
    refused(sim_node, "create", 100, status=255, says="VM 100 already exists on node 'pve'")
    sim_node.do("template", 100)
    sim_node.do("clone", 100, 101)
    sim_node.do("clone", 100, 102, "--name", "other", "--full")
    values = [pveconf.parse(config(sim_node, vmid).read_text()).main.values for vmid in (100, 101)]
    assert values[0]["template"] == "1"
    assert "template" not in values[1]
    assert values[1]["name"] == "Copy-of-web"
    assert (values[1]["affinity"], values[1]["hookscript"]) == ("1", hook.volume)
    assert values[0]["vmgenid"] != values[1]["vmgenid"]
    assert "name: other\n" in config(sim_node, 102).read_text()
    sim_node.do("destroy", 101)
    assert not config(sim_node, 101).exists()
    sim_node.do("set", 102, "--protection", 1)
    refused(sim_node, "destroy", 102, status=255, says="protection mode is enabled")


def test_showcmd_is_what_runs(sim_node: Node) -> None:
    sim_node.do("create", 100, "--args", "-smbios 'type=1,serial=a b'", "--start")
    pid = sim_node.pid(100)
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    assert words[-2:] == ["-smbios", "type=1,serial=a b"]
    assert sim_node.do("showcmd", 100) == " ".join(words) + "\n"


def test_an_interrupted_command_ends_its_worker(sim_node: Node) -> None:
    """SIGTERM to `qm start` reaches the hook, which leads no session of its own."""
    import signal
    import subprocess

    hook = sim_node.add_snippet("slow", "#!/bin/sh\necho $$ > $OUT\nexec sleep 60\n")
    sim_node.do("create", 100, "--hookscript", hook)
    out = sim_node.path("/tmp/pid")
    qm = str(sim_node.path("/usr/sbin/qm"))
    with subprocess.Popen([qm, "start", "100"], env={"OUT": str(out)}) as process:
        deadline = time.monotonic() + 10
        while not (out.exists() and out.read_text().strip()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 255
    status = Path(f"/proc/{out.read_text().strip()}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()
    assert sim_node.pid(100) is None
