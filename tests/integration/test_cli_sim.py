"""`sim`: a node from its making to its removal, by the command line alone."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running


@pytest.fixture
def root() -> Iterator[Path]:
    """A place for a node, whatever becomes of it."""
    folder = Path(tempfile.mkdtemp(prefix="pca-", dir="/tmp"))
    yield folder / "n"
    if (folder / "n/etc/pve-sim.json").exists():
        Node(folder / "n").destroy()
    shutil.rmtree(folder)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(list(words))
    return status, *capsys.readouterr()


def test_a_node_from_create_to_destroy(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = str(root)
    status, out, err = said(capsys, "sim", "create", at, "--guests", "standin")
    assert (status, err) == (0, "")
    assert f"{at}/usr/sbin/qm create 100" in out
    assert said(capsys, "sim", "run", at, "--", "qm", "create", "100", "--cores", "2")[0] == 0
    assert said(capsys, "--root", at, "hookscript", "enable", "100")[0] == 0
    status, out, _ = said(capsys, "sim", "run", at, "qm", "start", "100")
    assert status == 0
    assert "the service does not run" in out  # the hook's line
    assert Node(root).pid(100) is not None
    assert said(capsys, "sim", "run", at, "qm", "config", "100")[1].startswith("cores: 2\n")
    assert said(capsys, "sim", "stop", at)[0] == 0
    assert Node(root).pid(100) is None
    assert said(capsys, "sim", "start", at)[0] == 0
    assert said(capsys, "sim", "destroy", at) == (0, f"{at} is gone\n", "")
    assert not root.exists()


def test_a_program_s_failure_is_the_command_s(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = str(root)
    assert said(capsys, "sim", "create", at, "--guests", "standin", "--model", "8")[0] == 0
    status, out, err = said(capsys, "sim", "run", at, "qm", "config", "999")
    assert (status, out) == (2, "")
    assert "does not exist" in err
    for words in ([], ["--"], ["rm", "-rf"], ["--", "pct", "list"]):
        status, out, err = said(capsys, "sim", "run", at, *words)
        assert (status, out) == (2, "")
        assert "is no program of the node: qm, pvesm, ha-manager, pvesh" in err
    status, _, err = said(capsys, "sim", "create", at)
    assert status == 1
    assert "is not empty" in err


def test_a_node_with_another_host_s_cpus(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = str(root)
    words = ("sim", "create", at, "--guests", "standin", "--host", "2x2x4x2")
    assert said(capsys, *words)[0] == 0
    assert (root / "sys/devices/system/cpu/online").read_text().strip() == "0-31"


@pytest.mark.parametrize("command", ["start", "stop", "destroy"])
def test_what_is_no_node_is_left_alone(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious").write_text("x")
    status, out, err = said(capsys, "sim", command, str(tmp_path))
    assert (status, out) == (1, "")
    assert "no simulated node" in err
    assert (tmp_path / "precious").exists()


def test_destroy_ends_the_service_too(root: Path) -> None:
    """However it was started: it is known by the lock that it holds."""
    assert main(["sim", "create", str(root), "--guests", "standin"]) == 0
    environment = {**os.environ, "PCA_ROOT": str(root), "PCA_PORT": "0"}
    command = [sys.executable, "-m", "proxmox_cpu_affinity.service.main", "--stdout"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as service:
        Running.wait_for((root / "run/proxmox-cpu-affinity/api.sock").exists)
        assert main(["sim", "destroy", str(root)]) == 0
        assert service.wait(10) == 0
    assert not root.exists()
