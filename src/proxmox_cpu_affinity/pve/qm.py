"""The one place that starts PVE's programs: `qm set`, for the command line only.

Out of scope: whether a hookscript may be set, and whether it is afterwards; whoever asks for a
change reads the guest's file again.
"""

import os
import subprocess
from dataclasses import dataclass

from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import ProgramFailedError
from proxmox_cpu_affinity.model.ids import Vmid

QM = "/usr/sbin/qm"
TIMEOUT = 60.0  # seconds; qm itself waits 10 s for a guest's lock


def set_hookscript(vmid: Vmid, volume: str) -> tuple[str, ...]:
    """The command that gives a guest a hookscript, as the node sees it."""
    return (QM, "set", str(vmid), "--hookscript", volume)


def delete_hookscript(vmid: Vmid) -> tuple[str, ...]:
    """The command that takes a guest's hookscript away."""
    return (QM, "set", str(vmid), "--delete", "hookscript")


@dataclass(frozen=True, slots=True)
class Programs:
    """PVE's programs below one root."""

    tree: Tree
    timeout: float = TIMEOUT

    def run(self, command: tuple[str, ...]) -> None:
        """Run a command to its end. ProgramFailedError, with what the program said."""
        program, *words = command
        named = f"{program} {words[0]} {words[1]}"
        try:
            done = subprocess.run(
                [str(self.tree.at(program)), *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self.timeout,
                env={**os.environ, "LC_ALL": "C"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ProgramFailedError(
                f"{named} did not end within {self.timeout:g} s",
                hint="is another task at this guest?",
            ) from None
        except OSError as error:
            raise ProgramFailedError(f"{program} cannot be started: {error.strerror}") from None
        if done.returncode != 0:
            said = last_line(done.stderr.decode(errors="replace"))
            raise ProgramFailedError(f"{named}: {said or f'exit status {done.returncode}'}")


def last_line(stderr: str) -> str:
    """The last thing a failing program said: PVE puts its usage behind the reason."""
    lines = (line.strip() for line in stderr.splitlines())
    said = [line for line in lines if line and not line.startswith(("qm ", "USAGE:", "usage:"))]
    return said[-1] if said else ""
