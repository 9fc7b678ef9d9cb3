"""`hookscript` on a simulated node: what it says, what it does to the files, and its statuses."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.sim import hookscript
from proxmox_cpu_affinity.sim.node import Node

OURS = "local:snippets/proxmox-cpu-affinity-hook"
OTHER = "local:snippets/other.sh"


@dataclass(frozen=True, slots=True)
class Said:
    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        return [re.split("  +", line) for line in self.out.splitlines()]


Run = Callable[..., Said]


@pytest.fixture
def hook(sim_node: Node, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `hookscript` on a node with our hook installed and one guest of each sort."""
    hookscript.install(sim_node)
    other = sim_node.add_snippet("other.sh", "#!/bin/sh\n")
    for vmid, text in {
        100: "cores: 2\n",
        101: f"hookscript: {OURS}\n",
        102: "affinity: 0-1\n",
        103: "cores: 1\n",
        104: "template: 1\n",
        1000: f"hookscript: {other}\n",
        5600: "#affinity: 1\n#hookscript: x\n\n[snap]\naffinity: 0\ntemplate: 1\n",
    }.items():
        write(sim_node, vmid, text)
    resources = "vm: 103\n\tstate started\n\nvm: 1000\n\tstate ignored\n\nct: 100\n"
    sim_node.path("/etc/pve/ha/resources.cfg").write_text(resources)

    def run(*words: str) -> Said:
        status = main(["--root", str(sim_node.root), "hookscript", *words])
        return Said(status, *capsys.readouterr())

    return run


def conf(node: Node, vmid: int) -> Path:
    return node.path(f"/etc/pve/qemu-server/{vmid}.conf")


def write(node: Node, vmid: int, text: str) -> None:
    conf(node, vmid).write_text(text)


def has_hook(node: Node, vmid: int) -> bool:
    return f"hookscript: {OURS}\n" in conf(node, vmid).read_text()


def test_list_has_the_inherited_columns_and_who_manages_behind_them(hook: Run) -> None:
    said = hook("list")
    assert said.status == 0
    assert said.err == ""
    header, *rows = said.out.splitlines()
    assert re.split("  +", header) == ["VMID", "Hook-Status", "Notes", "Managed"]
    behind = header.index("Managed")
    assert [(*row[:behind].split(maxsplit=2), row[behind:]) for row in rows] == [
        ("100", "Disabled", "no: not chosen"),
        ("101", "Enabled", "hook"),
        ("102", "Skipped", "Manual Affinity Set  ", "no: affinity"),
        ("103", "Skipped", "HA Managed           ", "no: not chosen"),
        ("104", "Disabled", "VM Template          ", "no: template"),
        ("1000", "Disabled", "no: not chosen"),
        ("5600", "Disabled", "no: not chosen"),
    ]


def test_list_as_json_is_the_inherited_document(hook: Run, sim_node: Node) -> None:
    write(sim_node, 104, f"template: 1\naffinity: 0\nhookscript: {OURS}\n")
    sim_node.path("/etc/pve/ha/resources.cfg").write_text("vm:104\n")
    said = hook("list", "--json")
    found = json.loads(said.out)
    fields = ["vmid", "status", "notes", "managed_by", "reason_code"]
    assert [list(entry) for entry in found] == [fields] * 7
    inherited = [{name: entry[name] for name in fields[:3]} for entry in found]
    assert inherited[0] == {"vmid": 100, "status": "Disabled", "notes": ""}
    notes = "VM Template, HA Managed, Manual Affinity Set"
    assert inherited[4] == {"vmid": 104, "status": "Skipped", "notes": notes}


@pytest.mark.parametrize(
    ("settings", "managed"),
    [
        ("", ["hook", "tag", "no: tag cpu-affinity-off", "no: not chosen"]),
        (
            "PCA_MANAGE=hook",
            ["hook", "no: not chosen", "no: tag cpu-affinity-off", "no: not chosen"],
        ),
        ("PCA_MANAGE=all", ["hook", "tag", "no: tag cpu-affinity-off", "all"]),
        ("PCA_MANAGE=some", ["-", "-", "-", "-"]),
    ],
)
def test_the_list_says_by_what_a_guest_is_managed(
    hook: Run, sim_node: Node, settings: str, managed: list[str]
) -> None:
    for file in sim_node.path("/etc/pve/qemu-server").iterdir():
        file.unlink()
    write(sim_node, 100, f"hookscript: {OURS}\ntags: cpu-affinity\n")
    write(sim_node, 101, "tags: x;cpu-affinity\n")
    write(sim_node, 102, f"hookscript: {OURS}\ntags: cpu-affinity-off\n")
    write(sim_node, 103, "cores: 1\n")
    sim_node.path("/etc/pve/ha/resources.cfg").write_text("")
    sim_node.path("/etc/default/proxmox-cpu-affinity").write_text(f"{settings}\n")
    said = hook("list")
    assert [row[-1] for row in said.rows[1:]] == managed
    by = [
        (entry["managed_by"], entry["reason_code"])
        for entry in json.loads(hook("list", "--json").out)
    ]
    assert by == [
        (cell, "") if cell in ("hook", "tag", "all") else ("", cell.removeprefix("no: ").strip("-"))
        for cell in managed
    ]
    assert said.err.startswith("Warning: ") is (managed[0] == "-")
    assert "not known which guests are managed" not in hook("list", "-q").err


