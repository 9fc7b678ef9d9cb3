"""Disk images of Debian guests: built once by mmdebstrap, kept in a cache outside the checkout.

An image holds Debian and what the project depends on, never the project: that is pushed into each
guest. A change of this file or of the agent is another image. Out of scope: booting (guest.py).
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUITES = ("trixie", "bookworm")
BUILD_LIMIT = 400  # seconds
PACKAGES = (
    *("systemd-sysv", "dbus", "udev", "kmod", "procps", "util-linux", "numactl"),
    *("linux-image-cloud-amd64", "initramfs-tools"),
    # What the README tells to install on a Proxmox VE node.
    *("python3", "python3-aiohttp", "python3-click", "python3-rich", "python3-dbus-fast"),
    *("python3-prometheus-client", "python3-numpy"),
    "logrotate",  # as every node has it
)
NESTED = ("qemu-system-x86",)  # for guests in the guest: 90 MB more
FILES = {
    "etc/hostname": "e2e\n",
    "etc/hosts": "127.0.0.1 localhost e2e\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 0\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    # Unpacking an initrd with every driver takes long under emulation.
    "etc/initramfs-tools/conf.d/e2e": "MODULES=list\nCOMPRESS=gzip\n",
    "usr/share/initramfs-tools/modules.d/e2e": "virtio_pci\nvirtio_blk\nvirtio_console\next4\n",
    # Debian leaves a CPU that was plugged in offline, as does Proxmox VE; guests here take it.
    "etc/udev/rules.d/40-e2e-cpus.rules": 'SUBSYSTEM=="cpu", ACTION=="add", TEST=="online", '
    'ATTR{online}="1"\n',
    "etc/systemd/system/e2e-agent.service": "[Unit]\nDescription=runs what the host asks for\n"
    "[Service]\nExecStart=/usr/local/sbin/e2e-agent\nRestart=always\n"
    "[Install]\nWantedBy=multi-user.target\n",
    "usr/local/sbin/e2e-agent": (HERE / "agent").read_text(),
}
# Nothing here needs them, and each takes seconds under emulation.
MASKED = (
    *("getty.target", "systemd-logind.service", "systemd-user-sessions.service"),
    *("systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "ldconfig.service"),
    *("systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "dev-hugepages.mount"),
    *("dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "fstrim.timer"),
    "logrotate.timer",
)


class ImageError(Exception):
    """No image could be had; the text is for the person at the keyboard."""


@dataclass(frozen=True, slots=True)
class Image:
    """What QEMU boots; the disk is never written to."""

    suite: str
    disk: Path
    kernel: Path
    initrd: Path


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "proxmox-cpu-affinity-e2e"


def cached(suite: str, *, nested: bool = False) -> Image | None:
    """The image as it is now described, if it was built before."""
    found = _named(suite, nested=nested)
    return found if found.disk.exists() else None


def image(suite: str, *, nested: bool = False) -> Image:
    """The image of a Debian release, with QEMU in it if `nested`; root builds it if need be.
    ImageError."""
    found = cached(suite, nested=nested)
    if found is None:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with _alone(suite):
            again = cached(suite, nested=nested)
            found = again or _build(_named(suite, nested=nested), NESTED if nested else ())
    return found


def _named(suite: str, *, nested: bool) -> Image:
    recipe = Path(__file__).read_bytes() + (HERE / "agent").read_bytes()
    variant = f"{suite}-nested" if nested else suite
    stem = f"{variant}-{hashlib.sha256(recipe).hexdigest()[:12]}"
    folder = cache_folder()
    return Image(
        suite, folder / f"{stem}.disk", folder / f"{stem}.kernel", folder / f"{stem}.initrd"
    )


@contextmanager
def _alone(suite: str) -> Iterator[None]:
    with (cache_folder() / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(wanted: Image, more: Sequence[str]) -> Image:
    with tempfile.TemporaryDirectory(prefix="build-", dir=cache_folder()) as folder:
        work = Path(folder)
        root = work / "root"
        _lay_out(work / "files")
        try:
            _bootstrap(wanted.suite, root, work / "files", more)
            for target, pattern in ((wanted.kernel, "vmlinuz-*"), (wanted.initrd, "initrd.img-*")):
                shutil.copyfile(max((root / "boot").glob(pattern)), target)
            disk = work / "disk"
            subprocess.run(
                ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", root, disk, "3G"],
                check=True,
                capture_output=True,
                timeout=BUILD_LIMIT,
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise ImageError(
                f"the image of {wanted.suite} could not be built: {_why(error)}"
            ) from None
        disk.rename(wanted.disk)  # last: an image is there only if all of it is
    _forget_all_but(wanted)
    return wanted


def _why(error: Exception) -> str:
    said = getattr(error, "stderr", None) or b""
    last = said.decode(errors="replace").strip().splitlines()[-12:]
    return "\n".join([str(error) if not last else f"{type(error).__name__}, last said:", *last])


def _lay_out(folder: Path) -> None:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if "/sbin/" in name else 0o644)


def _bootstrap(suite: str, root: Path, files: Path, more: Sequence[str]) -> None:
    """Fill `root`. Our files come before the kernel, whose installation makes the initrd."""
    finish = f"systemctl enable e2e-agent; systemctl mask {' '.join(MASKED)}"
    subprocess.run(
        [
            # With mounts and processes of its own: nothing of it is left if it is ended early.
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=essential"),
            "--aptopt=APT::Install-Recommends false",
            "--aptopt=Acquire::Languages none",
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")),
            f"--include={','.join((*PACKAGES, *more))}",
            f'--essential-hook=cp -rT "{files}" "$1"',
            f"--customize-hook=chroot \"$1\" sh -ec '{finish}'",
            *(suite, os.fspath(root), *_sources(suite)),
        ],
        check=True,
        capture_output=True,
        timeout=BUILD_LIMIT,
    )


def _sources(suite: str) -> list[str]:
    """Where this machine's apt gets Debian from, for `suite`: no mirror is named here."""
    targets = subprocess.run(
        [
            *("apt-get", "indextargets", "Created-By: Packages", "Origin: Debian"),
            *("--format", "$(REPO_URI) $(CODENAME)"),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    lines = set()
    for target in targets.splitlines():
        uri, codename = target.split()
        part = codename.partition("-")[2]
        if part in ("", "updates", "security"):
            lines.add(f"deb {uri} {suite}{'-' if part else ''}{part} main")
    if not lines:
        raise ImageError("apt of this machine has no Debian source to take packages from")
    return sorted(lines)


def _forget_all_but(fresh: Image) -> None:
    kept = {fresh.disk, fresh.kernel, fresh.initrd}
    variant = fresh.disk.name.rpartition("-")[0]
    for path in cache_folder().glob(f"{variant}-[0-9a-f]*.*"):
        if path not in kept:
            path.unlink()
