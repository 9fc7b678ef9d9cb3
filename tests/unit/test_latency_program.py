"""Where the measuring program is looked for."""

from pathlib import Path

import pytest

from proxmox_cpu_affinity.latency import program
from proxmox_cpu_affinity.latency.program import find_program
from proxmox_cpu_affinity.model.errors import MeasureError


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def module(root: Path) -> Path:
    return root / "src" / "proxmox_cpu_affinity" / "latency" / "program.py"


def test_a_checkout_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = executable(tmp_path / "libexec" / "pingpong")
    monkeypatch.setattr(program, "INSTALLED", installed)
    built = executable(tmp_path / "build" / "pingpong")
    assert find_program({}, module=module(tmp_path)) == built
    built.unlink()
    assert find_program({}, module=module(tmp_path)) == installed


def test_an_installed_package_has_the_installed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = executable(tmp_path / "libexec" / "pingpong")
    monkeypatch.setattr(program, "INSTALLED", installed)
    executable(tmp_path / "build" / "pingpong")
    here = tmp_path / "share" / "proxmox_cpu_affinity" / "latency" / "program.py"
    assert find_program({}, module=here) == installed


def test_the_environment_wins(tmp_path: Path) -> None:
    executable(tmp_path / "build" / "pingpong")
    own = executable(tmp_path / "own")
    assert find_program({"PCA_PINGPONG": str(own)}, module=module(tmp_path)) == own


def test_none_is_an_error_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "INSTALLED", tmp_path / "libexec" / "pingpong")
    with pytest.raises(MeasureError, match="build/pingpong") as fault:
        find_program({}, module=module(tmp_path))
    assert "make setup" in fault.value.hint


def test_a_named_one_that_cannot_run_is_an_error_and_nothing_else_is_taken(tmp_path: Path) -> None:
    executable(tmp_path / "build" / "pingpong")
    (tmp_path / "plain").write_text("")
    for name in ("plain", "missing", "."):
        with pytest.raises(MeasureError, match="no measuring program") as fault:
            find_program({"PCA_PINGPONG": str(tmp_path / name)}, module=module(tmp_path))
        assert "PCA_PINGPONG" in fault.value.hint
