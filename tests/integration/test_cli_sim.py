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
from proxmox_cpu_affinity.cli.remedies import Remedies
from proxmox_cpu_affinity.model.cpuset import CpuSet
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
    said_twice = [line for line in out.splitlines() if "the service does not run" in line]
    assert len(said_twice) == 2  # the hook's line, once for each phase
    assert all(f" --root {at} --port 0 &); guest 100 starts" in line for line in said_twice)
    assert "systemctl" not in out
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
        assert "is no program of the node: qm, pvesm, ha-manager, pvesh, vzdump" in err
    status, _, err = said(capsys, "sim", "create", at)
    assert status == 1
    assert "is not empty" in err


def test_a_node_with_another_host_s_cpus(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = str(root)
    words = ("sim", "create", at, "--guests", "standin", "--host", "2x2x4x2")
    status, _, err = said(capsys, *words)
    assert status == 0
    own = CpuSet.of(os.sched_getaffinity(0))
    if len(own) < 32:
        assert (
            f"of the node's 32: guests are confined on CPU{'s' * (len(own) > 1)} {own} only" in err
        )
    assert (root / "sys/devices/system/cpu/online").read_text().strip() == "0-31"


def test_a_node_no_larger_than_this_machine_is_made_without_a_warning(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = said(
        capsys, "sim", "create", str(root), "--guests", "standin", "--host", "1x1x1x1"
    )
    assert (status, err) == (0, "")


def test_a_root_that_is_gone_keeps_nobody_from_making_a_node(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at, gone = str(root), str(root / "gone")
    assert said(capsys, "--root", gone, "sim", "create", at, "--guests", "standin")[0] == 0
    monkeypatch.setenv("PCA_ROOT", gone)
    assert said(capsys, "sim", "run", at, "qm", "list")[0] == 0
    assert said(capsys, "sim", "destroy", at)[0] == 0
    assert said(capsys, "completion", "bash")[0] == 0
    assert said(capsys, "ps", "--help")[0] == 0
    for words in (["ps"], ["status"], ["status", "ping"], ["doctor"], ["hookscript", "list"]):
        status, out, err = said(capsys, *words)
        assert (status, out) == (2, "")
        assert err.startswith(
            f"Error: the root {gone} is no directory\nHint: see --root, and PCA_ROOT"
        )


def test_advice_names_what_works_on_this_node(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = str(root)
    assert said(capsys, "sim", "create", at, "--guests", "standin")[0] == 0
    assert said(capsys, "sim", "run", at, "qm", "create", "100", "--affinity", "0")[0] == 0
    _, out, _ = said(capsys, "--root", at, "doctor")
    assert f"proxmox-cpu-affinity-service --root {at} --port 0 &" in out
    assert "systemctl" not in out
    words = ("--root", at, "hookscript", "enable", "100")
    path = f"{at}/usr/sbin:{at}/usr/bin"
    first = f"Hint: qm set 100 --delete affinity (first: export PATH={path}:$PATH)\n"
    assert said(capsys, *words)[2].endswith(first)
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")
    assert said(capsys, *words)[2].endswith("Hint: qm set 100 --delete affinity\n")


def test_commands_are_advised_as_they_were_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/proxmox-cpu-affinity"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    start = " --root /n --port 0 &"
    monkeypatch.setattr(sys, "argv", ["bin/proxmox-cpu-affinity", "ps"])
    assert Remedies(Path("/n")).start == f"bin/proxmox-cpu-affinity-service{start}"
    monkeypatch.setattr(sys, "argv", [str(program), "ps"])
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert Remedies(Path("/n")).start == f"proxmox-cpu-affinity-service{start}"
    assert Remedies(Path("/")).start == "systemctl start proxmox-cpu-affinity"
    assert Remedies(Path("/")).with_path("qm list") == "qm list"


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
