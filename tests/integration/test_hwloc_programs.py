"""hwloc's own programs read what we write, and we read what they write."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proxmox_cpu_affinity.formats import hwloc, hwloc_xml, snapshot
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

LSTOPO = shutil.which("lstopo-no-graphics")
pytestmark = pytest.mark.skipif(LSTOPO is None, reason="no lstopo-no-graphics (apt install hwloc)")

SPECS = ("1x1x4x2", "2x4x4x2+nodes=4", "2x2x4x2+dies=2", "1x2x2x2+4e", "2x1x4x1+cpuless=1")
CAPTURED = sorted((Path(__file__).parents[1] / "hosts").glob("*.json"))


def lstopo(*words: str) -> str:
    """What it prints; it must say nothing on stderr."""
    assert LSTOPO is not None
    done = subprocess.run([LSTOPO, *words], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def hosts() -> dict[str, Topology]:
    made = {spec: topology(generate(parse_spec(spec))) for spec in SPECS}
    kept = {path.stem: topology(snapshot.parse(path.read_text()).files) for path in CAPTURED}
    return {**made, **kept}


@pytest.mark.parametrize("name", hosts())
def test_lstopo_reads_our_file_without_a_complaint(name: str, tmp_path: Path) -> None:
    here = hosts()[name]
    file = tmp_path / "host.xml"
    file.write_text(hwloc_xml.to_text(here, predicted(here)))
    text = lstopo("-i", str(file), "--of", "console", "--no-io")
    assert len(re.findall(r"\bPU\b", text)) == len(here.online)
    assert len(re.findall(r"\bPackage\b", text)) == len(here.packages)
    assert len(re.findall(r"\bNUMANode\b", text)) == len(here.nodes)
    shown = lstopo("-i", str(file), "--distances")
    assert (f"name={hwloc.IN_PS}" in shown or hwloc.IN_PS in shown) == (len(here.online) > 1)


def test_lstopo_keeps_our_latencies(tmp_path: Path) -> None:
    here = topology(generate(parse_spec("2x2x2x2")))
    matrix = predicted(here)
    ours, theirs = tmp_path / "ours.xml", tmp_path / "theirs.xml"
    ours.write_text(hwloc_xml.to_text(here, matrix))
    lstopo("-i", str(ours), "--of", "xml", str(theirs))
    found = hwloc.parse(theirs.read_text())
    assert topology(found.files).cache_groups == here.cache_groups
    assert found.latency_ns is not None
    assert [ns for row in found.latency_ns for ns in row] == pytest.approx(list(matrix.ns))


def test_this_host_as_lstopo_sees_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "this.xml"
    lstopo("--of", "xml", str(file))
    assert topology(hwloc.parse(file.read_text()).files).online


@pytest.mark.parametrize("spec", ["pack:2 numa:2 l3:2 core:2 pu:2", "numa:4 core:3 pu:1"])
def test_a_synthetic_host_of_hwloc_is_read(spec: str, tmp_path: Path) -> None:
    file = tmp_path / "synthetic.xml"
    lstopo("-i", spec, "--of", "xml", str(file))
    here = topology(hwloc.parse(file.read_text()).files)
    counts = dict(part.split(":") for part in spec.split())
    packages = int(counts.get("pack", 1))
    nodes = packages * int(counts["numa"])
    cores = nodes * int(counts.get("l3", 1)) * int(counts["core"])
    assert (len(here.nodes), len(here.cores)) == (nodes, cores)
    assert len(here.online) == cores * int(counts["pu"])
