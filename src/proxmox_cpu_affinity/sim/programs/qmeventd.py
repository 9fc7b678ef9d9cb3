"""Starts the node's qmeventd in the background; ends once its socket listens."""

from collections.abc import Sequence

from proxmox_cpu_affinity.sim import qmeventd
from proxmox_cpu_affinity.sim.tree import Tree


def main(tree: Tree, words: Sequence[str]) -> int:
    """Take no words."""
    qmeventd.serve(tree)
    return len(words)
