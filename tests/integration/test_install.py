"""`make install`: the project as installed software, on Debian's own python3-* packages.

The installed tree is laid over this system in a mount namespace and used with chroot: every path
is the real one, and nothing of the system is changed.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.service import assets

CHECKOUT = Path(__file__).resolve().parents[2]
LIBRARIES = ("aiohttp", "click", "rich", "dbus_fast", "prometheus_client", "numpy")
OVERLAY = """
set -e
mount -t overlay overlay -o lowerdir=/,upperdir="$1/up",workdir="$1/work" "$1/mnt"
mount --rbind /proc "$1/mnt/proc"
mount --rbind /sys "$1/mnt/sys"
mount --rbind /dev "$1/mnt/dev"
root=$1/mnt
shift
exec chroot "$root" "$@"
"""


def debian_has_the_libraries() -> bool:
    tried = "; ".join(f"import {name}" for name in LIBRARIES)
    found = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", tried], capture_output=True, check=False
    )
    return found.returncode == 0


pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to lay the tree over the system"),
    pytest.mark.skipif(
        not debian_has_the_libraries(),
        reason="needs python3-aiohttp python3-click python3-rich python3-dbus-fast "
        "python3-prometheus-client python3-numpy",
    ),
]


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """A directory with the installed tree in `up`, ready to be laid over the system."""
    base = Path(tempfile.mkdtemp(prefix="pi-", dir="/var/tmp"))
    for name in ("up", "work", "mnt"):
        (base / name).mkdir()
    subprocess.run(
        ["make", "-C", str(CHECKOUT), "install", f"DESTDIR={base}/up"],
        check=True,
        capture_output=True,
    )
    yield base
    shutil.rmtree(base)


def run(base: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a program as if the tree were installed in /."""
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", OVERLAY, "sh", str(base), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        check=False,
    )


def test_what_is_installed_and_where(installed: Path) -> None:
    files = {str(p.relative_to(installed / "up")) for p in (installed / "up").rglob("*.*")}
    assert not [name for name in files if "python3." in name], "a path with a Python version"
    for path, mode in {
        "usr/bin/proxmox-cpu-affinity": 0o755,
        "usr/sbin/proxmox-cpu-affinity-service": 0o755,
        "usr/libexec/proxmox-cpu-affinity/pingpong": 0o755,
        "usr/libexec/proxmox-cpu-affinity/notify.py": 0o644,
        "var/lib/vz/snippets/proxmox-cpu-affinity-hook": 0o755,
        "usr/lib/systemd/system/proxmox-cpu-affinity.service": 0o644,
        "etc/default/proxmox-cpu-affinity": 0o644,
        "etc/logrotate.d/proxmox-cpu-affinity": 0o644,
    }.items():
        assert (installed / "up" / path).stat().st_mode & 0o777 == mode, path
    pages = installed / "up/usr/lib/python3/dist-packages/proxmox_cpu_affinity/service/page"
    assert {p.name for p in pages.iterdir()} == {p.name for p in assets.FOLDER.iterdir()}
    assert {"index.html", "page.css", "page.js"} <= {p.name for p in pages.iterdir()}


def test_command_line_and_measuring_run_as_installed(installed: Path) -> None:
    done = run(installed, "/usr/bin/proxmox-cpu-affinity", "cpuinfo", "--json")
    assert done.returncode == 0, done.stderr
    assert '"latency_ns"' in done.stdout or len(os.sched_getaffinity(0)) == 1


def test_demo_runs_as_installed(installed: Path) -> None:
    done = run(
        installed, "/usr/bin/proxmox-cpu-affinity", "demo", "--guests", "standin", "-o", "/tmp/out"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("threads read back") == 5


def test_service_outside_of_a_pve_node_answers_and_says_so(installed: Path) -> None:
    """No /etc/pve here: the service runs, concludes nothing about guests, and says why."""
    script = (
        "PCA_PORT=0 /usr/sbin/proxmox-cpu-affinity-service --stdout & "
        "pid=$!; i=0; "
        "until proxmox-cpu-affinity status ping >/dev/null 2>&1; do "
        "i=$((i + 1)); [ $i -lt 100 ] || break; sleep 0.1; done; "
        "proxmox-cpu-affinity status --json; kill $pid; wait $pid; echo status $?"
    )
    done = run(installed, "/bin/sh", "-c", script)
    assert "status 0" in done.stdout, done.stdout + done.stderr
    assert "this is no Proxmox VE node" in done.stdout


def test_unit_names_what_is_installed(installed: Path) -> None:
    unit = (installed / "up/usr/lib/systemd/system/proxmox-cpu-affinity.service").read_text()
    (start,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    program = start.removeprefix("ExecStart=").split()[0]
    assert os.access(installed / "up" / program.lstrip("/"), os.X_OK)
