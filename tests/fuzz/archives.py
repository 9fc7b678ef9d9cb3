"""Captured hosts, as tars and as directories, and what linux.archive must make of any.

Nothing is read that is not in them, and all of it is of the CPUs. A tar never touches a disk
(memfd_create(2)). A directory is made anew for each attempt, and through no link: whatever its
lines say, nothing outside is changed.
"""

import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from proxmox_cpu_affinity.formats.cpuinfo import CPUINFO
from proxmox_cpu_affinity.formats.sysfiles import CPU_DIR, HYPERVISOR, KIND_FILES, NODE_DIR
from proxmox_cpu_affinity.linux import archive

BLOCK = 512  # bytes: members of a tar begin at multiples of it
SECRET = "beside the captured folder"
_HOST = {
    CPUINFO: "model name\t: A CPU\nmicrocode\t: 0x1\n",
    f"{CPU_DIR}/online": "0\n",
    f"{NODE_DIR}/node0/cpulist": "0\n",
    f"{NODE_DIR}/node0/meminfo": "Node 0 MemTotal: 1 kB\n",
}
_BESIDE = (CPUINFO, HYPERVISOR, *KIND_FILES)
_REDUCED = (CPUINFO, "/meminfo")  # files of which some lines are kept, and these made anew


def _packed(form: int, *others: tuple[str, bytes, str], root: str = "") -> str:
    """A tar of a small host and of members with a type and a target; all of it is ASCII."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for path, text in _HOST.items():
            member = tarfile.TarInfo(root + path)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
        for name, kind, target in others:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    whole = out.getvalue().rstrip(b"\0")
    return (whole + bytes(-len(whole) % BLOCK + 2 * BLOCK)).decode("ascii")


_ISOLATED = f"{CPU_DIR}/isolated"
TARS = (
    _packed(tarfile.USTAR_FORMAT),
    _packed(
        tarfile.GNU_FORMAT,
        (_ISOLATED, tarfile.SYMTYPE, "/proc/self/environ"),
        (_ISOLATED, tarfile.LNKTYPE, f"{CPU_DIR}/online"),
        (_ISOLATED, tarfile.CHRTYPE, ""),
        (f"{'x' * 120}/{_ISOLATED}", tarfile.REGTYPE, ""),
        root="../../",
    ),
    _packed(
        tarfile.PAX_FORMAT,
        (f"{'x' * 120}/{_ISOLATED}", tarfile.SYMTYPE, "y" * 120),
        (f"{CPU_DIR}/../../../../etc/passwd", tarfile.REGTYPE, ""),
        root="/",
    ),
)
_LINES = "\n".join(f"host/{path}={text.strip()}" for path, text in _HOST.items())
FOLDERS = (
    _LINES,
    f"{_LINES}\nhost/{_ISOLATED}->online\nhost/{CPU_DIR}/present|",
    f"{_LINES}\nhost/{_ISOLATED}->../../../../../../beside",
    f"{_LINES.replace('host/', 'moved/')}\nhost/sys->../moved/sys\nhost/proc->/proc",
)


def tar(data: bytes) -> None:
    """A tar is refused, or read for what is in it."""
    data = _with_checksums(data)
    with _file_of(data) as path:
        taken = archive.is_archive(path)
        packed = archive.is_compressed(path)
        found = archive.of_archive(path)
    assert taken, "a tar that is none"
    assert any(name.startswith(f"{CPU_DIR}/") for name in found)
    if not packed:
        _check_origin(found, data)


def folder(data: bytes) -> None:
    """Lines `path=text`, `path->target` of a link, and `path|` of a FIFO are a directory."""
    with TemporaryDirectory(prefix="pca-fuzz-") as made:
        outside = Path(os.path.realpath(made))
        (outside / "beside").write_text(SECRET)
        (outside / "here").mkdir()
        for line in data.split(b"\n"):
            _lay(outside / "here", line.decode("utf-8", "surrogateescape"))
        try:
            found = archive.of_directory(outside / "here")
        except OSError:  # whoever asks has it told
            return
    assert SECRET not in "".join(found.values())
    _check_origin(found, data)


def _check_origin(found: Mapping[str, str], data: bytes) -> None:
    for name, text in found.items():
        assert name in _BESIDE or name.startswith((f"{CPU_DIR}/", f"{NODE_DIR}/")), name
        assert ".." not in name.split("/"), name
        # What is no UTF-8 is replaced, and holes are filled.
        exact = not name.endswith(_REDUCED) and not {"\ufffd", "\0"} & set(text)
        assert not exact or text.encode() in data, f"{name} is from elsewhere: {text!r}"


def _with_checksums(data: bytes) -> bytes:
    """With the right checksum in all that looks like a header (tar(5)): else changed ones would
    be damaged and nothing more."""
    mended = bytearray(data)
    for at in range(0, len(mended) - BLOCK + 1, BLOCK):
        if mended[at + 257 : at + 262] == b"ustar":
            mended[at + 148 : at + 156] = b" " * 8
            mended[at + 148 : at + 156] = b"%06o\0 " % sum(mended[at : at + BLOCK])
    return bytes(mended)


@contextmanager
def _file_of(data: bytes) -> Iterator[Path]:
    with os.fdopen(os.memfd_create("fuzzed"), "wb") as file:
        file.write(data)
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")


def _lay(here: Path, line: str) -> None:
    """Make what a line says, if it is to be inside."""
    before, link, target = line.partition("->")
    path, _, text = line.partition("=")
    fifo = line.endswith("|")
    words = (before if link else line[:-1] if fifo else path).split("/")
    at = here.joinpath(*(word for word in words if word not in ("", ".", "..")))
    with suppress(OSError, ValueError):  # no name, or one that is there already
        if at == here or os.path.realpath(at.parent) != str(at.parent):
            return
        at.parent.mkdir(parents=True, exist_ok=True)
        if link:
            at.symlink_to(target)
        elif fifo:
            os.mkfifo(at)
        else:
            with at.open("xb") as file:
                file.write(text.encode("utf-8", "surrogateescape"))
