"""The package in the guest: where its files are, dpkg, what is left of it."""

import json
import re
import subprocess
import tempfile
from pathlib import Path

from tests.e2e.in_guest import node

HERE = Path("/opt/e2e")
DEB = next(HERE.glob("*.deb"))
NEXT = Path("/tmp/next.deb")  # a guest that forgets
SETTINGS = Path(f"/etc/default/{node.UNIT}")
LOG = Path(f"/var/log/{node.UNIT}.log")
HOOK = Path(f"/var/lib/vz/snippets/{node.UNIT}-hook")
LINKED = Path(f"/usr/libexec/{node.UNIT}/{node.UNIT}-hook")
# One file: /lib is a link to /usr/lib.
UNIT_FILES = tuple(f"{lib}/systemd/system/{node.UNIT}.service" for lib in ("/usr/lib", "/lib"))
OURS = re.compile(r"/(?!opt/|tmp/|var/lib/dpkg/|etc/systemd/system/[^/]*\.d).*proxmox[-_]cpu.*")
CHECK_LIMIT = 900  # seconds


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


def logged(words: str) -> bool:
    return words in node.run("journalctl", "-b", "-u", node.UNIT, "-o", "cat", "--no-pager")


def refused() -> list[str]:
    """What the service's log says of the sandbox."""
    words = ("ermission denied", "not permitted", "Read-only file system")
    return [word for word in words if logged(word)]


def next_version() -> Path:
    """The package, but for the number the same."""
    if NEXT.exists():
        return NEXT
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        node.run("dpkg-deb", "--raw-extract", str(DEB), str(tree))
        control = tree / "DEBIAN/control"
        control.write_text(re.sub(r"^Version: .*$", "Version: 99", control.read_text(), flags=re.M))
        node.run("dpkg-deb", "-Zgzip", "-z1", "--build", str(tree), str(NEXT))
    return NEXT
