"""Captured directories and tars: read where they hold a host, refused otherwise, never left."""

import io
import tarfile
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.formats.sysfs import CPU_DIR, topology
from proxmox_cpu_affinity.linux import archive
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

FILES = generate(parse_spec("2x2x2x2"))
HOST = topology(FILES)


def packed(path: Path, files: dict[str, bytes], *links: tarfile.TarInfo, mode: str = "") -> Path:
    with path.open("wb") as out, tarfile.open(fileobj=out, mode=f"w:{mode}") as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for link in links:
            tar.addfile(link)
    return path


def sysfs(root: str = "", padding: int = 0) -> dict[str, bytes]:
    return {root + path: text.encode() + b"\n" + b"\0" * padding for path, text in FILES.items()}


@pytest.mark.parametrize("root", ["", "./", "host/", "/", "../../"])
@pytest.mark.parametrize("mode", ["", "gz", "xz"])
def test_a_tar_is_the_host(root: str, mode: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", sysfs(root, padding=64), mode=mode)
    assert archive.is_archive(path)
    assert topology(archive.of_archive(path)) == HOST
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("folder", ["", "host"])
def test_a_directory_is_the_host(folder: str, tmp_path: Path) -> None:
    for path, text in FILES.items():
        (tmp_path / folder / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / path).write_text(text + "\n")
    assert topology(archive.of_directory(tmp_path)) == HOST


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_are_not_followed(kind: bytes, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0-63")
    link = tarfile.TarInfo(f"{CPU_DIR}/isolated")
    link.type, link.linkname = kind, str(secret)
    files = {name: text for name, text in sysfs().items() if not name.endswith("/isolated")}
    found = archive.of_archive(packed(tmp_path / "a.tar", files, link))
    assert f"{CPU_DIR}/isolated" not in found


def test_of_a_huge_member_only_the_beginning_is_kept(tmp_path: Path) -> None:
    huge = {f"{CPU_DIR}/huge": b"x" * (1 << 22)}
    found = archive.of_archive(packed(tmp_path / "a.tar", {**sysfs(), **huge}))
    assert len(found[f"{CPU_DIR}/huge"]) == 1 << 16


def test_what_holds_no_host_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", {"etc/hosts": b"127.0.0.1"})
    with pytest.raises(SyntaxFault, match="an archive without") as caught:
        archive.of_archive(path)
    assert "capture-host --help" in caught.value.hint
    with pytest.raises(SyntaxFault, match="a directory without"):
        archive.of_directory(tmp_path)


@pytest.mark.parametrize("mode", ["", "gz", "bz2", "xz"])
def test_a_damaged_archive_is_refused_or_read(mode: str, tmp_path: Path) -> None:
    """A damaged deflate stream is zlib's own error, which is no OSError."""
    whole = packed(tmp_path / "a.tar", sysfs(), mode=mode).read_bytes()
    path = tmp_path / "damaged"
    refused = 0
    for at in range(600, len(whole), max(1, len(whole) // 40)):
        for content in (whole[:at], whole[:at] + b"\xff" * 64 + whole[at + 64 :]):
            path.write_bytes(content)
            try:
                archive.of_archive(path)
            except SyntaxFault:
                refused += 1
    assert refused or not mode


@pytest.mark.parametrize(
    ("rows", "status", "words"),
    [
        (",\n50,\n", 0, "from "),
        (",,\n50,,\n60,70,\n", 2, "3 rows for 2 online CPUs"),
        (None, 2, "No such file"),
    ],
)
def test_latencies_beside_a_host(
    rows: str | None, status: int, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    if rows is not None:
        file.write_text(rows)
    given = ["--host", "generated:1x1x2x1", "--latency", str(file), "--guest=100:1"]
    assert main(["--root", str(tmp_path), "plan", *given]) == status
    assert words in capsys.readouterr().err
