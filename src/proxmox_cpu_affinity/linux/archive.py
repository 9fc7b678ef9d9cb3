"""The files of a host in a directory or a tar that somebody captured from its sysfs.

Either holds `sys/devices/system/cpu` and `.../node`, perhaps below a folder, and best proc/cpuinfo.
A tar is read in place: nothing is unpacked, links and everything else in it are left alone.
"""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from proxmox_cpu_affinity.formats import cpuinfo
from proxmox_cpu_affinity.formats.sysfs import (
    CPU_DIR,
    HYPERVISOR,
    KIND_FILES,
    NODE_DIR,
    reduced_meminfo,
)
from proxmox_cpu_affinity.linux.tree import Tree, capture_sysfs
from proxmox_cpu_affinity.model.errors import SyntaxFault

MEMBERS_MOST = 1_000_000  # 8192 CPUs with some hundred entries each would be a sick archive
_FILE_MOST = 1 << 16
_KEPT_MOST = 1 << 28
_BESIDE = (cpuinfo.CPUINFO, HYPERVISOR, *KIND_FILES)
_WANTED = (f"{CPU_DIR}/", f"{NODE_DIR}/")
_DAMAGED = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)
HINT = "scripts/capture-host --help says how to capture one"


def of_directory(folder: Path) -> dict[str, str]:
    """The files below a directory, as capture_sysfs has them. SyntaxFault without a host."""
    for root in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if (root / CPU_DIR).is_dir():
            return capture_sysfs(Tree(root))
    raise SyntaxFault(f"a directory without {CPU_DIR}", where=str(folder), hint=HINT)


def is_archive(path: Path) -> bool:
    """Whether a file is a tar, also a compressed one."""
    return path.is_file() and tarfile.is_tarfile(path)


def of_archive(path: Path) -> dict[str, str]:
    """The files in a tar. SyntaxFault where it is damaged, too large, or holds no host."""
    try:
        with tarfile.open(path) as archive:
            files = dict(_members(archive))
    except _DAMAGED as error:
        raise SyntaxFault(f"a damaged archive: {error}", where=str(path)) from None
    except _TooLarge:
        raise SyntaxFault("an archive of more than a host", where=str(path)) from None
    if not any(name.startswith(f"{CPU_DIR}/") for name in files):
        raise SyntaxFault(f"an archive without {CPU_DIR}", where=str(path), hint=HINT)
    return files


class _TooLarge(Exception):
    """More members or text than any host has."""


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, str]]:
    """The regular files that tell of the CPUs, by their paths without what is before sys, proc."""
    kept = 0
    for number, member in enumerate(archive):
        if number > MEMBERS_MOST or kept > _KEPT_MOST:
            raise _TooLarge
        name = _inside(member.name)
        if name is None or not member.isreg():
            continue
        file = archive.extractfile(member)
        if file is not None:
            text = _text(file)
            kept += len(text)
            yield name, _reduced(name, text)


def _inside(name: str) -> str | None:
    """A member's path without the root of what was captured; None for what is no use here."""
    for start in (*_WANTED, *_BESIDE):
        before, found, after = f"/{name}".rpartition(f"/{start}")
        if found and before.count("/") < 4 and (start in _WANTED or not after):
            return start + after
    return None


def _text(file: IO[bytes]) -> str:
    """A member's beginning. tar fills up files of sysfs, which say 4096 bytes and hold less."""
    return file.read(_FILE_MOST).rstrip(b"\0").decode(errors="replace").strip()


def _reduced(name: str, text: str) -> str:
    if name == cpuinfo.CPUINFO:
        return cpuinfo.reduced(text)
    return reduced_meminfo(text) if name.endswith("/meminfo") else text
