"""Puts our hookscript into a simulated node, with the node's own paths in it.

Both files are copies with one line changed: whoever starts the node's guests, with whatever
environment, reaches the service below the node's root.
"""

import shlex
import sys

from proxmox_cpu_affinity.model.errors import ProgramFailedError
from proxmox_cpu_affinity.model.guest import HOOK_FILE
from proxmox_cpu_affinity.pve.hookfile import LIBEXEC, shipped
from proxmox_cpu_affinity.sim.node import Node

SOCKET = "/run/proxmox-cpu-affinity/api.sock"


def install(node: Node) -> str:
    """Install hook and notify.py below the node's root; the hook's volume id."""
    source = shipped()
    notify = node.path(f"{LIBEXEC}/notify.py")
    notify.parent.mkdir(parents=True, exist_ok=True)
    text = (source / "notify.py").read_text()
    notify.write_text(_changed(text, f'"{SOCKET}"', repr(str(node.path(SOCKET)))))
    hook = (source / HOOK_FILE).read_text()
    hook = _changed(hook, f"notify=/{LIBEXEC}/notify.py", f"notify={shlex.quote(str(notify))}")
    hook = _changed(hook, "python=/usr/bin/python3", f"python={shlex.quote(sys.executable)}")
    installed = notify.with_name(HOOK_FILE)
    installed.write_text(hook)
    installed.chmod(0o755)
    return node.add_snippet(HOOK_FILE, hook)


def _changed(text: str, old: str, new: str) -> str:
    """The text with its one occurrence of `old` replaced; a drifted file is a defect of ours."""
    if text.count(old) != 1:
        raise ProgramFailedError(f"{old!r} does not stand once in the hook's files")
    return text.replace(old, new)
