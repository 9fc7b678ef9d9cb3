"""A guest's memory: on which nodes it is, and moving it (migrate_pages(2)).

Moving is one system call that may last for minutes and cannot be interrupted: whoever asks for it
does so in a thread that nobody waits for. Out of scope: whether it pays.
"""

import ctypes
import os
import platform
from collections.abc import Mapping

from proxmox_cpu_affinity.formats.numa import NodeMemory, memory_by_node, node_memory
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.ids import Pid

_NUMBERS = {"x86_64": 256, "aarch64": 238}  # of migrate_pages, by architecture
_NODES_MOST = 1024
_LONG = 8 * ctypes.sizeof(ctypes.c_ulong)
_TEXT_LIMIT = 64 << 20  # a guest with small pages and many mappings has a long numa_maps


def memory_of(tree: Tree, pid: Pid) -> Mapping[int, float]:
    """MiB of a process on each node; empty where that cannot be read."""
    text = tree.text(f"proc/{pid}/numa_maps", limit=_TEXT_LIMIT)
    try:
        return memory_by_node(text or "")
    except SyntaxFault:
        return {}


def memory_on(tree: Tree, node: int) -> NodeMemory | None:
    text = tree.text(f"sys/devices/system/node/node{node}/meminfo")
    try:
        return None if text is None else node_memory(text)
    except SyntaxFault:
        return None


def _mask(nodes: frozenset[int]) -> "ctypes.Array[ctypes.c_ulong]":
    words = [0] * (_NODES_MOST // _LONG)
    for node in nodes:
        words[node // _LONG] |= 1 << (node % _LONG)
    return (ctypes.c_ulong * len(words))(*words)


def move_pages_of(pid: Pid, *, off: frozenset[int], onto: frozenset[int]) -> int:
    """Move a process's pages from some nodes to others; how many could not be moved. OSError."""
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(f"migrate_pages is not known on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    left: int = libc.syscall(number, int(pid), _NODES_MOST, _mask(off), _mask(onto))
    if left < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return left
