"""The package for arm64, built by the cross compiler: its programs run, translated by qemu-aarch64.

What is around them is Debian 12's own arm64 packages, only unpacked: no kernel of that kind and no
systemd are here, and maintainer scripts are not run.
"""

import re
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.deb.plain import debian_root, quick_folder
from tests.e2e.report import Result, say

NAME = "proxmox-cpu-affinity"
# What the installation of these packages would have linked to.
LIBRARIES = ":".join(f"/usr/lib/aarch64-linux-gnu/{name}" for name in ("blas", "lapack"))
PLAN = ("plan", "--host", "generated:2x2x4x2", "--guest", "100:4", "--guest", "101:2")
LIMIT = 300  # seconds


@dataclass(frozen=True, slots=True)
class Foreign:
    """An unpacked Debian with the package in it."""

    root: Path

    def words(self, program: str, *words: str) -> list[str]:
        """How one of its programs is started."""
        emulator = ("qemu-aarch64", "-L", str(self.root), "-E", f"LD_LIBRARY_PATH={LIBRARIES}")
        return [*emulator, str(self.root / program), *words]

    def python(self, program: str, *words: str) -> list[str]:
        return self.words("usr/bin/python3", "-I", str(self.root / program), *words)


def said(words: Sequence[str], given: str = "") -> str:
    """What a program prints."""
    done = subprocess.run(
        words, input=given, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    return done.stdout + ("" if done.returncode == 0 else f"{done.returncode}: {done.stderr}")


def check_measuring_program_speaks(foreign: Foreign) -> None:
    program = foreign.words(f"usr/libexec/{NAME}/pingpong")
    assert (foreign.root / f"usr/libexec/{NAME}/pingpong").read_bytes()[18:20] == b"\xb7\0"
    assert re.match(r"pingpong [0-9]+\nbad 1\n", said(program, "nonsense\n"))


def check_plan_is_the_same_as_here(foreign: Foreign) -> None:
    here = said([sys.executable, "-m", "proxmox_cpu_affinity", *PLAN])
    assert "100   4" in here, here
    assert said(foreign.python(f"usr/bin/{NAME}", *PLAN)) == here


def check_service_answers(foreign: Foreign) -> None:
    with tempfile.TemporaryDirectory(prefix="pca-") as folder:
        node = Path(folder) / "n"
        ours = [sys.executable, "-m", "proxmox_cpu_affinity", "sim"]
        subprocess.run(
            [*ours, "create", "--guests", "standin", node], check=True, stdout=subprocess.DEVNULL
        )
        port = node / f"run/{NAME}/port"
        service = subprocess.Popen(
            foreign.python(
                f"usr/sbin/{NAME}-service", "--root", str(node), "--port", "0", "--stdout"
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            end = time.monotonic() + LIMIT
            while service.poll() is None and time.monotonic() < end and not port.exists():
                time.sleep(0.2)
            assert port.exists(), "it does not answer"
            address = f"http://127.0.0.1:{port.read_text().strip()}/"
            with urllib.request.urlopen(address, timeout=LIMIT) as answer:
                assert '<script type="module"' in answer.read().decode()
        finally:
            service.terminate()
            log = service.communicate(timeout=LIMIT)[0]
            said([*ours, "destroy", str(node)])
        assert "answers" in log, log
        assert "Traceback" not in log, log


CHECKS: tuple[Callable[[Foreign], None], ...] = (
    check_measuring_program_speaks,
    check_plan_is_the_same_as_here,
    check_service_answers,
)


@contextmanager
def unpacked(deb: Path) -> Iterator[Foreign]:
    """A Debian with what the package depends on and the package itself. PlainError."""
    needed = said(["dpkg-deb", "--field", str(deb), "Depends"])
    names = re.sub(r":any| \(.*?\)", "", needed.strip()).split(", ")
    kept = debian_root("bookworm", *sorted(names), foreign="arm64")
    with tempfile.TemporaryDirectory(prefix="deb-", dir=quick_folder()) as folder:
        subprocess.run(["cp", "-a", kept, f"{folder}/root"], check=True)
        subprocess.run(["dpkg-deb", "-x", str(deb), f"{folder}/root"], check=True)
        yield Foreign(Path(folder) / "root")


def run(deb: Path) -> Iterator[Result]:
    """PlainError."""
    with unpacked(deb) as foreign:
        for check in CHECKS:
            began, text = time.monotonic(), ""
            try:
                check(foreign)
            except Exception:
                text = traceback.format_exc()
            name = f"arm64.{check.__name__.removeprefix('check_')}"
            outcome = "FAILED" if text else "passed"
            say(f"{outcome}  bookworm: {name} ({time.monotonic() - began:.1f} s)")
            if text:
                say(text)
            yield Result("bookworm", name, passed=not text)
