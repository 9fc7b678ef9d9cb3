"""Reads below a root, on real trees; this kernel's own /sys; what was captured captures again."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxmox_cpu_affinity.formats import snapshot, sysfs
from proxmox_cpu_affinity.formats.sysfiles import CPU_DIR, NODE_DIR
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.linux.tree import Tree, capture_sysfs
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

REAL = Tree(Path("/"))
CHECKOUT = Path(__file__).parents[2]
SPECS = ("1x1x1x1", "2x2x2x2+nodes=2+offline=3", "1x1x2x2+4e+2lp", "1x1x2x1+nocache+vm+cpuless=1")


def grown(root: Path, files: Mapping[str, str]) -> Tree:
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return Tree(root)


def test_this_kernels_sysfs_agrees_with_what_it_lets_us_do() -> None:
    it = topology(capture_sysfs(REAL))
    assert CpuSet.of(os.sched_getaffinity(0)) <= it.online
    assert len(it.online) == os.cpu_count()
    for level in (it.cores, it.l2_groups, it.cache_groups, it.dies, it.packages):
        assert sum(map(len, level)) == len(it.online)
    assert CpuSet.of(cpu for node in it.nodes for cpu in node.cpus) == it.online


def test_capture_takes_only_what_the_parser_reads() -> None:
    files = capture_sysfs(REAL)
    per_cpu = [path for path in files if path.startswith(f"{CPU_DIR}/cpu0/")]
    assert 0 < len(per_cpu) <= 14
    assert all(text == text.strip() and len(text) < 8192 for text in files.values())
    without = dict(files)
    for path in per_cpu:
        del without[path]
    assert topology(without) != topology(files)


def test_capture_is_the_same_twice() -> None:
    assert capture_sysfs(REAL) == capture_sysfs(REAL)


@pytest.mark.parametrize("spec", SPECS)
def test_a_tree_made_from_files_captures_to_the_same_files(tmp_path: Path, spec: str) -> None:
    files = generate(parse_spec(spec))
    assert capture_sysfs(grown(tmp_path, files)) == files


def test_capture_through_links_to_the_real_folders(tmp_path: Path) -> None:
    (tmp_path / "sys").symlink_to("/sys")
    (tmp_path / "proc").symlink_to("/proc")
    assert capture_sysfs(Tree(tmp_path)) == capture_sysfs(REAL)


def test_capture_of_an_empty_root(tmp_path: Path) -> None:
    assert capture_sysfs(Tree(tmp_path)) == {}


def test_fallbacks_are_read_where_the_first_choice_is_missing(tmp_path: Path) -> None:
    files = {
        f"{CPU_DIR}/cpu0/online": "1",
        f"{CPU_DIR}/cpu0/topology/thread_siblings_list": "0",
        f"{CPU_DIR}/cpu0/topology/cluster_cpus_list": "0",
        f"{CPU_DIR}/cpu0/cpu_capacity": "1024",
        f"{CPU_DIR}/cpufreq/boost": "1",
        f"{NODE_DIR}/node0/cpulist": "0",
    }
    wanted = {path: text for path, text in files.items() if "cpufreq" not in path}
    assert capture_sysfs(grown(tmp_path, files)) == wanted


def test_level_one_caches_and_second_choices_are_not_kept(tmp_path: Path) -> None:
    files = generate(parse_spec("1x1x1x1"))
    folder = f"{CPU_DIR}/cpu0/cache/index0"
    more = {
        f"{folder}/level": "1",
        f"{folder}/type": "Data",
        f"{CPU_DIR}/cpu0/topology/cluster_cpus_list": "0",
        f"{CPU_DIR}/cpu0/topology/thread_siblings_list": "0",
    }
    assert capture_sysfs(grown(tmp_path, files | more)) == files


def test_text_listing_and_link(tmp_path: Path) -> None:
    tree = grown(tmp_path, {"a/b": "x", "a/c": "y"})
    (tmp_path / "l").symlink_to("nodes/here")
    assert tree.text("a/b") == tree.text("/a/b") == "x\n"
    assert tree.listing("a") == ("b", "c")
    assert tree.link("l") == "nodes/here"
    assert tree.at("/a/b") == tmp_path / "a/b"
    assert Tree.shown("a/b") == Tree.shown("/a/b") == "/a/b"


@pytest.mark.parametrize("path", ["missing", "a", "a/b/c", "loop", "nul\0byte", "x" * 300])
def test_what_cannot_be_read_is_none(tmp_path: Path, path: str) -> None:
    tree = grown(tmp_path, {"a/b": "x"})
    (tmp_path / "loop").symlink_to("loop")
    assert tree.text(path) is None
    assert tree.head(path, 10) is None


def test_what_is_no_folder_lists_nothing(tmp_path: Path) -> None:
    tree = grown(tmp_path, {"a/b": "x"})
    assert tree.listing("a/b") == tree.listing("missing") == ()
    assert tree.link("a/b") is tree.link("missing") is None


def test_reads_are_bounded(tmp_path: Path) -> None:
    tree = grown(tmp_path, {"f": "x" * 99})
    assert tree.text("f", limit=100) is not None
    assert tree.text("f", limit=99) is None
    assert tree.head("f", 3) == "xxx"
    assert tree.text("/dev/zero") is None
    assert Tree(Path("/")).text("dev/zero", limit=10) is None


def test_a_fifo_does_not_hold_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert Tree(tmp_path).text("fifo") == ""


def test_bytes_that_are_no_text_do_not_fail(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"a\xff\0b")
    assert Tree(tmp_path).text("f") == "a\ufffd\0b"


def test_capture_host_runs_away_from_its_sources(tmp_path: Path) -> None:
    """As the package's example: with the modules that are installed."""
    grown(tmp_path / "host", generate(parse_spec("1x1x2x1")))
    script = tmp_path / "examples/capture-host"
    script.parent.mkdir()
    shutil.copy(CHECKOUT / "scripts/capture-host", script)
    run = subprocess.run(
        [sys.executable, str(script), "one group", str(tmp_path / "host")],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert len(sysfs.topology(snapshot.parse(run.stdout).files).cache_groups) == 1


def test_capture_host_prints_a_snapshot(tmp_path: Path) -> None:
    grown(tmp_path, generate(parse_spec("1x2x2x1")))
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}
    script = [sys.executable, str(CHECKOUT / "scripts/capture-host")]
    run = subprocess.run(
        [*script, "two groups", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    taken = snapshot.parse(run.stdout)
    assert (taken.origin, taken.what) == (snapshot.CAPTURED, "two groups")
    assert len(sysfs.topology(taken.files).cache_groups) == 2
    assert str(tmp_path) not in run.stdout
    wrong = subprocess.run(
        script, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("usage: ")
