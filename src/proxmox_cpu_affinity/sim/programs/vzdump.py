"""The simulated node's `vzdump`: a backup of one guest, as far as it starts and stops it."""

import sys
from collections.abc import Sequence

from proxmox_cpu_affinity.sim import backup, tasks
from proxmox_cpu_affinity.sim.backup import Mode
from proxmox_cpu_affinity.sim.faults import BadParameter
from proxmox_cpu_affinity.sim.programs import options
from proxmox_cpu_affinity.sim.tree import Tree

_USAGE = "vzdump {<vmid>} [OPTIONS]"
_IGNORED = ("storage", "dumpdir", "compress", "stopwait", "quiet", "remove", "notes-template")
# Not an option of the real one: the disks are read for as long as stdin is open.
_AS_LONG_AS_STDIN = "as-long-as-stdin"


def main(tree: Tree, words: Sequence[str]) -> int:
    """Run one backup. Fault."""
    known = ("mode", *_IGNORED)
    read = options.read(words, usage=_USAGE, count=1, known=known, flags=(_AS_LONG_AS_STDIN,))
    vmid = read.vmid()
    mode = read.options.get("mode", Mode.SNAPSHOT)
    if mode not in tuple(Mode):
        values = ", ".join(Mode)
        text = f"value '{mode}' does not have a value in the enumeration '{values}'"
        raise BadParameter("mode", text, usage=_USAGE)
    waits = read.flag(_AS_LONG_AS_STDIN)

    def reading() -> None:
        if waits:
            sys.stdin.buffer.read()

    return tasks.run(
        tree, "vzdump", vmid, lambda: backup.run(tree, vmid, Mode(mode), reading=reading)
    )
