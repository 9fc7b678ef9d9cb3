"""The files of a host in a directory or a tar that somebody captured from its sysfs.

Either holds `sys/devices/system/cpu` and `.../node`, perhaps below a folder, and best proc/cpuinfo.
A tar is read in place: nothing is unpacked, links and everything else in it are left alone. Of a
directory nothing outside is read, wherever its links lead. Both come from somebody else: what is
larger than any host's is refused, and nothing of it is cut off in silence.
"""

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from proxmox_cpu_affinity.formats import cpuinfo
from proxmox_cpu_affinity.formats.sysfiles import (
    CPU_DIR,
    HYPERVISOR,
    KIND_FILES,
    NODE_DIR,
    reduced_meminfo,
)
from proxmox_cpu_affinity.linux.tree import Tree, capture_sysfs
from proxmox_cpu_affinity.model.errors import SyntaxFault

MEMBERS_MOST = 250_000  # 512 CPUs with all that sysfs has of each
UNPACKED_MOST = 1 << 29  # bytes, all members: 8192 CPUs with some ten files of 4096 bytes each
FILE_MOST = 1 << 16  # bytes: the longest list in sysfs, of every second CPU of 8192, has 24 KiB
_AT_ONCE = 1 << 20  # tarfile reads long names in one piece, as long as a member says
_SAID_MOST = 64  # things that a tar says of all members (pax, extended header g); git archive: one
_PACKED = _GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"  # how their files begin
_CPUINFO_HEAD = 1 << 14  # holds the first processor's block
_BESIDE = (cpuinfo.CPUINFO, HYPERVISOR, *KIND_FILES)
_WANTED = (f"{CPU_DIR}/", f"{NODE_DIR}/")
_DAMAGED = (
    *(tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError),
    RecursionError,  # headers of headers of headers
)
CAPTURE = "/usr/share/doc/proxmox-cpu-affinity/examples/capture-host"
HINT = (
    "keep the folders' names, from sys/ down to cpu/ and node/; "
    f"{CAPTURE} --help says how to capture one (scripts/capture-host in the sources)"
)


def of_directory(folder: Path) -> dict[str, str]:
    """The files below a directory, as capture_sysfs has them. SyntaxFault without a host, and for
    a link that leads out of the directory."""
    for root in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if (root / CPU_DIR).is_dir():
            return capture_sysfs(_Captured(root, os.path.realpath(folder)))
    raise SyntaxFault(f"a directory without {CPU_DIR}", where=str(folder), hint=HINT)


@dataclass(frozen=True, slots=True)
class _Captured(Tree):
    """A tree that reads nothing outside of `within`."""

    within: str

    def _real(self, path: str) -> str:
        # Named in full: a dataclass with slots is a class made anew, which super() does not know.
        found = os.path.realpath(Tree._real(self, path))
        if os.path.commonpath((found, self.within)) != self.within:
            raise SyntaxFault(
                f"{path} leads out of it, to {found}",
                where=self.within,
                hint="copy what the link leads to",
            )
        return found


def is_archive(path: Path) -> bool:
    """Whether a file is a tar, also a compressed one."""
    if not path.is_file():
        return False
    try:
        with _opened(path) as archive:
            archive.next()
    except _TooLargeError:
        return True
    except _DAMAGED:
        return False
    return True


def is_compressed(path: Path) -> bool:
    """Whether a file begins like one of gzip, bzip2, xz or zstd."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(6).startswith((*_PACKED, b"\x28\xb5\x2f\xfd"))


def of_archive(path: Path) -> dict[str, str]:
    """The files in a tar. SyntaxFault where it is damaged, too large, or holds no host."""
    try:
        with _opened(path) as archive:
            files = dict(_members(archive))
    except _DAMAGED as error:
        raise SyntaxFault(f"a damaged archive: {error}", where=str(path), hint=HINT) from None
    except _TooLargeError as error:
        text = f"an archive of more than a host: {error}"
        raise SyntaxFault(text, where=str(path), hint=HINT) from None
    if not any(name.startswith(f"{CPU_DIR}/") for name in files):
        raise SyntaxFault(f"an archive without {CPU_DIR}", where=str(path), hint=HINT)
    return files


class _TooLargeError(Exception):
    """More members or bytes than any host has."""


@dataclass(slots=True)
class _Limited:
    """What tarfile needs of a file, unpacked up to a limit only."""

    file: IO[bytes]

    def read(self, size: int) -> bytes:
        if size > _AT_ONCE or self.file.tell() > UNPACKED_MOST:
            raise _TooLargeError(f"it unpacks to more than {UNPACKED_MOST >> 20} MiB")
        return self.file.read(size)

    def seek(self, position: int) -> int:
        if position > UNPACKED_MOST:
            raise _TooLargeError(f"it unpacks to more than {UNPACKED_MOST >> 20} MiB")
        return self.file.seek(position)

    def tell(self) -> int:
        return self.file.tell()


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The archive, unpacked as it is read."""
    with path.open("rb") as packed, _unpacked(packed) as file:
        limited = cast("IO[bytes]", _Limited(file))
        with tarfile.open(fileobj=limited, mode="r:") as archive:
            yield archive


def _unpacked(packed: IO[bytes]) -> IO[bytes]:
    """The file itself, or what it is the compressed form of, by its first bytes."""
    begin = packed.read(6)
    packed.seek(0)
    if begin.startswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=packed))
    if begin.startswith(_BZIP2):
        return bz2.BZ2File(packed)
    return lzma.LZMAFile(packed) if begin.startswith(_XZ) else packed


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, str]]:
    """The regular files that tell of the CPUs, by their paths without what is before sys, proc."""
    count = kept = 0
    while (member := archive.next()) is not None:
        # Each has what was said of it, and a copy of what is said of all. (Typeshed lacks this.)
        archive.members.clear()  # type: ignore[attr-defined]
        count += 1
        if count > MEMBERS_MOST:
            raise _TooLargeError(f"it has more than {MEMBERS_MOST} members")
        if len(archive.pax_headers) > _SAID_MOST:
            raise _TooLargeError(f"it says more than {_SAID_MOST} things of every member")
        name = _inside(member.name)
        file = archive.extractfile(member) if name is not None and member.isreg() else None
        if name is None or file is None:
            continue
        text = _text(name, file)
        kept += len(text)
        if kept > UNPACKED_MOST:  # a file with holes is larger than what is packed of it
            raise _TooLargeError(f"its files have more than {UNPACKED_MOST >> 20} MiB")
        yield name, text


def _inside(name: str) -> str | None:
    """A member's path without the root of what was captured; None for what is no use here."""
    for start in (*_WANTED, *_BESIDE):
        before, found, after = f"/{name}".rpartition(f"/{start}")
        if found and before.count("/") < 4 and (start in _WANTED or not after):
            return None if ".." in after.split("/") else start + after
    return None


def _text(name: str, file: IO[bytes]) -> str:
    """A member's text. tar fills up files of sysfs, which say 4096 bytes and hold less."""
    if name == cpuinfo.CPUINFO:
        return cpuinfo.reduced(file.read(_CPUINFO_HEAD).decode(errors="replace"))
    data = file.read(FILE_MOST + 1)
    if len(data) > FILE_MOST:
        raise _TooLargeError(f"{name} is longer than {FILE_MOST >> 10} KiB")
    text = data.rstrip(b"\0").decode(errors="replace").strip()
    return reduced_meminfo(text) if name.endswith("/meminfo") else text
