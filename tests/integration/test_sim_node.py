"""Making, opening, configuring and removing simulated nodes."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.model.errors import (
    NotPveHostError,
    RefusedError,
    SettingError,
    UsageError,
)
from proxmox_cpu_affinity.sim import firmware, node, processes
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind, PostStop
from proxmox_cpu_affinity.sim.tree import ROOT_MAX

from .conftest import short_root


@pytest.fixture
def root() -> Iterator[Path]:
    with short_root() as path:
        yield path


def test_the_tree(sim_node: Node) -> None:
    links = {
        "/etc/pve/local": "nodes/pve",
        "/etc/pve/qemu-server": "nodes/pve/qemu-server",
        "/etc/pve/lxc": "nodes/pve/lxc",
        "/var/run": "../run",
        "/var/lock": "../run/lock",
        "/sys": "/sys",
        "/proc": "/proc",
    }
    assert {link: str(sim_node.path(link).readlink()) for link in links} == links
    modes = {
        "/etc/pve/storage.cfg": 0o640,
        "/etc/pve/priv": 0o700,
        "/etc/pve/.vmlist": 0o440,
        "/run/qemu-server": 0o750,
        "/run/qmeventd.sock": 0o600,
        "/usr/sbin/qm": 0o755,
    }
    assert {path: stat.S_IMODE(sim_node.path(path).stat().st_mode) for path in modes} == modes
    for folder in ("/etc/default", "/var/lib/vz/snippets", "/var/log", "/run/lock/qemu-server"):
        assert sim_node.path(folder).is_dir()


def test_a_fresh_pve_allows_no_snippets(root: Path) -> None:
    with node.create(root, guest=GuestKind.STANDIN, snippets=False) as made:
        assert "snippets" not in made.path("/etc/pve/storage.cfg").read_text()


def test_a_snapshot_of_sys_decides_how_many_vcpus_fit(root: Path) -> None:
    files = {"/sys/devices/system/cpu/online": "0-63\n", "devices/system/cpu/possible": "0-63\n"}
    with node.create(root, name="big", guest=GuestKind.STANDIN, sys_files=files) as made:
        assert made.name == "big"
        assert made.path("/sys/devices/system/cpu/possible").read_text() == "0-63\n"
        made.do("create", 100, "--cores", 16, "--sockets", 4)
        made.do("start", 100)
        pid = made.pid(100)
        assert pid is not None
        assert len(os.listdir(f"/proc/{pid}/task")) >= 64
        assert made.path("/etc/pve/nodes/big/qemu-server/100.conf").exists()


def test_open(root: Path) -> None:
    with pytest.raises(NotPveHostError):
        node.open(root)
    made = node.create(root, guest=GuestKind.STANDIN)
    made.do("create", 100, "--start")
    again = node.open(root)
    assert again.pid(100) == made.pid(100) is not None
    made.close()
    with node.open(root) as again:
        assert again.do("status", 100) == "status: stopped\n"
    made.destroy()
    assert not root.exists()


def test_settings_are_kept_and_checked(sim_node: Node) -> None:
    sim_node.configure(post_stop=PostStop.PVE8, lock_timeout=1.5)
    settings = node.open(sim_node.root).tree.settings
    assert (settings.post_stop, settings.lock_timeout) == (PostStop.PVE8, 1.5)
    file = sim_node.tree.settings_file
    good = file.read_text()
    for bad in ("", "[]", '{"guest": "xen"}', '{"nonsense": 1}', '{"post_stop": 7}'):
        file.write_text(bad)
        with pytest.raises(SettingError):
            node.open(sim_node.root)
    file.write_text(good)


def test_refused_roots(root: Path) -> None:
    with pytest.raises(UsageError):
        node.create(Path("/tmp") / ("x" * ROOT_MAX))
    (root / "file").touch()
    with pytest.raises(RefusedError):
        node.create(root)
    assert [path.name for path in root.iterdir()] == ["file"]


def test_the_longest_root_works(root: Path) -> None:
    deep = root / ("d" * (ROOT_MAX - len(str(root)) - 1))
    with node.create(deep, guest=GuestKind.STANDIN) as made:
        made.do("create", 999_999_999, "--start")
        assert made.do("status", 999_999_999) == "status: running\n"


def test_closing_ends_guests_whose_pidfile_is_gone(sim_node: Node) -> None:
    sim_node.do("create", 100, "--start")
    pid = sim_node.pid(100)
    assert pid is not None
    sim_node.path("/run/qemu-server/100.pid").unlink()
    sim_node.close()
    assert processes.wait_until(lambda: not processes.arguments(pid), seconds=5)


def test_a_foreign_process_in_the_pidfile_is_no_guest_and_is_left_alone(sim_node: Node) -> None:
    sim_node.do("create", 100)
    sim_node.path("/run/qemu-server/100.pid").write_text(f"{os.getpid()}\n")
    assert sim_node.pid(100) is None
    assert sim_node.do("status", 100) == "status: stopped\n"
    sim_node.do("stop", 100)
    sim_node.close()


def test_end_spares_a_process_that_is_not_proved() -> None:
    assert not processes.end(os.getpid(), lambda _: False, signals=())


def test_two_nodes_at_once(sim_node: Node, root: Path) -> None:
    with node.create(root, guest=GuestKind.STANDIN) as other:
        for each in (sim_node, other):
            each.do("create", 100, "--start")
        pid = sim_node.pid(100)
        assert pid != other.pid(100)
        other.close()
        assert sim_node.pid(100) == pid


def test_the_firmware_fits_where_qemu_wants_it() -> None:
    image = firmware.image()
    assert len(image) == firmware.SIZE
    assert image[-16:-11] == b"\xea\x00\x00\x00\xf0"
