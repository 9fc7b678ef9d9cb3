"""The package on a booted Debian: what upgrades and removals do to guests, and what they leave."""

import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.deb.in_guest import go, package
from tests.e2e.in_guest import kernel, node
from tests.e2e.promises import shows

STORAGES = (
    "\ndir: other\n\tpath /srv/other\n\tcontent snippets\n"
    "\ndir: shared\n\tpath /srv/shared\n\tcontent snippets\n\tshared 1\n"
)
# Settings, log, state, and, by Debian's own helper, whether the unit is enabled.
HELPER = "/var/lib/systemd/deb-systemd-helper-enabled"
WANTED = f"multi-user.target.wants/{node.UNIT}.service"
KEPT_BY_A_REMOVAL = {
    *(f"{folder}/{WANTED}" for folder in ("/etc/systemd/system", HELPER)),
    f"{HELPER}/{node.UNIT}.service.dsh-also",
    str(package.SETTINGS),
    f"/etc/logrotate.d/{node.UNIT}",
    str(package.LOG),
    f"/run/{node.UNIT}",
    f"/var/lib/{node.UNIT}",
}
# What comes and goes without us: the tests' own, dpkg's, the journal, others' compiled modules.
OTHERS = re.compile(
    r"/opt/e2e/|(?!.*proxmox[-_]cpu)"
    r"/((etc/pve|srv|tmp|var/lib/(dpkg|systemd)|var/log/(journal|dpkg)|var/cache)\b|.*/__pycache__\b)"
)


def everything() -> set[str]:
    """All of the disk; /run and /tmp are none."""
    return set(node.run("find", "/", "-xdev").splitlines())


BEFORE = everything()


@shows(1, 6)
def check_upgrade_under_load() -> None:
    """Settings, placements and confinement stay; a guest is never let go; all others start."""
    package.installed()
    new = package.next_version()
    edited = package.SETTINGS.read_text().replace("#PCA_LOG_LEVEL=info", "PCA_LOG_LEVEL=debug")
    package.SETTINGS.write_text(edited)
    for vmid in (100, 101):
        node.fresh(vmid, vcpus=2)
    before = {vmid: kernel.held(vmid) for vmid in (100, 101)}
    wide: list[str] = []
    failed: list[str] = []
    starts = 0
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            wide.extend(f"{v}: {kernel.masks(v)}" for v in before if kernel.held(v) != before[v])

    def start_and_stop() -> None:
        nonlocal starts
        while not over.is_set():
            try:
                node.fresh(200)
                node.stop(200)
                starts += 1
            except AssertionError as error:
                failed.append(str(error))

    others = [threading.Thread(target=look), threading.Thread(target=start_and_stop)]
    for other in others:
        other.start()
    try:
        node.wait_for("a guest was started", lambda: starts > 0)
        package.dpkg("dpkg", "--install", str(new))
        began = starts
        node.wait_for("one was started afterwards", lambda: starts > began + 1)
    finally:
        over.set()
        for other in others:
            other.join()
    assert not wide, wide
    assert not failed, failed
    assert package.SETTINGS.read_text() == edited
    node.confirmed(100, 101)
    assert node.run("dpkg-query", "-W", "-f", "${Version}", node.UNIT) == "99"


@contextmanager
def hook_on_storages() -> Iterator[Mapping[int, Path]]:
    """Guests that name the hook on three storages: the package's own, a link, a copy."""
    storages = node.PVE / "storage.cfg"
    known = storages.read_text()
    storages.write_text(f"{known}{STORAGES}")
    hooks = {100: package.HOOK}
    for vmid, storage in ((102, "other"), (103, "shared")):
        hooks[vmid] = Path(f"/srv/{storage}/snippets/{package.HOOK.name}")
        hooks[vmid].parent.mkdir(parents=True, exist_ok=True)
        node.run(node.UNIT, "hookscript", "install", storage)
        node.configure(vmid, keys={"hookscript": f"{storage}:snippets/{package.HOOK.name}"})
    node.configure(100)
    try:
        yield hooks
    finally:
        node.no_guests()
        storages.write_text(known)
        shutil.rmtree("/srv/other")
        shutil.rmtree("/srv/shared")


def all_start(hooks: Mapping[int, Path], *, placed: bool) -> None:
    """They run anew: placed, or by hooks that do nothing and say nothing."""
    node.power_off(*(vmid for vmid in hooks if (node.GUESTS / f"{vmid}.pid").exists()))
    for vmid, said in node.start_all(hooks).items():
        assert ("read back" in said) if placed else (said == ""), f"{vmid}: {said}"
        assert (kernel.held(vmid) != kernel.online()) == placed


