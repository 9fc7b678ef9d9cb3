"""Reads below one root, and the capture of what sysfs says of the CPUs.

Every file that the project reads hangs below a configurable root, so that a simulated node runs
the production code. What is not there, or may not be read, is None or empty; but where the process
or the host is out of descriptors or memory, ExhaustedError: else a host would seem to have no CPUs,
and guests to have ended. Nothing here writes or decides what a text means: formats does.
"""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxmox_cpu_affinity.formats import cpuinfo
from proxmox_cpu_affinity.formats.sysfiles import (
    CPU_DIR,
    HYPERVISOR,
    KIND_FILES,
    MASK_FILES,
    NODE_DIR,
    NODE_FILES,
    cpulist_or_none,
    reduced_meminfo,
)
from proxmox_cpu_affinity.model.errors import ExhaustedError

_TEXT_LIMIT = 1 << 20
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# O_NONBLOCK: a FIFO where a file should be must not hold the reader.
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_NUMBERED = re.compile(r"(?:cpu|node|index)([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class Tree:
    """The files below `root`; paths are given without it, with or without a leading slash."""

    root: Path

    def at(self, path: str) -> Path:
        """Where a path really lies: for adapters that need more than text."""
        return Path(self._real(path))

    @staticmethod
    def shown(path: str) -> str:
        """The path as messages print it: without the root."""
        return "/" + path.lstrip("/")

    def text(self, path: str, *, limit: int = _TEXT_LIMIT) -> str | None:
        """A file's text; None where it is missing, unreadable or longer than `limit` bytes."""
        data = self._read(path, limit + 1)
        return None if data is None or len(data) > limit else data.decode(errors="replace")

    def head(self, path: str, size: int) -> str | None:
        """At most the first `size` bytes of a file as text; None where it cannot be read."""
        data = self._read(path, size)
        return None if data is None else data.decode(errors="replace")

    def listing(self, path: str) -> tuple[str, ...]:
        """The names in a directory, sorted; empty where there is none."""
        try:
            return tuple(sorted(os.listdir(self._real(path))))
        except OSError as error:
            self._check(path, error)
            return ()

    def link(self, path: str) -> str | None:
        """Where a symbolic link points, as it says; None where there is none."""
        try:
            return os.readlink(self._real(path))
        except OSError as error:
            self._check(path, error)
            return None

    def _check(self, path: str, error: OSError) -> None:
        """ExhaustedError where an error says nothing of the file itself."""
        if error.errno in _EXHAUSTED:
            raise ExhaustedError(f"{self.shown(path)} cannot be read: {error.strerror}") from None

    def _real(self, path: str) -> str:
        return os.path.join(self.root, path.lstrip("/"))

    def _read(self, path: str, size: int) -> bytes | None:
        try:
            file = os.open(self._real(path), _READ_FLAGS)
        except OSError as error:
            self._check(path, error)
            return None
        except ValueError:  # a NUL byte in the name
            return None
        try:
            chunks = bytearray()
            while len(chunks) < size and (chunk := os.read(file, size - len(chunks))):
                chunks += chunk
            return bytes(chunks)
        except OSError as error:
            self._check(path, error)
            return None
        finally:
            os.close(file)


def capture_sysfs(tree: Tree) -> dict[str, str]:
    """The files that formats.sysfs.topology reads, without the blanks at their ends.

    Keys are paths without the root (`sys/...`, `proc/cpuinfo`). A file that is only the fallback
    of another is read where that one is missing: about 13 small files a CPU on x86.
    """
    files: dict[str, str] = {}
    _take(tree, files, *MASK_FILES, *KIND_FILES, HYPERVISOR)
    _capture_cpuinfo(tree, files)
    for cpu in _online(tree, files):
        _capture_cpu(tree, files, f"{CPU_DIR}/cpu{cpu}")
    for node in _numbered(tree, NODE_DIR, "node"):
        _take(tree, files, *(f"{NODE_DIR}/node{node}/{name}" for name in NODE_FILES))
        meminfo = tree.text(f"{NODE_DIR}/node{node}/meminfo")
        if meminfo is not None:
            files[f"{NODE_DIR}/node{node}/meminfo"] = reduced_meminfo(meminfo)
    return files


def _take(tree: Tree, files: dict[str, str], *paths: str) -> bool:
    """Read these files; whether all of them are there."""
    whole = True
    for path in paths:
        text = tree.text(path)
        if text is None:
            whole = False
        else:
            files[path] = text.strip()
    return whole


def _capture_cpuinfo(tree: Tree, files: dict[str, str]) -> None:
    text = tree.head(cpuinfo.CPUINFO, cpuinfo.HEAD)
    if text is not None:
        files[cpuinfo.CPUINFO] = cpuinfo.reduced(text)


def _online(tree: Tree, files: dict[str, str]) -> Iterator[int]:
    """The CPUs worth reading: an offline CPU has no topology and no cache directory."""
    online = cpulist_or_none(files.get(f"{CPU_DIR}/online"))
    if online is not None:
        yield from online
        return
    for cpu in _numbered(tree, CPU_DIR, "cpu"):
        _take(tree, files, f"{CPU_DIR}/cpu{cpu}/online")
        yield cpu


def _capture_cpu(tree: Tree, files: dict[str, str], folder: str) -> None:
    topology = f"{folder}/topology"
    _take(tree, files, *(f"{topology}/{i}" for i in ("physical_package_id", "die_id", "core_id")))
    if not _take(tree, files, f"{topology}/core_cpus_list"):
        _take(tree, files, f"{topology}/thread_siblings_list")
    if not any(path in files for path in KIND_FILES):
        _take(tree, files, f"{folder}/cpu_capacity")
    levels = set()
    for index in _numbered(tree, f"{folder}/cache", "index"):
        cache = f"{folder}/cache/index{index}"
        level = (tree.text(f"{cache}/level") or "").strip()
        if level not in ("", "0", "1"):
            files[f"{cache}/level"] = level
            _take(tree, files, f"{cache}/type", f"{cache}/shared_cpu_list")
            levels.add(level)
    if "2" not in levels:
        _take(tree, files, f"{topology}/cluster_cpus_list")


def _numbered(tree: Tree, path: str, word: str) -> list[int]:
    """The numbers of the entries that are called like cpu7, ascending."""
    names = (_NUMBERED.fullmatch(name) for name in tree.listing(path) if name.startswith(word))
    return sorted(int(match[1]) for match in names if match)
