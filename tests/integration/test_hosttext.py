"""What lscpu itself says of generated hosts, and what numactl would, is read as those hosts."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats import hosttext, saved
from proxmox_cpu_affinity.formats.sysfiles import CPU_DIR
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import AffinityError, SyntaxFault
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

SPECS = ("1x1x2x1", "2x2x4x2", "2x2x2x2+nodes=2+offline=5", "1x2x2x2+4e+2lp")
LEVELS = ("online", "cores", "l2_groups", "cache_groups", "packages")
needs_lscpu = pytest.mark.skipif(shutil.which("lscpu") is None, reason="no lscpu here")


def mask(cpulist: str) -> str:
    """A cpumap, as the kernel writes it: words of 32 bits."""
    digits = f"{CpuSet.parse(cpulist).mask:x}"
    digits = digits.rjust(-(-len(digits) // 8) * 8, "0")
    return ",".join(digits[i : i + 8] for i in range(0, len(digits), 8))


def for_lscpu(spec: str) -> dict[str, str]:
    """A generated host with the files beside ours that lscpu reads."""
    files = generate(parse_spec(spec))
    here = topology(files)
    more = {f"{CPU_DIR}/kernel_max": "8191"}
    for cpu in here.present:
        more[f"{CPU_DIR}/cpu{cpu}/online"] = str(int(cpu in here.online))
    for path, text in files.items():
        if path.endswith(("/cpulist", "/shared_cpu_list")):
            more[re.sub("list$", "map", path)] = mask(text)
        if path.endswith("/shared_cpu_list"):
            more[path.replace("shared_cpu_list", "size")] = "1024K"
    for cpu in here.online:
        folder = f"{CPU_DIR}/cpu{cpu}"
        place = here.place(cpu)
        core, package = here.cores[place.core], here.packages[place.package]
        more[f"{folder}/topology/thread_siblings"] = mask(str(core))
        more[f"{folder}/topology/core_siblings"] = mask(str(package))
        for index, kind in enumerate(("Data", "Instruction")):
            cache = f"{folder}/cache/index{index}"
            more |= {f"{cache}/level": "1", f"{cache}/type": kind, f"{cache}/size": "32K"}
            more[f"{cache}/shared_cpu_map"] = mask(str(core))
    blocks = (f"processor\t: {cpu}\nmodel name\t: Generated\n" for cpu in here.online)
    return {**files, **more, "proc/cpuinfo": "\n".join(blocks)}


def said(spec: str, root: Path, *words: str) -> str:
    for path, text in for_lscpu(spec).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
    command = ["lscpu", "--sysroot", str(root), *words]
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout


def numactl(here: Topology) -> str:
    numbers = [int(node.node) for node in here.nodes]
    lines = [f"available: {len(numbers)} nodes (0-{numbers[-1]})"]
    for node in here.nodes:
        lines.append(f"node {node.node} cpus: {' '.join(map(str, node.cpus))}")
        lines += [f"node {node.node} size: {node.memory_mib} MB", f"node {node.node} free: 7 MB"]
    lines += ["node distances:", "node  " + "".join(f"{n:4}" for n in numbers)]
    for node in here.nodes:
        lines.append(f"{node.node:4}:" + "".join(f"{d:5}" for _, d in node.distances))
    return "\n".join(lines) + "\n"


@needs_lscpu
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("words", [["-p"], ["-e"]])
def test_a_table_of_lscpu_is_the_host(spec: str, words: list[str], tmp_path: Path) -> None:
    """The low-power cores of the last one have no L3 cache, so that lscpu -p's lines are short."""
    here = topology(generate(parse_spec(spec)))
    text = said(spec, tmp_path, *words)
    back = topology(saved.parse(text).files)
    for level in LEVELS:
        assert getattr(back, level) == getattr(here, level), level
    assert [(n.node, n.cpus) for n in back.nodes] == [(n.node, n.cpus) for n in here.nodes]
    both = topology(saved.parse(numactl(here) + text).files)
    assert both.nodes == here.nodes