def test_status_is_one_row_of_the_list(hook: Run) -> None:
    listed = hook("list").out.splitlines()
    for place, vmid in enumerate((100, 101, 102, 103, 104, 1000, 5600), 1):
        said = hook("status", str(vmid))
        assert said.out.splitlines()[1].split() == listed[place].split()
        assert json.loads(hook("status", str(vmid), "--json").out) == [
            json.loads(hook("list", "--json").out)[place - 1]
        ]
    missing = hook("status", "999")
    assert (missing.status, missing.out) == (1, "")
    assert missing.err.startswith("Error: there is no guest 999 on this node\nHint: ")


def test_enable_sets_it_says_so_and_does_it_once(hook: Run, sim_node: Node) -> None:
    said = hook("enable", "100")
    assert said == Said(0, f"VM 100: hookscript enabled ({OURS})\n", "")
    assert has_hook(sim_node, 100)
    again = conf(sim_node, 100).stat().st_mtime_ns
    assert hook("enable", "100") == Said(0, "VM 100: already enabled, nothing to do\n", "")
    assert conf(sim_node, 100).stat().st_mtime_ns == again
    assert hook("enable", "5600").status == 0  # what snapshots and comments say is not the guest's


@pytest.mark.parametrize("words", [("100", "--dry-run"), ("--dry-run", "100", "local")])
def test_dry_run_says_the_command_and_changes_nothing(
    hook: Run, sim_node: Node, words: tuple[str, ...]
) -> None:
    before = conf(sim_node, 100).read_bytes()
    said = hook("enable", *words)
    command = f"/usr/sbin/qm set 100 --hookscript {OURS}"
    assert said == Said(0, f"[DryRun] Would execute: {command}\n", "")
    assert conf(sim_node, 100).read_bytes() == before
    command = "/usr/sbin/qm set 101 --delete hookscript"
    said = hook("disable", "101", "--dry-run")
    assert said == Said(0, f"[DryRun] Would execute: {command}\n", "")
    assert has_hook(sim_node, 101)


@pytest.mark.parametrize(
    ("vmid", "reason", "hint"),
    [
        (102, "its configuration has `affinity:`", "qm set 102 --delete affinity"),
        (103, "the HA manager holds it", "ha-manager remove vm:103"),
        (104, "it is a template", "enable its clones instead"),
    ],
)
def test_enable_refuses_with_the_reason_and_force_does_not_help(
    hook: Run, sim_node: Node, vmid: int, reason: str, hint: str
) -> None:
    for words in ([], ["--force"], ["--dry-run"]):
        said = hook("enable", str(vmid), *words)
        assert (said.status, said.out) == (1, "")
        assert said.err.startswith(f"Error: VM {vmid} is left alone: {reason}\nHint: {hint}")
    assert "hookscript" not in conf(sim_node, vmid).read_text()


def test_another_s_hookscript_yields_to_force_only(hook: Run, sim_node: Node) -> None:
    said = hook("enable", "1000")
    assert (said.status, said.out) == (1, "")
    assert f"it has another hookscript ({OTHER})" in said.err
    assert f"hookscript: {OTHER}" in conf(sim_node, 1000).read_text()
    said = hook("enable", "1000", "--force")
    assert said.status == 0
    assert said.err == f"Warning: VM 1000: --force replaces {OTHER}\n"
    assert has_hook(sim_node, 1000)


def test_our_hookscript_on_another_storage_is_ours_and_can_be_moved(
    hook: Run, sim_node: Node
) -> None:
    folder = sim_node.path("/mnt/nfs/snippets")
    folder.mkdir(parents=True)
    (folder / "proxmox-cpu-affinity-hook").write_text("#!/bin/sh\n")
    (folder / "proxmox-cpu-affinity-hook").chmod(0o755)
    storage = sim_node.path("/etc/pve/storage.cfg")
    storage.write_text(storage.read_text() + "\ndir: shared\n\tpath /mnt/nfs\n\tcontent snippets\n")
    said = hook("enable", "101", "shared")
    assert said.status == 0, said.err
    volume = "shared:snippets/proxmox-cpu-affinity-hook"
    assert f"hookscript: {volume}\n" in conf(sim_node, 101).read_text()
    assert hook("list").rows[2][:2] == ["101", "Enabled"]
    assert hook("disable", "101") == Said(0, "VM 101: hookscript disabled\n", "")


