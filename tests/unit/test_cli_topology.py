"""`topology`: every CPU stands in the map, marked as what it is, within the width."""

import json
import re
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.cli.topologymap import topology_map
from proxmox_cpu_affinity.formats.wire import TopologyView
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec
from tests.unit.engine_hosts import topology_of as host

HOSTS = Path(__file__).parents[1] / "hosts"
SPECS = ("1x1x1x1", "2x2x4x2+nodes=2", "1x2x4x2+8e+2lp", "2x8x8x2+offline=5,7", "1x1x64x2")


def drawn(lines: list[str]) -> list[str]:
    """The cores' words: the lines between the headline and the nodes, without their labels."""
    rows = lines[2 : lines.index("", 2)]
    rows = [row for row in rows if not row.startswith("offline")]
    start = re.match(r"package +\d+ +node +\d+ +cache group +\d+ +", rows[0])
    assert start is not None
    return [word for row in rows for word in row[start.end() - 1 :].split()]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_core_stands_once_with_its_siblings(spec: str, width: int) -> None:
    here = host(spec)
    lines = topology_map(here, reserved=EMPTY, width=width)
    words = [re.sub("[a-z]", "", word) for word in drawn(lines)]
    assert words == ["/".join(map(str, core)) for core in _in_order(here)]
    assert all(len(line) <= width for line in lines[2:])


def _in_order(here: Topology) -> list[CpuSet]:
    key = {core: here.place(core.first()) for core in here.cores}
    return sorted(here.cores, key=lambda c: (key[c].package, key[c].node, key[c].llc, c.first()))


def test_the_map_of_a_host_with_everything() -> None:
    here = host("1x1x4x2+2e+1lp+isolated=2-3+offline=5")
    lines = topology_map(here, reserved=CpuSet.parse("0-1,10"), width=80)
    assert lines[1:] == [
        "",
        "package 0  node 0  cache group 0  0r/1r 2i/3i 4     6/7   8e    9e",
        "package 0  node 0  cache group 1  10lr",
        "offline: CPU 5",
        "",
        "node 0: 16384 MiB; CPUs 0-4,6-10",
        "",
        "a/b SMT siblings of one core   e efficiency core   l low-power core",
        "i isolated by the kernel   r reserved for the host",
    ]
    assert lines[0].endswith(": 1 package, 1 node, 2 cache groups, 7 cores, 10 CPUs")


def test_a_plain_host_needs_no_legend() -> None:
    lines = topology_map(host("1x1x2x1+vm"), reserved=EMPTY, width=80)
    assert lines[0].endswith("2 cores, 2 CPUs, a virtual machine")
    assert lines[-1] == "node 0: 16384 MiB; CPUs 0-1"


def test_a_node_without_cpus_is_named_with_its_distances() -> None:
    lines = topology_map(host("1x1x2x1+cpuless=1"), reserved=EMPTY, width=80)
    assert lines[-1] == "node 1: 16384 MiB; no CPUs; distance 24 to node 0, 10 to node 1"


@pytest.mark.parametrize("file", sorted(path.name for path in HOSTS.glob("*.json")))
def test_every_snapshot_can_be_drawn(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topology", "--host", str(HOSTS / file)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "cache group 0" in said.out
    assert main(["topology", "--host", str(HOSTS / file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == list(TopologyView.__dataclass_fields__)
    for note in found["notes"]:
        assert f"note: {note}\n" in said.out


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("/nowhere", "--host /nowhere: No such file"),
        ("generated:2x", "'2x' is not PACKAGESxL3xCORESxTHREADS"),
    ],
)
def test_a_host_that_is_none_is_a_usage_error(
    name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["topology", "--host", name]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert text in said.err


def test_a_root_without_a_host_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(tmp_path), "topology"]) == 2
    assert "its sys names no CPU that is online" in capsys.readouterr().err


def test_the_host_below_the_root_is_drawn_with_its_reserved_cpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, text in generate(parse_spec("1x1x4x1")).items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "etc/default").mkdir(parents=True)
    settings = tmp_path / "etc/default/proxmox-cpu-affinity"
    settings.write_text("PCA_RESERVED_CPUS=0-1\n")
    assert main(["--root", str(tmp_path), "topology"]) == 0
    out = capsys.readouterr().out
    assert "cache group 0  0r 1r 2  3\n" in out
    assert out.endswith("r reserved for the host\n")
    settings.write_text("PCA_RESERVED_CPUS=all\n")
    assert main(["--root", str(tmp_path), "topology"]) == 78
    assert "PCA_RESERVED_CPUS='all' must be" in capsys.readouterr().err
