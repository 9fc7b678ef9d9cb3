"""Captured directories and tars: read where they hold a host, refused otherwise, never left."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.formats.sysfiles import CPU_DIR
from proxmox_cpu_affinity.formats.sysfs import topology
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


@pytest.mark.parametrize("cut", ["sys/devices/system/", "sys/devices/"])
def test_a_copy_without_the_folders_above_is_refused_and_told_of_them(
    cut: str, tmp_path: Path
) -> None:
    """As `cp -r /sys/devices/system/. DIR` makes it."""
    for path, text in FILES.items():
        copied = tmp_path / path.removeprefix(cut)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_text(text + "\n")
    with pytest.raises(SyntaxFault, match="without sys/devices/system/cpu") as caught:
        archive.of_directory(tmp_path)
    assert "keep the folders' names, from sys/ down" in str(caught.value.hint)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_are_not_followed(kind: bytes, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0-63")
    link = tarfile.TarInfo(f"{CPU_DIR}/isolated")
    link.type, link.linkname = kind, str(secret)
    files = {name: text for name, text in sysfs().items() if not name.endswith("/isolated")}
    found = archive.of_archive(packed(tmp_path / "a.tar", files, link))
    assert f"{CPU_DIR}/isolated" not in found


def test_a_path_that_leads_out_of_the_folders_is_none_of_a_host(tmp_path: Path) -> None:
    """Found by fuzzing: it was kept as a file of the CPUs."""
    outside = {f"{CPU_DIR}/../../../../etc/passwd": b"root", f"{CPU_DIR}/..": b""}
    found = archive.of_archive(packed(tmp_path / "a.tar", {**sysfs(), **outside}))
    assert found == FILES


def test_a_member_is_read_whole_or_refused(tmp_path: Path) -> None:
    """Once it was cut at 64 KiB, and a list that ends early is another list."""
    name = f"{CPU_DIR}/long"
    whole = {name: b"x" * archive.FILE_MOST}
    found = archive.of_archive(packed(tmp_path / "a.tar", {**sysfs(), **whole}))
    assert len(found[name]) == archive.FILE_MOST
    longer = {name: b"x" * (archive.FILE_MOST + 1)}
    with pytest.raises(SyntaxFault, match="cpu/long is longer than 64 KiB"):
        archive.of_archive(packed(tmp_path / "a.tar", {**sysfs(), **longer}))
    elsewhere = {"home/film": b"x" * (1 << 22), "proc/cpuinfo": b"model name: M\n" + b"x" * 99999}
    found = archive.of_archive(packed(tmp_path / "a.tar", {**sysfs(), **elsewhere}))
    assert topology(found).online == HOST.online


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_an_archive_that_unpacks_to_too_much_is_refused(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if that much lies in a member that nobody wants, and is only passed over."""
    monkeypatch.setattr(archive, "UNPACKED_MOST", 1 << 22)
    files = {**sysfs(), "film": b"\0" * (1 << 23), f"{CPU_DIR}/behind": b"1"}
    path = packed(tmp_path / "a.tar", files, mode=mode)
    assert path.stat().st_size < 1 << 18
    assert archive.is_archive(path)
    with pytest.raises(SyntaxFault, match="unpacks to more than 4 MiB"):
        archive.of_archive(path)


def test_a_long_name_is_no_way_around_the_limit(tmp_path: Path) -> None:
    """tarfile reads the name of such a member in one piece, before anybody sees the member."""
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    path = tmp_path / "a.tar"
    path.write_bytes(name.tobuf(tarfile.GNU_FORMAT) + b"\0" * 10240)
    assert archive.is_archive(path)
    with pytest.raises(SyntaxFault, match="unpacks to more"):
        archive.of_archive(path)


