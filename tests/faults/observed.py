"""What a node's kernel and files say, read by the tests' own parsers: none of the product's."""

import contextlib
import hashlib
import json
import os

from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import cpus_of

HOOK = "proxmox-cpu-affinity-hook"
STATE = "/var/lib/proxmox-cpu-affinity/state.json"


def masks(pid: int) -> dict[int, frozenset[int]]:
    """The CPUs of each thread of a process, by TID; none of one that is gone."""
    found = {}
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/status") as file:
                listed = next(line for line in file if line.startswith("Cpus_allowed_list:"))
                found[int(task)] = frozenset(cpus_of(listed.split()[1]))
    return found


def main_section(text: str) -> dict[str, str]:
    """The keys of a guest's file above its first section."""
    above = text.partition("[")[0]
    pairs = (line.split(": ", 1) for line in above.splitlines() if ": " in line)
    return {key.strip(): value.strip() for key, value in pairs}


def next_start(text: str) -> dict[str, str]:
    """As main_section, with the changes that wait for the next start."""
    waiting = main_section(text.partition("[PENDING]")[2])
    gone = waiting.pop("delete", "").replace(",", " ").split()
    keys = {**main_section(text), **waiting}
    return {key: value for key, value in keys.items() if key not in gone}


def managed(keys: dict[str, str], manage: str) -> bool:
    """Whether a guest is ours under PCA_MANAGE (DESIGN 5)."""
    tags = keys.get("tags", "").replace(",", ";").replace(" ", ";").split(";")
    hooked = keys.get("hookscript", "").rpartition("/")[2] == HOOK
    if keys.get("template") == "1" or "affinity" in keys or "cpu-affinity-off" in tags:
        return False
    return {"hook": hooked, "tag": hooked or "cpu-affinity" in tags, "all": True}[manage]


def kept(node: Node) -> dict[str, object]:
    """What the state file has, nothing where there is none. Raises where it is not a whole one."""
    file = node.path(STATE)
    if not file.exists():
        return {"tracked": {}}
    text = file.read_text()
    whole = json.loads(text)
    body = json.dumps(whole["content"], separators=(",", ":"), sort_keys=True)
    assert hashlib.sha256(body.encode()).hexdigest() == whole["sha256"], "its checksum is wrong"
    assert isinstance(whole["content"], dict)
    return whole["content"]


def left_over(node: Node) -> list[str]:
    """Files that nobody should ever find: temporary ones, ones set aside, drop-ins."""
    found = list(node.path("/run/systemd/system").glob("*/*proxmox-cpu-affinity*"))
    for name in ("/var/lib/proxmox-cpu-affinity", "/run/proxmox-cpu-affinity"):
        folder = node.path(name)
        found += [*folder.glob("*.new"), *folder.glob("*.bad"), *folder.glob("*.tmp*")]
    return [str(file.relative_to(node.root)) for file in found]
