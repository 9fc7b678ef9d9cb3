"""A plain Debian without systemd running, to install and remove the package in: quick, and native.

The Debian is one that scripts/debian-root keeps; what is done in it is laid over it and forgotten.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT = 400  # seconds for one script
ROOM = 2 << 30  # bytes
# Run with mounts and processes of its own, so that nothing is left of them.
INSIDE = r"""
set -eu
base=$1
mount -t overlay overlay -o "lowerdir=$2,upperdir=$base/up,workdir=$base/work" "$base/mnt"
mount --rbind /dev "$base/mnt/dev"
mount -t proc proc "$base/mnt/proc"
mount -t sysfs -o ro sysfs "$base/mnt/sys"  # a simulated node has the CPUs of its host
for file in resolv.conf hosts; do
    [ ! -e "/etc/$file" ] || cp "/etc/$file" "$base/mnt/etc/$file"
done
shift 2
exec chroot "$base/mnt" sh -euc "$@"
"""


class PlainError(Exception):
    """The Debian could not be had; the text is for the person at the keyboard."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a script printed on either output, and its exit status."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Plain:
    """One such Debian; what its scripts change stays until it is left."""

    base: Path
    root: str

    @property
    def files(self) -> Path:
        """Where its changed files can be written and read from outside."""
        return self.base / "up"

    def run(self, script: str, *words: str) -> Answer:
        done = subprocess.run(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
                *("sh", "-c", INSIDE, "sh", str(self.base), self.root, script, "sh", *words),
            ],
            stdin=subprocess.DEVNULL,  # whoever asks a question gets no answer
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            env={
                **{key: value for key, value in os.environ.items() if "proxy" in key.lower()},
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL": "C.UTF-8",
            },
            check=False,
        )
        return Answer(done.returncode, done.stdout)

    def must(self, script: str, *words: str) -> str:
        answer = self.run(script, *words)
        assert answer.status == 0, f"{script}\nended with {answer.status}:\n{answer.text}"
        return answer.text


def debian_root(suite: str, *packages: str, foreign: str = "") -> str:
    """A kept Debian with these packages, `foreign`: of that architecture. PlainError."""
    done = subprocess.run(
        [str(CHECKOUT / "scripts/debian-root"), suite, *packages],
        capture_output=True,
        text=True,
        env={**os.environ, "FOREIGN": foreign},
        check=False,
    )
    if done.returncode != 0:
        raise PlainError(done.stderr.strip())
    return done.stdout.strip()


def quick_folder() -> str:
    """Where a Debian is changed: in memory if there is room, for dpkg waits for a disk often."""
    memory = "/dev/shm"
    return memory if Path(memory).is_dir() and disk_usage(memory).free > ROOM else "/var/tmp"


@contextmanager
def plain(suite: str) -> Iterator[Plain]:
    """A Debian as a minimal installation leaves it. PlainError."""
    root = debian_root(suite)
    base = Path(tempfile.mkdtemp(prefix="deb-", dir=quick_folder()))
    try:
        for name in ("up", "work", "mnt"):
            (base / name).mkdir()
        base.chmod(0o755)
        yield Plain(base, root)
    finally:
        shutil.rmtree(base)
