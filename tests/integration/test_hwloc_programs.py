"""hwloc's own programs read what we write, and we read what they write."""

import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats import hwloc, hwloc_xml, snapshot
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

LSTOPO, INFO = shutil.which("lstopo-no-graphics"), shutil.which("hwloc-info")
pytestmark = pytest.mark.skipif(LSTOPO is None, reason="no lstopo-no-graphics (apt install hwloc)")

SPECS = (
    *("1x1x4x2", "2x4x4x2+nodes=4", "2x2x4x2+dies=2", "1x2x2x2+4e", "2x1x4x1+cpuless=1"),
    *("1x1x1x1", "4x2x3x1", "2x8x16x2", "1x1x6x2+gaps=2-3+offline=5", "1x1x4x1+nocache"),
)
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


# -- there and back --------------------------------------------------------------------------------

LEVELS = ("package", "numa", "l3", "core", "pu")


def sets(file: Path, level: str) -> list[tuple[str, ...]]:
    """CPUs, nodes and numbers of all objects of a level, as hwloc-info has them."""
    assert INFO is not None
    command = [INFO, "-i", str(file), f"{level}:all"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return sorted(
        tuple(re.findall(r"^ (?:cpuset|nodeset|os index) = (\S+)$", part, re.M))
        for part in re.split(r"^(?=\S)", done.stdout, flags=re.M)
        if part
    )


def there_and_back(file: Path) -> Path:
    here = topology(hwloc.parse(file.read_text()).files)
    ours = file.with_name("ours.xml")
    ours.write_text(hwloc_xml.to_text(here, predicted(here)))
    return ours


@st.composite
def synthetic(draw: st.DrawFn) -> str:
    """A host in hwloc's own short form; each level but the nodes' may be missing."""
    levels = []
    for name, most in (("pack", 4), ("die", 2), ("numa", 4), ("l3", 4), ("l2", 2), ("core", 6)):
        if name in ("numa", "core") or draw(st.booleans()):
            levels.append(f"{name}:{draw(st.integers(1, most))}")
    if draw(st.booleans()):
        at = next(i for i, level in enumerate(levels) if level.startswith("numa"))
        levels[at : at + 2] = reversed(levels[at : at + 2])  # nodes inside of a cache
    if not any(level.startswith("l3") for level in levels):
        levels = [level for level in levels if not level.startswith("l2")]  # see hwloc_xml
    return " ".join((*levels, f"pu:{draw(st.integers(1, 4))}"))


@pytest.mark.skipif(INFO is None, reason="no hwloc-info (apt install hwloc)")
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(spec=synthetic())
def test_hwloc_s_own_hosts_come_back_with_the_same_sets(spec: str) -> None:
    """lstopo's XML, read and written by us, holds the same CPUs and nodes of every level."""
    with TemporaryDirectory() as folder:
        theirs = Path(folder) / "theirs.xml"
        command = [str(LSTOPO), "-i", spec, "--of", "xml", str(theirs)]
        subprocess.run(command, capture_output=True, check=True, timeout=60)
        ours = there_and_back(theirs)
        for level in LEVELS:
            assert sets(ours, level) == sets(theirs, level), level
            assert sets(theirs, level) or level in ("package", "l3")


def cpus_of(file: Path, level: str) -> list[CpuSet]:
    """The CPUs of each object of a level, in order; hwloc writes words of 32 bits."""
    texts = (next(text for text in one if text[:2] in ("0x", ",0")) for one in sets(file, level))
    found = map(cpus_in, texts)
    return sorted(found, key=lambda cpus: cpus.mask & -cpus.mask)


def cpus_in(words: str) -> CpuSet:
    mask = 0
    for word in words.split(","):
        mask = mask << 32 | int(word or "0", 16)
    return CpuSet(mask)


@pytest.mark.skipif(INFO is None, reason="no hwloc-info (apt install hwloc)")
@pytest.mark.parametrize("name", hosts())
def test_what_hwloc_makes_of_our_file_is_the_host(name: str, tmp_path: Path) -> None:
    """A cache that we only guess is none; a node without CPUs is near to all of them."""
    here = hosts()[name]
    file = tmp_path / "host.xml"
    file.write_text(hwloc_xml.to_text(here, predicted(here)))
    assert cpus_of(file, "pu") == [CpuSet.of([cpu]) for cpu in here.online]
    assert cpus_of(file, "core") == [*here.cores]
    assert cpus_of(file, "package") == [*here.packages]
    guessed = any("no last-level cache" in note for note in here.notes)
    assert cpus_of(file, "l3") == ([] if guessed else [*here.cache_groups])
    told = {int(number): cpus_in(cpus) for number, cpus, _ in sets(file, "numa")}
    assert told == {int(node.node): node.cpus or here.online for node in here.nodes}
