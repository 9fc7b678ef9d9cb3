"""numa_maps and a node's meminfo."""

import pytest

from proxmox_cpu_affinity.formats.numa import NodeMemory, memory_by_node, node_memory
from proxmox_cpu_affinity.model.errors import SyntaxFault

MAPS = """\
55d0c0000000 default file=/usr/bin/qemu-system-x86_64 mapped=512 active=0 N0=512 kernelpagesize_kB=4
7f0000000000 default anon=2560 dirty=2560 N0=512 N1=2048 kernelpagesize_kB=4
7f1000000000 prefer:1 huge anon=3 dirty=3 N1=3 kernelpagesize_kB=1048576
7ffd00000000 default stack anon=3 dirty=3 N0=3 kernelpagesize_kB=4
7ffd10000000 default
"""
MEMINFO = """\
Node 1 MemTotal:       16384000 kB
Node 1 MemFree:         2048000 kB
Node 1 Active(file):     512000 kB
Node 1 Inactive(file):  1024000 kB
"""


def test_pages_are_counted_by_their_size() -> None:
    assert memory_by_node(MAPS) == {0: (512 + 512 + 3) * 4 / 1024, 1: 2048 * 4 / 1024 + 3 * 1024}


def test_process_without_memory_is_nowhere() -> None:
    assert memory_by_node("") == {}


def test_pages_of_unknown_size_are_refused() -> None:
    with pytest.raises(SyntaxFault):
        memory_by_node("7f0000000000 default anon=1 N0=1\n")


def test_files_that_nobody_used_lately_count_as_free() -> None:
    assert node_memory(MEMINFO) == NodeMemory(16384000 / 1024, 3072000 / 1024)


def test_meminfo_without_a_figure_is_refused() -> None:
    with pytest.raises(SyntaxFault, match="MemFree"):
        node_memory(MEMINFO.replace("MemFree", "MemOther"))