def test_an_archive_of_too_many_members_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / "a.tar", sysfs())
    monkeypatch.setattr(archive, "MEMBERS_MOST", len(FILES))
    assert topology(archive.of_archive(path)) == HOST
    monkeypatch.setattr(archive, "MEMBERS_MOST", len(FILES) - 1)
    with pytest.raises(SyntaxFault, match=r"more than [0-9]+ members"):
        archive.of_archive(path)


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> bytes:
    """A member as it lies in the file."""
    head = tarfile.TarInfo(name)
    head.type, head.size = kind, len(content)
    return head.tobuf(tarfile.USTAR_FORMAT) + content + b"\0" * (-len(content) % 512)


def said_of_all(count: int) -> bytes:
    """A header with that many things that are said of all members."""
    return member("g", b"".join(b"10 %04x=v\n" % i for i in range(count)), tarfile.XGLTYPE)


END = b"\0" * 1024


def test_what_is_said_of_every_member_is_not_kept_for_each(tmp_path: Path) -> None:
    """Once a tar of a few KiB took gigabytes: tarfile copies these things for each member."""
    path = tmp_path / "a.tar"
    whole = b"".join(member(name, text) for name, text in sysfs().items())
    path.write_bytes(said_of_all(8) + whole + END)
    assert topology(archive.of_archive(path)) == HOST
    path.write_bytes(said_of_all(1000) + whole + END)
    with pytest.raises(SyntaxFault, match="more than 64 things"):
        archive.of_archive(path)


def test_headers_without_end_are_a_damaged_archive(tmp_path: Path) -> None:
    """tarfile reads the header after a header from within the first."""
    path = tmp_path / "a.tar"
    path.write_bytes(member("x", b"10 0000=v\n", tarfile.XHDTYPE) * 5000 + END)
    assert not archive.is_archive(path)
    with pytest.raises(SyntaxFault, match="damaged"):
        archive.of_archive(path)


def test_files_with_holes_are_counted_as_large_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "UNPACKED_MOST", 1 << 20)
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for i in range(40):
            head = tarfile.TarInfo(f"{CPU_DIR}/{i}")
            holes = f"{archive.FILE_MOST - 1},1"
            head.pax_headers = {
                "GNU.sparse.size": str(archive.FILE_MOST),
                "GNU.sparse.map": holes,
            }
            head.size = 1
            tar.addfile(head, io.BytesIO(b"x"))
    assert path.stat().st_size < 1 << 17
    with pytest.raises(SyntaxFault, match="more than 1 MiB"):
        archive.of_archive(path)


@pytest.mark.parametrize("link", ["sys/devices/system/cpu/isolated", "sys/devices/system/cpu", ""])
def test_links_of_a_directory_lead_nowhere_else(link: str, tmp_path: Path) -> None:
    """A file, a folder on the way, and the folder with everything in it."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for path, text in FILES.items():
        for root in (here / "host", elsewhere):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text + "\n")
    at = here / "host" / link if link else here / "host"
    if at.is_dir():
        shutil.rmtree(at)
    else:
        at.unlink()
    at.symlink_to(elsewhere / link if link else elsewhere)
    with pytest.raises(SyntaxFault, match="leads out of it"):
        archive.of_directory(here)


def test_links_inside_of_a_directory_are_followed(tmp_path: Path) -> None:
    for path, text in FILES.items():
        (tmp_path / "host" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "host" / path).write_text(text + "\n")
    (tmp_path / "host" / "sys").rename(tmp_path / "moved")
    (tmp_path / "host" / "sys").symlink_to("../moved")
    (tmp_path / "named").symlink_to(tmp_path)
    assert topology(archive.of_directory(tmp_path)) == HOST
    assert topology(archive.of_directory(tmp_path / "named")) == HOST


def test_what_holds_no_host_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", {"etc/hosts": b"127.0.0.1"})
    with pytest.raises(SyntaxFault, match="an archive without") as caught:
        archive.of_archive(path)
    assert "examples/capture-host --help" in caught.value.hint
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
