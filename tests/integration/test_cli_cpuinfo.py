"""`cpuinfo` measures this host with the real program; no latency is asserted, only its form."""

import json
import os
import re
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.latency.program import find_program
from proxmox_cpu_affinity.model.errors import MeasureError, UsageError

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


def test_root_without_a_host_is_refused_as_topology_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It measured no pair and printed a table of 0.00 ns."""
    told = []
    for words in (["cpuinfo", *QUICK], ["topology"]):
        assert main(["--root", str(tmp_path), *words]) == UsageError.exit_status
        out, err = capsys.readouterr()
        assert out == ""
        told.append(err.splitlines()[0])
    assert told == 2 * [f"Error: {tmp_path} holds no host: its sys names no CPU that is online"]


def test_json_is_the_inherited_ranking(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, "--json", "-q")
    assert (status, err) == (0, "")
    found = json.loads(out)
    for entry in found:
        assert list(entry) == ["cpu", "ranking"]
        for other in entry["ranking"]:
            assert list(other)[:4] == ["cpu", "socket", "core", "latency_ns"]
            assert list(other)[4:] == ["spread_ns", "measured"]
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
        *("Source", "Neighbor", "Socket", "Core", "Latency (ns)", "± (ns)"),
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


def test_every_form_it_writes_it_shows_and_compares(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    csv, xml, svg = (tmp_path / name for name in ("a.csv", "a.xml", "a.svg"))
    status, out, err = said(capsys, "--csv", "-q", "--svg", str(svg), "--hwloc", str(xml))
    assert status == 0
    assert err.splitlines() == [f"written to {svg}", f"written to {xml}"]
    csv.write_text(out)
    assert svg.read_text().startswith("<svg")
    shown = []
    for file in (csv, xml):
        assert main(["cpuinfo", "--from", str(file), "--json"]) == 0
        entries = json.loads(capsys.readouterr().out)
        shown.append([[other["latency_ns"] for other in entry["ranking"]] for entry in entries])
    assert len(out.splitlines()) == len(shown[0]) == len(os.sched_getaffinity(0))
    assert shown[0] == shown[1]
    assert main(["cpuinfo", "--compare", str(csv), str(xml), "--json"]) == 0
    comparison = json.loads(capsys.readouterr().out)
    assert comparison["ratio"] == pytest.approx(1, abs=0.01)
    assert all(pair["a_ns"] == pytest.approx(pair["b_ns"]) for pair in comparison["pairs"])


def test_several_methods_stand_apart(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "--method", "rw,cas", "-q", "--json", "--summary")
    assert status == 0
    found = json.loads(out)
    assert list(found) == ["rw", "cas"]
    assert all(found[word]["method"] == word for word in found)


def test_the_lines_can_be_on_the_other_cpu_s_node(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "--home", "second", "-q", "--json")
    assert status == 0
    assert len(json.loads(out)) == len(os.sched_getaffinity(0))


def test_only_the_cpus_named_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = sorted(os.sched_getaffinity(0))[:2]
    status, out, _ = said(capsys, "--cpus", f"{a},{b}", "-q", "--json")
    assert status == 0
    assert [entry["cpu"] for entry in json.loads(out)] == [a, b]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--method", "cas,fast"], "'fast' is no method"),
        (["--method", "cas,cas"], "names a method twice"),
        (["--method", ""], "'' is no method"),
        (["--method", "cas,rw", "--csv"], "of one method"),
        (["--method", "cas,rw", "--svg", "x"], "of one method"),
        (["--csv", "--json"], "leave --json"),
        (["--cpus", "0-x"], "--cpus 0-x: "),
        (["--cpus", "0"], "a pair needs two"),
        (["--cpus", "0,60000"], "CPU 60000 is not online"),
        (["--from", "/nowhere"], "--from /nowhere: No such file"),
        (["--from", "x", "--cpus", "0-1"], "nothing is measured"),
        (["--from", "x", "--home", "second"], "nothing is measured"),
        (["--from", "x", "--verbose"], "nothing is measured"),
        (["--compare", "a", "b", "--svg", "x"], "two beside each other"),
        (["--compare", "a", "b", "--summary"], "two beside each other"),
        (["--home", "third"], "'third' is not one of"),
        (["--from", "x", "--compare", "a", "b"], "nothing is measured"),
        (["--compare", "/nowhere", "/nowhere"], "--compare /nowhere"),
    ],
)
def test_options_that_have_no_meaning_are_refused(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["cpuinfo", *words])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert why in err
    error, hint = err.splitlines()
    assert (error[:7], hint[:6]) == ("Error: ", "Hint: ")


def test_a_file_that_cannot_be_written_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, _, err = said(capsys, "-q", "--svg", str(tmp_path / "none" / "a.svg"))
    assert status == 2
    assert f"--svg {tmp_path}/none/a.svg: No such file" in err


def test_what_only_one_of_two_has_is_left_out_and_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    small, large, alone = (tmp_path / name for name in ("small", "large", "alone.json"))
    small.write_text(",\n50,\n")
    large.write_text(",,\n55,,\n60,70,\n")
    assert main(["cpuinfo", "--compare", str(small), str(large)]) == 0
    out, err = capsys.readouterr()
    assert "0      1       50.00   55.00   1.10" in out
    assert err == "only B has CPUs 2: left out\n"
    neighbours = [{"cpu": cpu, "socket": 0, "core": cpu, "latency_ns": 5} for cpu in (7, 8)]
    entries = [{"cpu": 7, "ranking": neighbours[1:]}, {"cpu": 8, "ranking": neighbours[:1]}]
    alone.write_text(json.dumps(entries))
    assert main(["cpuinfo", "--compare", str(small), str(alone)]) == 2
    assert "no pair of CPUs in common" in capsys.readouterr().err


def test_nothing_is_as_far_as_a_latency_of_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zero, some = tmp_path / "zero.csv", tmp_path / "some.csv"
    zero.write_text(",,\n0,,\n60,70,\n")
    some.write_text(",,\n50,,\n60,70,\n")
    assert main(["cpuinfo", "--compare", str(zero), str(some)]) == 0
    assert "0      1       0.00    50.00   inf" in capsys.readouterr().out
    zero.write_text(",\n0,\n")
    some.write_text(",\n50,\n")
    assert main(["cpuinfo", "--compare", str(zero), str(some), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ratio"] is None
