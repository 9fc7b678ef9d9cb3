"""`cpuinfo` measures this host with the real program; no latency is asserted, only its form."""

import json
import os
import re
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.latency.program import find_program
from proxmox_cpu_affinity.model.errors import MeasureError

QUICK = ("--rounds", "2", "--iterations", "50")


@pytest.fixture(autouse=True)
def _needs_the_program_and_two_cpus() -> None:
    try:
        find_program()
    except MeasureError as error:
        pytest.skip(error.text)
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU has no pairs")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["cpuinfo", *QUICK, *words])
    return status, *capsys.readouterr()


def test_json_is_the_inherited_ranking(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, "--json", "-q")
    assert (status, err) == (0, "")
    found = json.loads(out)
    for entry in found:
        assert list(entry) == ["cpu", "ranking"]
        for other in entry["ranking"]:
            assert list(other) == ["cpu", "socket", "core", "latency_ns"]
        assert {other["cpu"] for other in entry["ranking"]} == {
            each["cpu"] for each in found if each is not entry
        }
        latencies = [other["latency_ns"] for other in entry["ranking"]]
        assert latencies == sorted(latencies)


def test_json_summary_is_the_inherited_one(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, "--summary", "--json", "--quiet")
    assert (status, err) == (0, "")
    assert list(json.loads(out))[:6] == [
        *("cpu_count", "socket_count", "min_latency_ns", "max_latency_ns"),
        *("median_latency_ns", "mean_latency_ns"),
    ]


def test_text_is_a_table_figures_and_remarks(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys)
    assert status == 0
    table, _, figures = out.partition("\n\n")
    assert table.splitlines()[0].split("  ") == [
        *("Source", "Neighbor", "Socket", "Core", "Latency (ns)"),
    ]
    assert re.fullmatch(r"(\S.*:  +\S.*\n){7}", figures)
    assert "fixed batches: 2 of 50 round trips a pair" in err
    assert "\r" not in err
    assert said(capsys, "--summary", "-q")[1].startswith("CPU Count:")


def test_verbose_names_every_pair(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = said(capsys, "-v", "-q")
    pairs = out.partition("Pairs as measured:\n")[2].splitlines()
    assert pairs[0].startswith("First  Second")
    count = len(os.sched_getaffinity(0))
    assert len(pairs) == 1 + count * (count - 1) // 2
    _, out, err = said(capsys, "-v", "-q", "--json")
    assert json.loads(out)
    assert err.startswith("First  Second")


def test_a_program_that_is_not_there_is_an_error_with_a_hint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PCA_PINGPONG", str(tmp_path / "none"))
    status, out, err = said(capsys)
    assert (status, out) == (1, "")
    assert err.startswith("Error: no measuring program")
    assert "Hint: " in err


def test_a_program_that_measures_nothing_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "pingpong"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PCA_PINGPONG", str(program))
    status, out, err = said(capsys)
    assert (status, out) == (1, "")
    assert err.startswith("Error: no pair of CPUs could be measured")
