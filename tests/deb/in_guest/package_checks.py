"""The package on a booted Debian: what happens to the service and to guests meanwhile."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deb.in_guest import go
from tests.e2e.in_guest import kernel, node
from tests.e2e.promises import shows

HERE = Path("/opt/e2e")
DEB = next(HERE.glob("*.deb"))
NEXT = Path("/tmp/next.deb")  # a guest that forgets
SETTINGS = Path(f"/etc/default/{node.UNIT}")
LOG = Path(f"/var/log/{node.UNIT}.log")
HOOK = Path(f"/var/lib/vz/snippets/{node.UNIT}-hook")
LINKED = Path(f"/usr/libexec/{node.UNIT}/{node.UNIT}-hook")
# One file: /lib is a link to /usr/lib.
UNIT_FILES = tuple(f"{lib}/systemd/system/{node.UNIT}.service" for lib in ("/usr/lib", "/lib"))
DROP_IN = Path(f"/etc/systemd/system/{node.UNIT}.service.d/story.conf")
OURS = re.compile(r"/(?!opt/|tmp/|var/lib/dpkg/|etc/systemd/system/[^/]*\.d).*proxmox[-_]cpu.*")
EXPOSURE = 2.1
CHECK_LIMIT = 400  # seconds


def dpkg(*words: str) -> str:
    """dpkg or apt, nobody answers a question. A slow machine's hook gets more time after it."""
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=CHECK_LIMIT,
        check=False,
    )
    assert done.returncode == 0, f"{words} ended with {done.returncode}: {done.stdout}"
    for name, (pattern, slower) in json.loads((HERE / "slower.json").read_text()).items():
        file = Path("/", name)
        if file.exists() and re.search(pattern, text := file.read_text(), flags=re.M):
            fresh = file.with_name(".slower")
            fresh.write_text(re.sub(pattern, slower, text, flags=re.M))
            fresh.chmod(0o755)
            fresh.replace(file)
    return done.stdout


def installed() -> None:
    """The package is installed and its service answers."""
    if not Path(f"/usr/sbin/{node.UNIT}-service").exists():
        dpkg("dpkg", "--install", str(DEB))
    node.service_up()
    node.no_guests()


def ours() -> list[str]:
    """Files and directories that bear our name, but for the tests' own."""
    found = node.run(
        "find", "/etc", "/usr", "/var", "/run", "/tmp", "-xdev", "-name", "*proxmox*cpu*"
    )
    return [path for path in found.split() if OURS.fullmatch(path)]


def assert_left(promised: set[str]) -> None:
    left = set(ours())
    assert left == promised, left


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


def logged(words: str) -> bool:
    return words in node.run("journalctl", "-b", "-u", node.UNIT, "-o", "cat", "--no-pager")


@shows()
def check_install_starts_the_service() -> None:
    assert_left(set())
    said = dpkg("dpkg", "--install", str(DEB))
    assert f"Setting up {node.UNIT}" in said, said
    assert node.unit("ActiveState") == "active"
    assert node.unit("UnitFileState") == "enabled"
    assert node.unit("FragmentPath") in UNIT_FILES
    assert node.ask("ping") == {"ping": "pong"}
    assert node.run(node.UNIT, "--version").startswith(node.UNIT)


@shows()
def check_exposure() -> None:
    installed()
    table = node.run("systemd-analyze", "security", "--no-pager", node.UNIT)
    (level,) = re.findall(r"exposure level for \S+: ([0-9.]+)", table)
    version = node.run("systemctl", "--version").split()[1]
    print(f"systemd {version}: systemd-analyze security says {level}", flush=True)  # noqa: T201
    assert float(level) <= EXPOSURE, table


@shows(2)
def check_capabilities_are_needed() -> None:
    """Each of the two that are left: without it, what it is for fails. A guest is root's too, and
    has more capabilities than the service."""
    installed()
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
    installed()
    edited = SETTINGS.read_text()
    SETTINGS.write_text(f"{edited}PCA_ROUNDS=1\nPCA_ITERATIONS=10\n")
    Path(f"/var/lib/{node.UNIT}/matrix.json").unlink(missing_ok=True)
    try:
        with unit_with("Environment=\nUnsetEnvironment=PCA_PINGPONG"):
            node.wait_for("all was measured", lambda: logged("latency measured"))
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
            node.wait_for("the service hears of it", lambda: logged("CPUs changed"))
            online.write_text("1")
    finally:
        SETTINGS.write_text(edited)
    assert not logged("ermission denied")
    assert not logged("not permitted")
    assert not logged("Read-only file system")


@shows(6)
def check_watchdog_ends_a_service_that_hangs() -> None:
    installed()
    node.fresh(100)
    before = kernel.masks(100)
    with unit_with("WatchdogSec=20"):
        node.run("systemctl", "kill", "--signal=STOP", node.UNIT)
        node.wait_for("systemd has started it again", lambda: logged("Watchdog timeout"))
        node.wait_for("it answers", lambda: node.unit("ActiveState") == "active")
        node.confirmed(100)
    assert kernel.masks(100) == before


@shows()
def check_node_files_that_come_late_are_seen() -> None:
    """pve-cluster mounts /etc/pve anew when it is restarted: into the service's namespace too."""
    installed()
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
    installed()
    assert LOG.stat().st_mode & 0o777 == 0o600
    node.run("logrotate", "--force", "--state", "/tmp/rotated", f"/etc/logrotate.d/{node.UNIT}")
    assert Path(f"{LOG}.1").exists()
    node.wait_for("a new log is written", lambda: LOG.exists() and LOG.stat().st_size > 0)
    assert LOG.stat().st_mode & 0o777 == 0o600


