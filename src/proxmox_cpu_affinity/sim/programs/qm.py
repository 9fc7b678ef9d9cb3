"""The simulated node's `qm`: PVE's words, messages and exit statuses.

The commands are in qm_show, qm_edit and qm_power. Out of scope: disks, the guest agent.
"""

from collections.abc import Mapping, Sequence

from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.programs import options, qm_edit, qm_power, qm_show
from proxmox_cpu_affinity.sim.programs.options import Command
from proxmox_cpu_affinity.sim.tree import Tree

COMMANDS: Mapping[str, Command] = {
    **qm_edit.COMMANDS,
    **qm_power.COMMANDS,
    **qm_show.COMMANDS,
}


def main(tree: Tree, words: Sequence[str]) -> int:
    """Run one command. Fault."""
    if not words or words[0] not in COMMANDS:
        shown = (
            f"ERROR: unknown command 'qm {words[0]}'" if words else "ERROR: no command specified"
        )
        names = "|".join(sorted(COMMANDS))
        raise Fault(f"{shown}\nUSAGE: qm <COMMAND> [ARGS] [OPTIONS]\n       COMMAND: {names}")
    name, *rest = words
    command = COMMANDS[name]
    known = set(command.known)
    if command.takes_keys:
        given = (word.lstrip("-").partition("=")[0] for word in rest if word.startswith("-"))
        known |= {key for key in given if options.is_key(key)}
    usage = " ".join(("qm", name, command.arguments, "[OPTIONS]"))
    count = len(command.arguments.split())
    read = options.read(rest, usage=usage, count=count, known=known, flags=command.flags)
    return command.run(tree, read)
