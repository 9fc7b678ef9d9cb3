"""Starts one of the programs: `python -I -S __main__.py PROGRAM ROOT WORDS...`.

The file is run by its path, so it puts the package's folder on the path itself.
"""

import io
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))


def main(name: str, root: str, words: list[str]) -> int:
    from proxmox_cpu_affinity.model.errors import AffinityError
    from proxmox_cpu_affinity.sim import say
    from proxmox_cpu_affinity.sim.faults import Fault
    from proxmox_cpu_affinity.sim.tree import Tree

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a configuration may hold any bytes
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    program = import_module(f"proxmox_cpu_affinity.sim.programs.{name.replace('-', '_')}")
    try:
        return int(program.main(Tree.load(Path(root)), words))
    except Fault as fault:
        say.warn(fault.text)
        return fault.status
    except AffinityError as error:
        say.warn(error.text)
        return 255
    except BrokenPipeError:
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
