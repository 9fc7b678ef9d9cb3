"""The program as a process: signals, pipes that break, users without rights, odd terminals."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PROGRAM = (
    *(sys.executable, "-c"),
    "import sys; from proxmox_cpu_affinity.cli.main import main; sys.exit(main())",
)
LARGE = ("plan", "--host", "generated:2x8x8x2", "--guest", "100:4", "--json")
NOBODY = 65534


def run(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, **environment},
        check=False,
        timeout=60,
    )


def test_an_interrupt_ends_it_quietly_with_130() -> None:
    folder = Path(tempfile.mkdtemp(prefix="pc-", dir="/tmp"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s"))
        server.listen()
        server.settimeout(10)
        process = subprocess.Popen(
            [*PROGRAM, "status", "ping", "--socket", str(folder / "s")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        peer, _ = server.accept()
        with peer:
            assert peer.recv(4096)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    shutil.rmtree(folder)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err


def run_into(stdout: int, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("words", [LARGE, ("--help",), ("--version",), ("completion", "bash")])
def test_output_that_finds_no_room_is_one_line_of_error(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = run_into(full.fileno(), *words)
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device\n")


def test_a_root_that_is_a_link_to_itself_is_no_directory(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    done = run("--root", str(loop), "ps")
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: the root {loop} is no directory\nHint: ")


@pytest.mark.parametrize("words", [LARGE, ("--help",), ("plan", "-h")])
def test_a_pipe_that_nobody_reads_is_no_error_to_talk_of(words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run_into(writer, *words)
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


def run_as_nobody(command: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run with an effective user without rights, who perhaps may not even read this checkout."""
    code = (
        "import os, sys; from proxmox_cpu_affinity.cli.main import main;"
        f"import proxmox_cpu_affinity.cli.commands.{command};"
        f"os.geteuid() or os.seteuid({NOBODY}); sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_root_it_warns_once_on_stderr() -> None:
    done = run_as_nobody("status", "status")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("Warning: not running as root") == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ps", ["--root", "/tmp", "ps"]),
        ("ps", ["ps", "-h"]),
        ("ps", ["ps", "-q"]),
        ("plan", ["plan", "-h"]),
        ("status", ["status", "ping", "-h"]),
    ],
)
def test_help_other_roots_and_quiet_commands_do_not_warn(command: str, words: list[str]) -> None:
    assert "not running as root" not in run_as_nobody(command, *words).stderr


def test_the_root_can_be_given_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / "etc/pve/nodes/n/qemu-server").mkdir(parents=True)
    (tmp_path / "etc/pve/local").symlink_to("nodes/n")
    (tmp_path / "etc/pve/nodes/n/qemu-server/100.conf").write_text("cores: 1\n")
    done = run("hookscript", "list", PCA_ROOT=str(tmp_path))
    assert done.returncode == 0
    assert done.stdout == (
        "VMID  Hook-Status  Notes  Managed\n100   Disabled            no: not chosen\n"
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_name_is_beyond_the_terminal_s_encoding(encoding: str, tmp_path: Path) -> None:
    done = run(
        *("plan", "--host", str(tmp_path / "häst-\N{SNOWMAN}")),
        *("--guest", "100:1"),
        PYTHONIOENCODING=encoding,
        PYTHONUTF8="0",
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: --host ")
    assert "No such file" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_are_no_error(closed: str) -> None:
    program = " ".join(f"'{word}'" for word in PROGRAM)
    words = "plan --host generated:1x1x2x1 --guest 100:1"
    done = subprocess.run(
        ["sh", "-c", f"{program} {words} {closed}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "strategy" not in done.stdout