@shows(1, 4)
def check_guests_start_whichever_storage_has_the_hook() -> None:
    """After each of: install, upgrade, remove, install, purge, install. Guests that run are let go
    by a removal; what stays is what was promised."""
    package.installed()
    with hook_on_storages() as hooks:
        link, copy = hooks[102], hooks[103]
        assert link.readlink() == package.LINKED
        assert not copy.is_symlink()
        all_start(hooks, placed=True)
        package.dpkg("dpkg", "--install", str(package.next_version()))
        all_start(hooks, placed=True)
        said = package.dpkg("dpkg", "--remove", node.UNIT)
        assert re.search(r"100 \(\S+\), 102 \(\S+\), 103 \(", said), said
        assert all(kernel.held(vmid) == kernel.online() for vmid in hooks)
        all_start(hooks, placed=False)
        package.dpkg("dpkg", "--install", str(package.DEB))
        all_start(hooks, placed=True)
        package.dpkg("dpkg", "--purge", node.UNIT)
        all_start(hooks, placed=False)
        package.assert_left({str(package.HOOK), str(package.LINKED), str(package.LINKED.parent)})
        package.dpkg("dpkg", "--install", str(package.DEB))
        assert link.read_bytes() == package.HOOK.read_bytes() == copy.read_bytes()
        node.confirmed(*hooks)
        all_start(hooks, placed=True)


@shows(4)
def check_remove_while_the_cluster_cannot_be_read() -> None:
    package.installed()
    away = node.PVE / "nodes.away"
    (node.PVE / "nodes").rename(away)
    try:
        said = package.dpkg("dpkg", "--remove", node.UNIT)
    finally:
        away.rename(node.PVE / "nodes")
    assert "cannot be read" in said, said
    assert "systemctl start pve-cluster" in said, said
    assert node.run(str(package.HOOK), "100", "pre-start") == ""


@shows(4)
def check_nothing_is_left_after_a_purge() -> None:
    """While no guest names the hook: a removal leaves what was set and what is known, a purge
    nothing, in no folder; guests start."""
    package.installed()
    node.fresh(100, keys={"hookscript": "", "tags": "cpu-affinity"})
    node.confirmed(100)
    package.dpkg("dpkg", "--remove", node.UNIT)
    package.assert_left(KEPT_BY_A_REMOVAL)
    assert kernel.held(100) == kernel.online()
    node.power_off(100)
    assert node.start(100) == ""
    assert kernel.held(100) == kernel.online()
    package.dpkg("dpkg", "--purge", node.UNIT)
    package.assert_left(set())
    changed = {path for path in everything() ^ BEFORE if not OTHERS.match(path)}
    assert not changed, sorted(changed)
    assert not list(Path("/run/systemd/system").glob("*.scope.d"))
    assert "proxmox" not in node.run("dpkg-divert", "--list")
    assert kernel.held(100) == kernel.online()
    node.no_guests()


@shows(4, 6)
def check_upgrade_from_the_go_project() -> None:
    """Its unit below /etc goes, its edited settings stay as they are, its pinned guests are kept;
    nobody is asked anything."""
    node.no_guests()
    package.dpkg("dpkg", "--purge", node.UNIT)  # with its state, also where it was only removed
    package.dpkg("dpkg", "--install", go.package())
    assert node.unit("FragmentPath") == str(go.UNIT_FILE)
    edited = package.SETTINGS.read_text() + go.EDITED
    package.SETTINGS.write_text(edited)
    node.fresh(100, vcpus=2)
    go.pin(100, {1, 3})

    said = package.dpkg("dpkg", "--install", str(package.DEB))
    assert "onffile" not in said, said
    assert package.SETTINGS.read_text() == edited
    assert not go.UNIT_FILE.exists()
    assert node.unit("FragmentPath") in package.UNIT_FILES
    assert node.unit("UnitFileState") == "enabled"
    assert (go.WANTS.resolve()).exists()
    assert node.unit("ActiveState") == "active"
    assert Path(f"/run/{node.UNIT}/port").read_text().strip() == "9000"
    assert package.logged("PCA_SOCKET_RETRY has no meaning any more")
    node.confirmed(100)
    assert kernel.held(100) == {1, 3}
    assert len(package.HOOK.read_text().splitlines()) > 3, "the Go project's hook is still there"
    assert not [path for path in package.ours() if ".kept" in path or ".dpkg-" in path]
