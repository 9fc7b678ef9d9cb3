"""Runs guests' hookscripts as PVE does: found anew at every call, no time limit, and the caller
waits until both the script's stdout and its stderr are closed by everyone who holds them."""

import errno
import os
import selectors
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from proxmox_cpu_affinity.formats.pveconf import GuestFile
from proxmox_cpu_affinity.formats.pvesections import snippet_path
from proxmox_cpu_affinity.model.errors import AffinityError
from proxmox_cpu_affinity.sim import configs, say
from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.tree import Tree

_PATH = "/sbin:/bin:/usr/sbin:/usr/bin"


def check(tree: Tree, volume: str) -> Path:
    """The script that a volume id names. Fault unless it is a regular, executable file."""
    try:
        path = tree.at(snippet_path(configs.storages(tree), volume))
    except AffinityError as error:
        raise Fault(error.text) from error
    if not path.is_file():
        raise Fault(f"script '{volume}' does not exist")
    if not os.access(path, os.X_OK):
        raise Fault(f"script '{volume}' is not executable")
    return path


def run(tree: Tree, vmid: int, file: GuestFile, phase: str) -> None:
    """Run one phase of the guest's hookscript, if it has one. Fault when that fails."""
    volume = file.main.values.get("hookscript")
    if not volume:
        return
    try:
        _execute(tree, [str(check(tree, volume)), str(vmid), phase])
    except Fault as fault:
        raise Fault(f"hookscript error for {vmid} on {phase}: {fault.text}\n") from fault


def run_or_warn(tree: Tree, vmid: int, file: GuestFile, phase: str) -> None:
    """As run; a failure only is a line on stderr."""
    try:
        run(tree, vmid, file, phase)
    except Fault as fault:
        say.warn(fault.text)


def environment(tree: Tree) -> dict[str, str]:
    """The variables that PVE sets for every program it starts; the caller's others pass through.
    The node's own programs come first in PATH, standing where the real ones are installed."""
    own = f"{tree.root}/usr/sbin:{tree.root}/usr/bin"
    fixed = {"LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1", "PATH": f"{own}:{_PATH}"}
    return {**os.environ, **fixed}


def _execute(tree: Tree, argv: Sequence[str]) -> None:
    shown = tree.shown(" ".join(argv))
    try:
        process = _spawn(tree, argv)
    except OSError as error:
        raise Fault(f"command '{shown}' failed: open3: exec failed: {error.strerror}") from error
    with process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.close()
        _copy({process.stdout: sys.stdout, process.stderr: sys.stderr})
        status = process.wait()
    if status:
        reason = f"exit code {status}" if status > 0 else f"got signal {-status}"
        raise Fault(f"command '{shown}' failed: {reason}")


def _spawn(tree: Tree, argv: Sequence[str]) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    env = environment(tree)
    try:
        return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
    except OSError as error:
        # Perl's exec is execvp(3): a script without an interpreter line runs through sh.
        if error.errno != errno.ENOEXEC:
            raise
        return subprocess.Popen(["/bin/sh", *argv], stdin=pipe, stdout=pipe, stderr=pipe, env=env)


def _copy(streams: dict[IO[bytes], IO[str]]) -> None:
    """Pass output on as it comes, until every stream is at its end."""
    with selectors.DefaultSelector() as selector:
        for source, target in streams.items():
            selector.register(source, selectors.EVENT_READ, target)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 65536)
                if data:
                    key.data.flush()
                    os.write(key.data.fileno(), data)
                else:
                    selector.unregister(key.fileobj)
