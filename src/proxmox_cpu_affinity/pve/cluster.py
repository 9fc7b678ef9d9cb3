"""The other nodes of this node's cluster, from what PVE's cluster file system shows.

Out of scope: whether they are online, and what is installed on them: nobody here can know.
"""

import json

from proxmox_cpu_affinity.linux.tree import Tree

MEMBERS = "etc/pve/.members"


def other_nodes(tree: Tree, node: str) -> tuple[str, ...]:
    """Their names in order; none for a node that is in no cluster.

    `.members` names them (`nodelist`: only in a cluster; pve-cluster, status.c). Folders of nodes
    that were removed stay in /etc/pve/nodes, so these count only where that file cannot be read.
    """
    text = tree.text(MEMBERS)
    try:
        members: object = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        members = None
    if isinstance(members, dict):
        listed = members.get("nodelist", {})
        names = [str(name) for name in listed] if isinstance(listed, dict) else []
    else:
        names = list(tree.listing("etc/pve/nodes"))
    return tuple(sorted(name for name in names if name != node))
