"""What containers load, from control groups as files."""

from pathlib import Path

import pytest

from proxmox_cpu_affinity.linux.containers import container_load
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import CpuSet

ONLINE = CpuSet.parse("0-7")


@pytest.mark.parametrize("folder", ["sys/fs/cgroup/lxc", "sys/fs/cgroup/cpuset/lxc"])
def test_sets_of_containers_add_up(tmp_path: Path, folder: str) -> None:
    sets = {
        "101": "0,1,2\n",
        "102": "2-3\n",
        "103": "0-7\n",  # anywhere
        "104": "\n",  # no limit
        "105": "what\n",
        "monitor": "5\n",  # no container
        "106": "6,9\n",  # CPU 9 is not online
    }
    for name, text in sets.items():
        place = tmp_path / folder / name
        place.mkdir(parents=True)
        (place / "cpuset.cpus").write_text(text)
    load = dict(container_load(Tree(tmp_path), ONLINE))
    assert load == {0: 1.0, 1: 1.0, 2: 2.0, 3: 1.0, 6: 1.0}


def test_no_containers_no_load(tmp_path: Path) -> None:
    assert container_load(Tree(tmp_path), ONLINE) == ()
