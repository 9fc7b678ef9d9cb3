"""The package on a booted Debian: its service does its whole job in its sandbox."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deb.in_guest import exposure, package
from tests.e2e.in_guest import guests_checks, kernel, node
from tests.e2e.promises import shows

PAGE = Path("/usr/lib/python3/dist-packages/proxmox_cpu_affinity/service/page")
DROP_IN = Path(f"/etc/systemd/system/{node.UNIT}.service.d/story.conf")


@contextmanager
def unit_with(text: str) -> Iterator[None]:
    """The service under a unit with these lines more."""
    DROP_IN.write_text(f"[Service]\n{text}\n")
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "restart", node.UNIT)
    try:
        yield
    finally:
        DROP_IN.unlink()
        node.run("systemctl", "daemon-reload")
        node.run("systemctl", "restart", node.UNIT)


def served(path: str) -> str:
    """What a browser gets."""
    port = Path(f"/run/{node.UNIT}/port").read_text().strip()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return str(answer.read().decode())


@shows()
def check_install_starts_the_service() -> None:
    package.assert_left(set())
    said = package.dpkg("dpkg", "--install", str(package.DEB))
    assert f"Setting up {node.UNIT}" in said, said
    assert node.unit("ActiveState") == "active"
    assert node.unit("UnitFileState") == "enabled"
    assert node.unit("FragmentPath") in package.UNIT_FILES
    assert node.ask("ping") == {"ping": "pong"}
    assert node.run(node.UNIT, "--version").startswith(node.UNIT)
    assert '<script type="module"' in served("/")
    for file in PAGE.iterdir():
        assert served("/" if file.name == "index.html" else f"/{file.name}")


@shows()
def check_exposure() -> None:
    package.installed()
    table = node.run("systemd-analyze", "security", "--no-pager", node.UNIT)
    version = node.run("systemctl", "--version").split()[1]
    said = f"systemd {version}: systemd-analyze security says {exposure.level(table)}"
    print(said, flush=True)  # noqa: T201
    exposure.assert_low_and_explained(table, node.run("systemctl", "cat", node.UNIT))


@shows(2)
def check_capabilities_are_needed() -> None:
    """Each of the two that are left: without it, what it is for fails. A guest is root's too, and
    has more capabilities than the service."""
    package.installed()
    node.fresh(100)
    pid = str(kernel.pid(100))
    for without, program in (
        ("CAP_SYS_PTRACE", ("taskset", "--pid", "--cpu-list", "0", pid)),
        ("CAP_SYS_NICE", ("cat", f"/proc/{pid}/numa_maps")),
        ("CAP_SYS_NICE CAP_SYS_PTRACE", ("true",)),
        ("CAP_SYS_NICE CAP_SYS_PTRACE", ("taskset", "--pid", "--cpu-list", "0", pid)),
        ("CAP_SYS_NICE CAP_SYS_PTRACE", ("migratepages", pid, "0", "1")),
    ):
        words = ("systemd-run", "--quiet", "--wait", "--pipe", "-p", "NoNewPrivileges=yes", "-p")
        said = node.run(*words, f"CapabilityBoundingSet={without}", *program, check=False)
        refused = "ermission denied" in said or "not permitted" in said
        assert refused == (len(without.split()) == 1), f"{program} with {without}: {said}"


@shows(2)
def check_whole_job_in_the_sandbox() -> None:
    """Measuring, drop-ins, scopes, CPUs that go: and nobody was refused anything."""
    package.installed()
    edited = package.SETTINGS.read_text()
    package.SETTINGS.write_text(f"{edited}PCA_ROUNDS=1\nPCA_ITERATIONS=10\n")
    Path(f"/var/lib/{node.UNIT}/matrix.json").unlink(missing_ok=True)
    try:
        with unit_with("Environment=\nUnsetEnvironment=PCA_PINGPONG"):
            node.wait_for("all was measured", lambda: package.logged("latency measured"))
            node.fresh(100, vcpus=2)
            node.confirmed(100)
            assert len(kernel.held(100)) == 2
            assert node.guest(100)["confinement"] == "scope"
            node.stop(100)
            node.start(100)
            assert kernel.began_on(100) == kernel.held(100), "its drop-in came too late"
            cpu = max(kernel.online() - kernel.held(100))
            online = kernel.CPUS / f"cpu{cpu}/online"
            online.write_text("0")
            node.wait_for("the service hears of it", lambda: package.logged("CPUs changed"))
            online.write_text("1")
    finally:
        package.SETTINGS.write_text(edited)
    assert not package.refused()


@shows(2)
def check_memory_is_moved_in_the_sandbox() -> None:
    package.installed()
    guests_checks.check_memory_follows_a_guest_that_changes_its_node()
    assert not package.refused()
    node.no_guests()


@shows(6)
def check_watchdog_ends_a_service_that_hangs() -> None:
    package.installed()
    node.fresh(100)
    before = kernel.masks(100)
    with unit_with("WatchdogSec=20"):
        node.run("systemctl", "kill", "--signal=STOP", node.UNIT)
        node.wait_for("systemd has started it again", lambda: package.logged("Watchdog timeout"))
        node.wait_for("it answers", lambda: node.unit("ActiveState") == "active")
        node.confirmed(100)
    assert kernel.masks(100) == before


@shows()
def check_node_files_that_come_late_are_seen() -> None:
    """pve-cluster mounts /etc/pve anew when it is restarted: into the service's namespace too."""
    package.installed()
    late = Path("/tmp/late")
    shutil.copytree(node.PVE, late, symlinks=True)
    (late / "qemu-server/777.conf").write_text("cores: 1\nmemory: 64\n")
    node.run("mount", "--bind", str(late), str(node.PVE))
    try:
        guests = json.dumps(node.ask("guests"))
        assert "777" in guests, guests
    finally:
        node.run("umount", str(node.PVE))
        shutil.rmtree(late)


@shows()
def check_rotated_log_is_opened_again() -> None:
    package.installed()
    assert package.LOG.stat().st_mode & 0o777 == 0o600
    node.run("logrotate", "--force", "--state", "/tmp/rotated", f"/etc/logrotate.d/{node.UNIT}")
    assert Path(f"{package.LOG}.1").exists()
    node.wait_for(
        "a new log is written", lambda: package.LOG.exists() and package.LOG.stat().st_size > 0
    )
    assert package.LOG.stat().st_mode & 0o777 == 0o600
