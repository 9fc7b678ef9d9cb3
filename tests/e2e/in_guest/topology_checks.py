"""What the project reads from this kernel is what the host asked of QEMU."""

import json
import sys
from pathlib import Path

from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.linux.tree import Tree, capture_sysfs
from proxmox_cpu_affinity.model.topology import Topology
from tests.e2e.in_guest import node
from tests.e2e.promises import shows
from tests.e2e.shape import Shape

SHAPE = Shape.parse(sys.argv[1])


def here() -> Topology:
    return topology(capture_sysfs(Tree(Path("/"))))


@shows()
def check_packages_cache_groups_and_cores() -> None:
    found = here()
    groups = SHAPE.packages * SHAPE.groups
    for name, sets, parts in (
        ("packages", found.packages, SHAPE.packages),
        ("dies", found.dies, groups),
        ("cache groups", found.cache_groups, groups),
        ("cores", found.cores, groups * SHAPE.cores),
        ("L2 groups", found.l2_groups, groups * SHAPE.cores),
    ):
        assert [set(cpus) for cpus in sets] == SHAPE.slices(parts), f"{name}: {sets}"


@shows()
def check_nodes_and_distances() -> None:
    found = here()
    assert [set(one.cpus) for one in found.nodes] == SHAPE.slices(SHAPE.nodes), found.nodes
    for one in found.nodes:
        for other in found.nodes:
            assert one.distance(other.node) == SHAPE.distance(one.node, other.node), found.nodes
        assert one.memory_mib, "a node without memory"


@shows(5)
def check_nothing_was_guessed() -> None:
    found = here()
    assert found.virtual
    assert set(found.online) == set(range(SHAPE.cpus))
    guesses = [note for note in found.notes if "counts as" in note]
    assert not guesses, guesses


@shows(2)
def check_measuring_reaches_every_pair() -> None:
    """The values are an emulator's; that there is one for each pair is what counts."""
    words = ("cpuinfo", "--json", "--quiet", "--rounds", "1", "--iterations", "10")
    rows = json.loads(node.run("/usr/bin/proxmox-cpu-affinity", *words))
    assert {row["cpu"] for row in rows} == set(range(SHAPE.cpus))
    for row in rows:
        others = {neighbor["cpu"] for neighbor in row["ranking"]}
        assert others == set(range(SHAPE.cpus)) - {row["cpu"]}, row
