"""What is laid over a guest's files: the project as `make install` leaves it, and the tests.

Made from a copy of the sources, so that a checkout is left as it is. The programs in C are linked
statically: the guest's libc may be older than the one they were built with.
"""

import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
TESTS = "opt/e2e"  # where the guest has the tests
LIMIT = 120  # seconds
# Python starts 20 times slower under emulation, so the hook gets that much more time there: a
# setting of the tests, what is installed elsewhere has none for it.
SLOWER = {
    "usr/libexec/proxmox-cpu-affinity/notify.py": (r"^BUDGET_S = 1\.5$", "BUDGET_S = 40"),
    "usr/libexec/proxmox-cpu-affinity/proxmox-cpu-affinity-hook": (
        r"\btimeout -k 0\.1 1\.8\b",
        "timeout -k 1 50",
    ),
    "var/lib/vz/snippets/proxmox-cpu-affinity-hook": (
        r"\btimeout -k 0\.1 1\.8\b",
        "timeout -k 1 50",
    ),
}
# So does the service's start. And nothing is measured in the background: what an emulator's caches
# cost is noise, while the checks want guests placed by the topology.
UNIT = """[Service]
TimeoutStartSec=120
Environment=PCA_PINGPONG=/nowhere
"""


class StageError(Exception):
    """The tree could not be made; the text is for the person at the keyboard."""


def make_stage(folder: Path, *, emulated: bool, pluggable: bool) -> Path:
    """The tree in `folder`, for guests that are `emulated`, and that can be given CPUs or not.
    StageError."""
    copy, stage = folder / "checkout", folder / "stage"
    for name in ("src", "hook", "scripts"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "Makefile", copy)
    _run("make", "-C", str(copy), "install", f"DESTDIR={stage}", "LDFLAGS=-static")
    flags = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-static")
    _run("cc", *flags, "-o", str(stage / "usr/bin/kvm"), str(HERE / "in_guest/kvm.c"))
    _lay_tests(stage)
    if not pluggable:
        (stage / TESTS / "tests/e2e/in_guest/arrival_checks.py").unlink()
    if emulated:
        for name, (pattern, slower) in SLOWER.items():
            _replace(stage / name, pattern, slower)
    return stage


def _run(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True, timeout=LIMIT)
    except FileNotFoundError:
        raise StageError(f"{words[0]} is missing: apt install make gcc libc6-dev") from None
    except subprocess.CalledProcessError as error:
        raise StageError(f"{' '.join(words)}:\n{error.stdout}{error.stderr}") from None


def _lay_tests(stage: Path) -> None:
    """The tests under their own package's name, and the guest's starter as a command."""
    ours = stage / TESTS / "tests/e2e/in_guest"
    ours.mkdir(parents=True)
    for path in (HERE / "in_guest").glob("*.py"):
        shutil.copy(path, ours)
    for name in ("shape.py", "promises.py"):
        shutil.copy(HERE / name, ours.parent)
    shutil.copy(HERE / "in_guest/guest", stage / "usr/sbin/guest")
    shutil.copy(CHECKOUT / "scripts/capture-host", stage / TESTS)
    unit = stage / "etc/systemd/system/proxmox-cpu-affinity.service.d/e2e.conf"
    unit.parent.mkdir(parents=True)
    unit.write_text(UNIT)


def _replace(file: Path, pattern: str, text: str) -> None:
    changed, count = re.subn(pattern, text, file.read_text(), flags=re.M)
    if count != 1:
        raise StageError(f"{file.name} has no longer what {pattern} finds: tests/e2e/stage.py")
    file.write_text(changed)