def repacked() -> None:
    """The package as its next version, but for the number the same."""
    node.run("dpkg-deb", "--raw-extract", str(DEB), "/tmp/next")
    control = Path("/tmp/next/DEBIAN/control")
    control.write_text(re.sub(r"^Version: .*$", "Version: 99", control.read_text(), flags=re.M))
    node.run("dpkg-deb", "-Zgzip", "-z1", "--build", "/tmp/next", str(NEXT))


@shows(1, 6)
def check_upgrade_under_load() -> None:
    """Settings, placements and confinement stay; a guest is never let go; all others start."""
    installed()
    repacked()
    edited = SETTINGS.read_text().replace("#PCA_LOG_LEVEL=info", "PCA_LOG_LEVEL=debug")
    SETTINGS.write_text(edited)
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
        dpkg("dpkg", "--install", str(NEXT))
        began = starts
        node.wait_for("one was started afterwards", lambda: starts > began + 1)
    finally:
        over.set()
        for other in others:
            other.join()
    assert not wide, wide
    assert not failed, failed
    assert SETTINGS.read_text() == edited
    node.confirmed(100, 101)
    assert node.run("dpkg-query", "-W", "-f", "${Version}", node.UNIT) == "99"


@shows(4)
def check_remove_while_guests_name_the_hook() -> None:
    """They are let go, and start again all the same, whichever storage has the hook; what stays
    is what was promised."""
    installed()
    other = Path("/srv/other/snippets")
    other.mkdir(parents=True, exist_ok=True)
    storages = node.PVE / "storage.cfg"
    known = storages.read_text()
    storages.write_text(f"{known}\ndir: other\n\tpath /srv/other\n\tcontent snippets\n")
    node.run(node.UNIT, "hookscript", "install", "other")
    link = other / HOOK.name
    assert link.is_symlink()
    node.fresh(100, vcpus=2)
    assert len(kernel.held(100)) == 2
    node.configure(102, keys={"hookscript": f"other:snippets/{HOOK.name}"})

    said = dpkg("dpkg", "--remove", node.UNIT)
    assert re.search(r"100 \(\S+\), 102 \(", said), said
    assert kernel.held(100) == kernel.online()
    for vmid, hook in ((100, HOOK), (102, link)):
        assert node.run(str(hook), str(vmid), "pre-start") == ""
    node.stop(100)
    assert node.start(100) == ""
    dpkg("dpkg", "--purge", node.UNIT)
    assert_left({str(HOOK), str(LINKED), str(LINKED.parent)})

    dpkg("dpkg", "--install", str(DEB))
    node.confirmed(100)
    assert link.read_bytes() == HOOK.read_bytes() != b"", "the link leads to another hook"
    assert "read back" in node.fresh(102, keys={"hookscript": f"local:snippets/{HOOK.name}"})
    storages.write_text(known)


@shows(4)
def check_remove_while_the_cluster_cannot_be_read() -> None:
    installed()
    away = node.PVE / "nodes.away"
    (node.PVE / "nodes").rename(away)
    try:
        said = dpkg("dpkg", "--remove", node.UNIT)
    finally:
        away.rename(node.PVE / "nodes")
    assert "cannot be read" in said, said
    assert node.run(str(HOOK), "100", "pre-start") == ""


@shows(4)
def check_nothing_is_left_after_a_purge() -> None:
    installed()
    node.fresh(100)
    node.configure(100, keys={"hookscript": ""})
    dpkg("dpkg", "--purge", node.UNIT)
    assert_left(set())
    assert not list(Path("/run/systemd/system").glob("*.scope.d"))
    assert kernel.held(100) == kernel.online()
    node.no_guests()


@shows(4, 6)
def check_upgrade_from_the_go_project() -> None:
    """Its unit below /etc goes, its edited settings stay as they are, its pinned guests are kept;
    nobody is asked anything."""
    node.no_guests()
    dpkg("dpkg", "--purge", node.UNIT)  # with its state, also where it was only removed
    dpkg("dpkg", "--install", go.package())
    assert node.unit("FragmentPath") == str(go.UNIT_FILE)
    edited = SETTINGS.read_text() + go.EDITED
    SETTINGS.write_text(edited)
    node.fresh(100, vcpus=2)
    go.pin(100, {1, 3})

    said = dpkg("dpkg", "--install", str(DEB))
    assert "onffile" not in said, said
    assert SETTINGS.read_text() == edited
    assert not go.UNIT_FILE.exists()
    assert node.unit("FragmentPath") in UNIT_FILES
    assert node.unit("UnitFileState") == "enabled"
    assert (go.WANTS.resolve()).exists()
    assert node.unit("ActiveState") == "active"
    assert Path(f"/run/{node.UNIT}/port").read_text().strip() == "9000"
    assert logged("PCA_SOCKET_RETRY has no meaning any more")
    node.confirmed(100)
    assert kernel.held(100) == {1, 3}
    assert len(HOOK.read_text().splitlines()) > 3, "the Go project's hook is still there"
    assert not [path for path in ours() if ".kept" in path or ".dpkg-" in path]
