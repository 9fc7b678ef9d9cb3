"""`make bench-latency`: claims nothing of absent peers; and load does little to our values.

Only ratios within one run are looked at, and one good run of some is enough: the machine may be
busy, and a virtual one may be moved between two values.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench import latency as bench

from proxmox_cpu_affinity.linux.threads import own_cpus
from proxmox_cpu_affinity.model.latency import Method, Verdict

CHECKOUT = Path(__file__).parents[2]
TRIES = 6

pytestmark = pytest.mark.skipif(len(own_cpus()) < 2, reason="needs two CPUs")


def ran(folder: Path) -> str:
    """The benchmark's quick form, with only this folder and the system's in PATH."""
    done = subprocess.run(
        [sys.executable, "bench/latency.py", "--quick"],
        cwd=CHECKOUT,
        env={**os.environ, "PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stderr == ""
    return done.stdout


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_without_peers_nothing_is_claimed(tmp_path: Path) -> None:
    said = ran(tmp_path)
    for name in ("core-to-core-latency", "c2clat"):
        assert f"{name}: not present, so no comparison with it is claimed" in said
    assert [line.split()[:2] for line in said.splitlines() if " ours " in line] == [
        [method, "ours"] for method in (*Method, *Method)
    ]
    projected = said.partition("coarse s\n")[2].splitlines()
    assert [line.split()[0] for line in projected] == ["16", "32", "64", "128", "256", "512"]
    assert [line.split()[1] for line in projected][-1] == str(512 * 511 // 2)


def test_peers_stand_beside_ours_with_the_ratio(tmp_path: Path) -> None:
    program(tmp_path, "core-to-core-latency", f'echo "$*" >> "{tmp_path}/asked"; echo ,; echo 80,')
    program(tmp_path, "c2clat", "echo ' CPU 0 1'; echo ' 0 0 90'; echo ' 1 90 0'")
    said = ran(tmp_path)
    assert "not present" not in said
    rows = [line.split() for line in said.splitlines()]
    assert [row[:3] for row in rows if row[1:2] == ["core-to-core-latency"]][:3] == [
        [method, "core-to-core-latency", "80.0"] for method in Method
    ]
    assert next(row[:3] for row in rows if row[1:2] == ["c2clat"]) == ["rw", "c2clat", "90.0"]
    asked = (tmp_path / "asked").read_text()
    cpus = "{},{}".format(*tuple(own_cpus())[:2])
    for number in "123":
        assert f"1000 300 --bench {number} --cores {cpus} --csv" in asked


@pytest.mark.parametrize("script", ["exit 1", "echo hello", "echo ,; echo x,"])
def test_a_peer_that_fails_is_said(script: str, tmp_path: Path) -> None:
    program(tmp_path, "core-to-core-latency", script)
    first, second = tuple(own_cpus())[:2]
    peer = str(tmp_path / "core-to-core-latency")
    value, why = bench.core_to_core_latency(peer, (first, second), Method.CAS)
    assert value is None
    assert why in ("failed", "not understood")


@pytest.mark.parametrize("method", list(Method))
def test_under_full_load_a_value_holds_or_is_marked(method: Method) -> None:
    first, second = tuple(own_cpus())[:2]
    seen = []
    for _ in range(TRIES):
        before = bench.measured((first, second), method, 5).samples
        with bench.full_load():
            after = bench.measured((first, second), method, 5).samples
        quiet = min(sample.value for sample in before)
        wrong = [
            sample.value / quiet
            for sample in after
            if sample.verdict is Verdict.TRUSTED and not 1 / 1.15 < sample.value / quiet < 1.15
        ]
        if len(wrong) <= len(after) // 4:
            return
        seen.append(wrong)
    pytest.fail(f"trusted, and off by {seen}")
