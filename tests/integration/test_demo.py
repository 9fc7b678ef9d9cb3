"""`demo` as a user runs it: to its end, interrupted, and left running."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

PROGRAM = [sys.executable, "-m", "proxmox_cpu_affinity", "demo"]


def processes_below(folder: Path) -> list[str]:
    """Command lines of live processes that name a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(folder) in words:
                found.append(words.decode(errors="replace"))
    return found


@pytest.fixture
def short() -> Iterator[Path]:
    """A temporary directory with a short name, for the demo's own temporary files."""
    folder = Path(tempfile.mkdtemp(prefix="pd-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_demo_runs_the_main_job_and_leaves_nothing(short: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "--guests", "standin", "--output", str(tmp_path / "out")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TMPDIR": str(short)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(short.iterdir()) == []
    assert processes_below(short) == []
    said = done.stdout
    assert "stand-in processes for guests" in said
    assert len(re.findall(r"threads read back", said)) == 5
    assert "free again" in said
    assert said.count("VMID  PID") == 2
    picture = ElementTree.parse(tmp_path / "out" / "heatmap.svg").getroot()
    assert picture.tag.endswith("svg")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("until", ["$ proxmox-cpu-affinity cpuinfo", "$ qm start 101"])
def test_interrupted_demo_leaves_nothing(
    short: Path, tmp_path: Path, number: signal.Signals, until: str
) -> None:
    with subprocess.Popen(
        [*PROGRAM, "--guests", "standin", "--output", str(tmp_path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(short)},
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith(until):
                break
        demo.send_signal(number)
        rest = demo.stdout.read()
        assert demo.wait(60) == 130, rest
    assert "Traceback" not in rest
    assert list(short.iterdir()) == []
    assert processes_below(short) == []


def test_demo_that_is_kept_can_be_stopped(short: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(short)}
    done = subprocess.run(
        [*PROGRAM, "--keep", "--guests", "standin", "--output", str(tmp_path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    url = re.search(r"http://127\.0\.0\.1:[0-9]+/\S*", done.stdout)
    stop = re.search(r"demo --stop (\S+)", done.stdout)
    assert url is not None
    assert stop is not None
    answer = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import urllib.request as r; print(r.urlopen({url[0]!r}).status)",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert answer.stdout.strip() == "200", answer.stderr
    assert processes_below(short) != []
    ended = subprocess.run(
        [*PROGRAM, "--stop", stop[1]],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"ended the service, and 4 guests; {stop[1]} is gone\n"
    deadline = time.monotonic() + 5
    while processes_below(short) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_below(short) == []
    assert list(short.iterdir()) == []


def test_machine_that_cannot_measure_shows_the_rest(short: Path, tmp_path: Path) -> None:
    """On a busy machine no pair may be measured in its time: the prediction serves."""
    done = subprocess.run(
        [*PROGRAM, "--guests", "standin", "--output", str(tmp_path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TMPDIR": str(short), "PCA_PINGPONG": "/nonexistent"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the prediction from the topology serves" in done.stdout
    assert done.stdout.count("threads read back") == 5