@pytest.mark.parametrize(
    ("sections", "storage", "reason"),
    [
        ("", "nfs", "storage 'nfs' does not exist"),
        ("dir: d0\n\tpath /srv\n", "d0", "/srv/snippets/proxmox-cpu-affinity-hook: No such file"),
        ("lvm: d1\n\tvgname pve\n", "d1", "holds no files"),
        ("dir: d2\n\tpath /var/lib/vz\n\tdisable\n", "d2", "storage 'd2' is disabled"),
        ("dir: d3\n\tpath /var/lib/vz\n\tnodes else\n", "d3", "storage 'd3' is not for node pve"),
        ("", "x", "unable to parse volume ID"),
        ("", "", "unable to parse volume ID"),
    ],
)
def test_a_storage_that_guests_could_not_start_from_is_refused(
    hook: Run, sim_node: Node, sections: str, storage: str, reason: str
) -> None:
    file = sim_node.path("/etc/pve/storage.cfg")
    file.write_text(f"{file.read_text()}\n{sections}")
    for words in (["enable", "100", storage], ["enable-all", storage]):
        said = hook(*words)
        assert (said.status, said.out) == (1, "")
        assert reason in said.err
    assert "hookscript" not in conf(sim_node, 100).read_text()
    said = hook("enable", "100", storage, "--force", "--dry-run")
    assert said.status == 0
    assert "Warning: overridden by --force: " in said.err
    assert reason in said.err


def test_force_does_not_override_qm_itself(hook: Run, sim_node: Node) -> None:
    said = hook("enable", "100", "nfs", "--force")
    assert (said.status, said.out) == (1, "")
    assert "Error: /usr/sbin/qm set 100: hookscript: storage 'nfs' does not exist\n" in said.err
    assert "hookscript" not in conf(sim_node, 100).read_text()


def test_a_hook_that_is_not_executable_or_no_file_is_refused(hook: Run, sim_node: Node) -> None:
    file = sim_node.path("/var/lib/vz/snippets/proxmox-cpu-affinity-hook")
    file.chmod(0o644)
    assert "hook is not executable\n" in hook("enable", "100").err
    file.unlink()
    said = hook("enable", "100")
    assert "No such file" in said.err
    assert "Hint: put it there: proxmox-cpu-affinity hookscript install local\n" in said.err
    file.mkdir()
    assert "is not a regular file" in hook("enable", "100").err


def test_a_disabled_local_works_with_a_warning(hook: Run, sim_node: Node) -> None:
    sim_node.path("/etc/pve/storage.cfg").write_text("dir: local\n\tpath /var/lib/vz\n\tdisable\n")
    said = hook("enable", "100")
    assert said.status == 0
    assert said.err == "Warning: storage 'local' is disabled\n"
    assert has_hook(sim_node, 100)
    sim_node.path("/etc/pve/storage.cfg").unlink()  # a missing file is a node with `local` only
    assert hook("enable", "5600") == Said(0, f"VM 5600: hookscript enabled ({OURS})\n", "")


def test_disable_removes_only_ours_and_never_refuses(hook: Run, sim_node: Node) -> None:
    write(sim_node, 102, f"affinity: 0-1\nhookscript: {OURS}\n")
    write(sim_node, 103, f"hookscript: {OURS}\n")
    for vmid in (101, 102, 103):
        assert hook("disable", str(vmid)) == Said(0, f"VM {vmid}: hookscript disabled\n", "")
        assert "hookscript" not in conf(sim_node, vmid).read_text()
    assert hook("disable", "100") == Said(0, "VM 100: not enabled, nothing to do\n", "")
    said = hook("disable", "1000")
    assert said.status == 0
    assert said.out == f"VM 1000: left alone, it has another hookscript {OTHER}\n"
    assert f"hookscript: {OTHER}" in conf(sim_node, 1000).read_text()


def test_a_locked_guest_is_an_error_that_qm_names(hook: Run, sim_node: Node) -> None:
    write(sim_node, 100, "lock: backup\n")
    said = hook("enable", "100")
    assert said == Said(1, "", "Error: /usr/sbin/qm set 100: VM is locked (backup)\n")


