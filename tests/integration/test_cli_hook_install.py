"""`hookscript install`, and what `enable` says of a cluster's other nodes."""

import json
import os
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.formats.pvesections import Storage
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import ProgramFailedError
from proxmox_cpu_affinity.pve.cluster import MEMBERS, other_nodes
from proxmox_cpu_affinity.pve.hookfile import LIBEXEC, hook_source, shipped, unmounted
from proxmox_cpu_affinity.sim import hookscript
from proxmox_cpu_affinity.sim.node import Node

HOOK = "proxmox-cpu-affinity-hook"
STORAGES = """
dir: own
\tpath /srv/own
\tcontent iso

dir: both
\tpath /srv/both
\tcontent snippets
\tshared 1

nfs: net
\tserver 192.0.2.1
\texport /x
\tcontent snippets
\tcontent-dirs snippets=scripts/pve

btrfs: tree
\tpath /srv/tree
\tcontent snippets

dir: off
\tpath /srv/off
\tdisable

dir: away
\tpath /srv/away
\tnodes two

lvm: raw
\tvgname pve
"""
FOLDERS = ("srv/own", "srv/both", "srv/tree", "srv/off", "srv/away", "mnt/pve/net")


class Stage:
    """A node with storages, our hook installed below it, and the command line."""

    def __init__(self, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
        self.node = node
        self._capsys = capsys
        hookscript.install(node)
        file = node.path("/etc/pve/storage.cfg")
        file.write_text(file.read_text() + STORAGES)
        for folder in FOLDERS:
            node.path(folder).mkdir(parents=True)
        self.source = node.path(f"{LIBEXEC}/{HOOK}")

    def run(self, *words: str) -> tuple[int, str, str]:
        status = main(["--root", str(self.node.root), "hookscript", *words])
        return status, *self._capsys.readouterr()

    def cluster(self, **nodes: int) -> None:
        members = self.node.path(f"/{MEMBERS}")
        members.unlink()
        listed = {name: {"id": number, "online": 1} for name, number in nodes.items()}
        members.write_text(json.dumps({"nodename": "pve", "version": 2, "nodelist": listed}))


@pytest.fixture
def stage(sim_node: Node, capsys: pytest.CaptureFixture[str]) -> Stage:
    return Stage(sim_node, capsys)


def test_a_directory_of_this_node_gets_a_link_to_the_installed_hook(stage: Stage) -> None:
    status, out, err = stage.run("install", "own")
    path = f"/srv/own/snippets/{HOOK}"
    assert (status, err) == (0, "")
    assert out == f"{path}: a link, since the storage is of this node alone\n"
    assert stage.node.path(path).readlink() == stage.source
    stage.source.write_text("#!/bin/sh\n# a newer package\n")
    assert stage.node.path(path).read_text() == "#!/bin/sh\n# a newer package\n"
    stage.node.do("create", 100)
    assert stage.run("enable", "100", "own")[0] == 0
    stage.node.do("start", 100)  # PVE runs a hookscript through a link


@pytest.mark.parametrize(
    ("storage", "path", "why"),
    [
        ("both", "/srv/both/snippets", "other nodes read this storage"),
        ("net", "/mnt/pve/net/scripts/pve", "other nodes read this storage"),
        ("tree", "/srv/tree/snippets", "a storage of type btrfs need not stay on this node"),
    ],
)
def test_elsewhere_it_is_a_copy(stage: Stage, storage: str, path: str, why: str) -> None:
    stage.node.path(path).mkdir(parents=True)
    status, out, err = stage.run("install", storage)
    file = stage.node.path(f"{path}/{HOOK}")
    assert (status, out, err) == (0, f"{path}/{HOOK}: a copy, since {why}\n", "")
    assert not file.is_symlink()
    assert file.read_bytes() == stage.source.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o755
    assert os.listdir(file.parent) == [HOOK]  # nothing of the way there is left
    before = file.stat().st_mtime_ns
    status, out, err = stage.run("install", storage)
    assert (status, out, err) == (0, f"{path}/{HOOK}: the hookscript is there, nothing to do\n", "")
    assert file.stat().st_mtime_ns == before


def test_what_a_killed_install_left_is_gone_after_the_next_one(stage: Stage) -> None:
    """The name had that process's number in it, and stayed for ever."""
    folder = stage.node.path("/srv/both/snippets")
    folder.mkdir()
    (folder / f".{HOOK}.new").write_text("#!/bin")
    assert stage.run("install", "both")[0] == 0
    assert os.listdir(folder) == [HOOK]


def test_whoever_reads_meanwhile_sees_the_old_or_the_new_hook(stage: Stage) -> None:
    file = stage.node.path(f"/srv/both/snippets/{HOOK}")
    file.parent.mkdir()
    file.write_text("#!/bin/sh\n# an older one\n")
    with file.open() as reader:
        assert stage.run("install", "both")[0] == 0
        assert reader.read() == "#!/bin/sh\n# an older one\n"
    assert file.read_bytes() == stage.source.read_bytes()
    file.chmod(0o644)
    assert stage.run("install", "both")[1].endswith("a copy, since other nodes read this storage\n")
    assert os.access(file, os.X_OK)


def test_a_link_that_dangles_is_mended(stage: Stage) -> None:
    file = stage.node.path(f"/srv/own/snippets/{HOOK}")
    file.parent.mkdir()
    file.symlink_to("/nowhere")
    assert stage.run("install", "own")[0] == 0
    assert file.readlink() == stage.source


def test_the_shipped_local_is_as_wished(stage: Stage) -> None:
    status, out, _ = stage.run("install", "local")
    assert (status, out.partition(": ")[2]) == (0, "the hookscript is there, nothing to do\n")


def test_from_a_checkout_nothing_is_linked(stage: Stage) -> None:
    stage.source.unlink()
    status, out, _ = stage.run("install", "own")
    file = stage.node.path(f"/srv/own/snippets/{HOOK}")
    assert status == 0
    assert "a copy, since the program is not installed, it runs from a checkout" in out
    assert file.read_bytes() == (shipped() / HOOK).read_bytes()


def test_json_and_dry_run(stage: Stage) -> None:
    _, out, err = stage.run("install", "own", "--dry-run", "--json")
    path = f"/srv/own/snippets/{HOOK}"
    assert (json.loads(out), err) == (
        {
            "volume": f"own:snippets/{HOOK}",
            "status": "dry-run",
            "how": "link",
            "notes": f"[DryRun] Would make a link at {path}: the storage is of this node alone",
        },
        "",
    )
    assert not stage.node.path("/srv/own/snippets").exists()
    status = json.loads(stage.run("install", "own", "--json")[1])["status"]
    assert status == "installed"
    assert json.loads(stage.run("install", "own", "--json")[1])["status"] == "unchanged"


@pytest.mark.parametrize(
    ("storage", "text"),
    [
        ("none", "storage 'none' does not exist"),
        ("raw", "holds no files"),
        ("off", "storage 'off' is disabled"),
        ("away", "storage 'away' is not for node pve"),
        ("x", "unable to parse volume ID"),
    ],
)
def test_a_storage_that_is_none_is_refused(stage: Stage, storage: str, text: str) -> None:
    status, out, err = stage.run("install", storage)
    assert (status, out) == (1, "")
    assert text in err
    assert "Hint: " in err or storage == "x"


@pytest.mark.parametrize("storage", ["off", "away"])
def test_force_installs_where_pve_would_not_look(stage: Stage, storage: str) -> None:
    status, out, err = stage.run("install", storage, "--force")
    assert status == 0
    assert "a link" in out
    assert err.startswith("Warning: overridden by --force: storage '")


def test_a_disabled_local_is_only_odd(stage: Stage) -> None:
    file = stage.node.path("/etc/pve/storage.cfg")
    file.write_text("dir: local\n\tpath /var/lib/vz\n\tdisable\n")
    status, _, err = stage.run("install", "local")
    assert (status, err) == (0, "Warning: storage 'local' is disabled\n")


def test_a_storage_that_is_not_there_gets_no_folder(stage: Stage) -> None:
    stage.node.path("/mnt/pve/net").rmdir()
    status, out, err = stage.run("install", "net")
    assert (status, out) == (1, "")
    assert "storage 'net' is not there: /mnt/pve/net is missing or not mounted" in err
    assert not stage.node.path("/mnt/pve/net").exists()


def test_an_unmounted_network_storage_of_a_real_host_is_told_from_a_mounted_one() -> None:
    real = Tree(Path("/"))
    assert unmounted(real, Storage("none", "nfs", "/mnt/pve/none"))
    assert not unmounted(real, Storage("any", "dir", "/tmp"))


def test_what_is_in_the_way_is_named(stage: Stage) -> None:
    stage.node.path(f"/srv/both/snippets/{HOOK}").mkdir(parents=True)
    status, out, err = stage.run("install", "both")
    assert (status, out) == (1, "")
    assert f"/srv/both/snippets/{HOOK} is a directory" in err
    stage.node.path("/srv/own/snippets").write_text("no folder")
    status, out, err = stage.run("install", "own")
    assert (status, out) == (1, "")
    assert f"/srv/own/snippets/{HOOK} cannot be written: " in err


def test_the_hook_is_taken_from_where_it_lies(tmp_path: Path) -> None:
    module = tmp_path / "src/proxmox_cpu_affinity/pve/hookfile.py"
    module.parent.mkdir(parents=True)
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / HOOK).touch()
    assert shipped(module) == tmp_path / "hook"
    if not Path("/", LIBEXEC, HOOK).exists():
        with pytest.raises(ProgramFailedError) as caught:
            shipped(tmp_path / "lib/python3/dist-packages/proxmox_cpu_affinity/pve/hookfile.py")
        assert caught.value.hint == "install the package again"
    assert hook_source(Tree(tmp_path)) == (shipped() / HOOK, False)