@needs_lscpu
@pytest.mark.parametrize("spec", ["1x1x2x1", "2x2x4x2", "2x4x2x2+nodes=2"])
def test_plain_lscpu_is_the_host_and_its_guesses_are_notes(spec: str, tmp_path: Path) -> None:
    here = topology(generate(parse_spec(spec)))
    found = saved.parse(said(spec, tmp_path) + numactl(here))
    back = topology(found.files)
    for level in (*LEVELS, "nodes"):
        assert getattr(back, level) == getattr(here, level), level
    notes = " ".join(found.notes)
    assert ("share a core" in notes) == (len(here.cores) < len(here.online))
    assert ("which socket" in notes) == (len(here.packages) > 1)
    assert ("share an L3 cache" in notes) == (len(here.cache_groups) > 1)


@needs_lscpu
@pytest.mark.parametrize("spec", ["2x2x2x2+nodes=2+offline=5", "1x2x2x2+4e+2lp"])
def test_plain_lscpu_of_an_uneven_host_is_refused(spec: str, tmp_path: Path) -> None:
    """Of the second, 14 CPUs of two threads a core would be 7 cores, and lscpu tells of 10."""
    with pytest.raises(SyntaxFault) as caught:
        saved.parse(said(spec, tmp_path))
    assert "lscpu -p" in caught.value.hint


@needs_lscpu
def test_repeated_core_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SyntaxFault, match="share neither") as caught:
        saved.parse(said("2x2x4x2", tmp_path, "-e", "-y").replace(" 1 ", " 0 "))
    assert "without -y" in caught.value.hint


TABLE = "# CPU,Core,Socket,Node,,L1d,L1i,L2,L3\n0,0,0,0,,0,0,0,0\n1,1,0,0,,1,1,1,0\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (numactl(topology(generate(parse_spec("1x1x2x1")))), "numactl alone"),
        (TABLE + numactl(topology(generate(parse_spec("1x1x4x1")))), "different hosts"),
        (TABLE + numactl(topology(generate(parse_spec("2x1x1x1")))), "different nodes"),
        (TABLE + "2,2,0\n", "3 cells under 9 heads"),
        (TABLE + "1,1,0,0,,1,1,1,0\n", "named twice"),
        (TABLE + "what is this\n", "line 4: neither lscpu nor numactl"),
        ("Architecture: x86_64\n", "which CPUs are online"),
        (TABLE + "available: 2 nodes (0-1)\nnode 0 cpus: 0 1\n", "tells of 2 nodes, and"),
        (TABLE + 2 * "node 0 cpus: 0 1\n", "node 0 cpus: told twice"),
        (TABLE + "node 0 cpus: 0\nnode 00 cpus: 1\n", "node 0 cpus: told twice"),
        (TABLE + "node 0 cpus: 0 1\nnode 0 size: 7 MB\nnode 0 size: 9 MB\n", "node 0 size: told"),
        (TABLE + "node 0 cpus: 0 1\n  0: 10\n  0: 20\n", "node 0 distances: told"),
    ],
)
def test_what_contradicts_is_refused(text: str, why: str) -> None:
    with pytest.raises(SyntaxFault, match=why):
        hosttext.parse(text)


def test_an_online_cpu_whose_core_is_unknown_stays() -> None:
    found = topology(hosttext.parse(TABLE + "2,,0,0,,2,2,2,0\n3,,,,,,,,\n").files)
    assert (str(found.online), str(found.present)) == ("0-2", "0-3")
    text = "CPU CORE ONLINE\n0 0 yes\n1 - yes\n2 - no\n"
    assert str(topology(hosttext.parse(text).files).online) == "0-1"
    with pytest.raises(SyntaxFault, match="neither yes nor no"):
        hosttext.parse(text + "3 3 maybe\n")


WORDS = st.sampled_from(
    [
        *TABLE.splitlines(),
        *numactl(topology(generate(parse_spec("2x1x1x1")))).splitlines(),
        *("CPU NODE SOCKET CORE L1d:L1i:L2:L3 ONLINE", "0 0 0 0 0:0:0:0 yes", "1 - - - - no"),
        *("CPU(s): 2", "On-line CPU(s) list: 0-1", "Thread(s) per core: 2", "Socket(s): 1"),
        *("L3 cache: 1 MiB (1 instance)", "NUMA node0 CPU(s): 0,1", "Thread(s) per core: 0"),
    ]
)


@given(st.lists(WORDS | st.text(max_size=30)))
def test_no_text_crashes(lines: list[str]) -> None:
    try:
        found = hosttext.parse("\n".join(lines))
    except AffinityError:
        return
    assert topology(found.files).online