def test_a_qm_that_does_nothing_is_not_believed(hook: Run, sim_node: Node) -> None:
    qm = sim_node.path("/usr/sbin/qm")
    qm.write_text("#!/bin/sh\nexit 0\n")
    said = hook("enable", "100")
    assert (said.status, said.out) == (1, "")
    assert "VM 100: qm set ended well, but its hookscript is none now" in said.err
    said = hook("disable", "101")
    assert said.status == 1
    assert f"its hookscript is {OURS} now" in said.err
    qm.unlink()
    assert "/usr/sbin/qm cannot be started: No such file" in hook("enable", "100").err


def test_enable_all_says_a_line_for_each_guest(hook: Run, sim_node: Node) -> None:
    dry = hook("enable-all", "--dry-run")
    assert dry.status == 0
    assert dry.out.splitlines() == [
        f"[DryRun] Would execute: /usr/sbin/qm set 100 --hookscript {OURS}",
        "VM 101: already enabled, nothing to do",
        "Skipping VM 102 (manual affinity set)...",
        "Skipping VM 103 (HA managed)...",
        "Skipping VM 104 (VM template)...",
        "Skipping VM 1000 (other hookscript set)...",
        f"[DryRun] Would execute: /usr/sbin/qm set 5600 --hookscript {OURS}",
    ]
    assert not has_hook(sim_node, 100)
    said = hook("enable-all")
    assert (said.status, said.err) == (0, "")
    assert [v for v in (100, 101, 102, 103, 104, 1000, 5600) if has_hook(sim_node, v)] == [
        *(100, 101, 5600),
    ]
    forced = hook("enable-all", "--force")
    assert f"VM 1000: hookscript enabled ({OURS})" in forced.out
    assert forced.err == f"Warning: VM 1000: --force replaces {OTHER}\n"


def test_all_go_on_after_a_failure_and_the_status_tells(hook: Run, sim_node: Node) -> None:
    write(sim_node, 100, "lock: migrate\n")
    said = hook("enable-all")
    assert said.status == 3
    assert said.err == "Error: VM 100: /usr/sbin/qm set 100: VM is locked (migrate)\n"
    assert has_hook(sim_node, 5600)
    write(sim_node, 5600, "lock: migrate\n")
    write(sim_node, 101, "affinity: 1\n")
    said = hook("enable-all", "--json")
    assert said.status == 1
    found = {entry["vmid"]: entry["status"] for entry in json.loads(said.out)}
    assert found == {
        **dict.fromkeys((100, 5600), "failed"),
        **dict.fromkeys((101, 102, 103, 104, 1000), "skipped"),
    }


def test_disable_all_takes_ours_from_everyone(hook: Run, sim_node: Node) -> None:
    assert hook("enable-all").status == 0
    write(sim_node, 102, f"affinity: 0-1\nhookscript: {OURS}\n")
    said = hook("disable-all")
    assert (said.status, said.err) == (0, "")
    assert len(said.out.splitlines()) == 7
    assert [row[1] for row in hook("list").rows[1:]].count("Enabled") == 0
    assert not any(has_hook(sim_node, vmid) for vmid in (100, 101, 102, 5600))
    assert f"hookscript: {OTHER}" in conf(sim_node, 1000).read_text()


def test_a_guest_on_another_node_is_changed_there(hook: Run, sim_node: Node) -> None:
    folder = sim_node.path("/etc/pve/nodes/two/qemu-server")
    folder.mkdir(parents=True)
    (folder / "200.conf").write_text("cores: 1\n")
    for command in ("enable", "disable", "status"):
        said = hook(command, "200")
        assert said == Said(1, "", "Error: VM 200 is on node two\nHint: run this there\n")


def test_a_configuration_that_cannot_be_read_is_never_passed_over(
    hook: Run, sim_node: Node
) -> None:
    conf(sim_node, 100).unlink()
    conf(sim_node, 100).mkdir()
    said = hook("list")
    assert said.err == "Warning: VM 100: its configuration cannot be read\n"
    assert hook("list", "-q").err == ""
    assert hook("status", "100").status == 1
    said = hook("enable-all")
    assert said.status == 3
    assert said.err == "Error: VM 100: its configuration cannot be read\n"


def test_an_ha_file_that_cannot_be_read_stops_everything(hook: Run, sim_node: Node) -> None:
    file = sim_node.path("/etc/pve/ha/resources.cfg")
    file.unlink()
    assert hook("status", "103").rows[1][:2] == ["103", "Disabled"]
    file.mkdir()
    for words in (["list"], ["enable", "100"], ["disable-all"]):
        said = hook(*words)
        assert (said.status, said.out) == (1, "")
        assert "/etc/pve/ha/resources.cfg cannot be read" in said.err


def test_outside_of_a_pve_node(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words in (["list"], ["enable", "100"], ["disable-all"], ["status", "100"]):
        assert main(["--root", str(tmp_path), "hookscript", *words]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("Error: /etc/pve is missing")
        assert "Hint: " in said.err