@pytest.mark.parametrize(
    ("storage", "line"),
    [
        (
            "local",
            (
                "Cluster: nodes one, two must have the hook on 'local' too, or such guests do not "
                "start there: install this package\n"
            ),
        ),
        (
            "own",
            (
                "Cluster: nodes one, two must have the hook on 'own' too, or such guests do not "
                "start there: install this package and run: hookscript install own\n"
            ),
        ),
        ("both", "Cluster: nodes one, two must have this package too, to place guests there\n"),
        (
            "near",
            (
                "Cluster: node one must have this package too, to place guests there; 'near' is "
                "not for node two: such guests do not start there\n"
            ),
        ),
    ],
)
def test_in_a_cluster_enable_names_the_other_nodes(stage: Stage, storage: str, line: str) -> None:
    stage.cluster(pve=1, two=2, one=3)
    file = stage.node.path("/etc/pve/storage.cfg")
    near = "\nnfs: near\n\tserver x\n\texport /y\n\tcontent snippets\n\tnodes pve,one\n"
    file.write_text(file.read_text() + near)
    stage.node.path("/mnt/pve/near").mkdir()
    assert stage.run("install", storage)[0] == 0
    stage.node.do("create", 100)
    dry = stage.run("enable", "100", storage, "--dry-run")
    assert dry[2] == line
    assert stage.run("enable", "100", storage)[2] == line
    assert stage.run("enable", "100", storage)[2] == ""  # it was there already
    stage.node.do("create", 101)
    assert stage.run("enable-all", storage, "--json")[2] == line


def test_a_node_on_its_own_has_no_others(stage: Stage, tmp_path: Path) -> None:
    stage.node.path("/etc/pve/nodes/removed/qemu-server").mkdir(parents=True)
    tree = Tree(stage.node.root)
    assert other_nodes(tree, "pve") == ()
    stage.node.path(f"/{MEMBERS}").unlink()
    assert other_nodes(tree, "pve") == ("removed",)
    stage.node.path(f"/{MEMBERS}").write_text("{")
    assert other_nodes(tree, "pve") == ("removed",)
    assert other_nodes(Tree(tmp_path), "pve") == ()
