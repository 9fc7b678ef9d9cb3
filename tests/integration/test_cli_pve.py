"""PVE's programs and files below a root, as the command line reads and starts them."""

from pathlib import Path

import pytest

from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import ProgramFailedError, RefusedError
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.pve import qm
from proxmox_cpu_affinity.pve.ha import HaGuests
from proxmox_cpu_affinity.pve.storage import check_hook, hook_volume, storages

HOOK = "proxmox-cpu-affinity-hook"


def program(root: Path, text: str) -> qm.Programs:
    """A qm that does this."""
    file = root / "usr/sbin/qm"
    file.parent.mkdir(parents=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return qm.Programs(Tree(root))


def test_qm_is_started_by_its_absolute_path_with_an_argument_list(tmp_path: Path) -> None:
    out = tmp_path / "out"
    programs = program(tmp_path, f'printf "%s\\n" "$0" "$@" "$LC_ALL" > {out}; cat >> {out}')
    programs.run(qm.set_hookscript(Vmid(100), hook_volume("a b; rm -rf")))
    assert out.read_text().splitlines() == [
        *(f"{tmp_path}/usr/sbin/qm", "set", "100", "--hookscript"),
        *("a b; rm -rf:snippets/proxmox-cpu-affinity-hook", "C"),
    ]
    assert qm.delete_hookscript(Vmid(100)) == (
        *("/usr/sbin/qm", "set", "100", "--delete", "hookscript"),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo no >&2; echo so >&2; exit 2", "/usr/sbin/qm set 100: so"),
        ("exit 4", "/usr/sbin/qm set 100: exit status 4"),
        ("kill -9 $$", "/usr/sbin/qm set 100: exit status -9"),
        ("printf '\\377' >&2; exit 1", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_failing_qm_is_an_error_with_its_last_words(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ProgramFailedError) as caught:
        program(tmp_path, text).run(qm.delete_hookscript(Vmid(100)))
    assert said in caught.value.text


def test_a_qm_that_hangs_is_ended(tmp_path: Path) -> None:
    program(tmp_path, "exec sleep 600")
    with pytest.raises(ProgramFailedError, match=r"did not end within 0\.2 s"):
        qm.Programs(Tree(tmp_path), timeout=0.2).run(qm.delete_hookscript(Vmid(100)))


def storage_node(root: Path, text: str | None) -> Tree:
    folder = root / "etc/pve"
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "storage.cfg").write_text(text)
    return Tree(root)


def put_hook(root: Path, folder: str, *, mode: int = 0o755) -> None:
    path = root / folder / HOOK
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)


def test_a_node_without_storage_cfg_has_local(tmp_path: Path) -> None:
    tree = storage_node(tmp_path, None)
    assert set(storages(tree)) == {"local"}
    put_hook(tmp_path, "var/lib/vz/snippets")
    found = check_hook(tree, "local", node="pve")
    assert (found.faults, found.warnings) == ((), ())


def test_the_folder_for_snippets_can_be_another(tmp_path: Path) -> None:
    text = (
        "nfs: share\n\tserver x\n\texport /\n\tcontent images\n\tcontent-dirs snippets=my/hooks\n"
    )
    tree = storage_node(tmp_path, text)
    put_hook(tmp_path, "mnt/pve/share/my/hooks")
    assert check_hook(tree, "share", node="pve").faults == ()


def test_faults_add_up(tmp_path: Path) -> None:
    tree = storage_node(tmp_path, "dir: data\n\tpath /data\n\tnodes one,two\n")
    put_hook(tmp_path, "data/snippets", mode=0o644)
    found = check_hook(tree, "data", node="pve")
    assert found.faults == (
        f"/data/snippets/{HOOK} is not executable",
        "storage 'data' is not for node pve",
    )
    assert found.hint.endswith("hookscript install data")
    assert check_hook(tree, "data", node="two").faults == found.faults[:1]


def test_files_that_cannot_be_read_are_errors_not_nothing(tmp_path: Path) -> None:
    tree = storage_node(tmp_path, None)
    (tmp_path / "etc/pve/storage.cfg").mkdir()
    with pytest.raises(RefusedError, match=r"/etc/pve/storage\.cfg cannot be read"):
        storages(tree)
    (tmp_path / "etc/pve/ha").mkdir()
    assert Vmid(100) not in HaGuests(tree)
    (tmp_path / "etc/pve/ha/resources.cfg").symlink_to("/nowhere")
    with pytest.raises(RefusedError, match=r"/etc/pve/ha/resources\.cfg cannot be read"):
        HaGuests(tree)


def test_guest_100_is_not_guest_1000(tmp_path: Path) -> None:
    tree = storage_node(tmp_path, None)
    (tmp_path / "etc/pve/ha").mkdir()
    text = "vm: 1000\n\nvm: 200\n\tstate ignored\n\nct: 300\n"
    (tmp_path / "etc/pve/ha/resources.cfg").write_text(text)
    held = HaGuests(tree)
    assert [v for v in (100, 200, 300, 1000) if Vmid(v) in held] == [1000]
