"""Puts our hookscript into a simulated node, with the node's own paths in it.

Both files are copies with a few lines changed: whoever starts the node's guests, with whatever
environment, reaches the service below the node's root, or is told how to start that one.
"""

import shlex
import sys
from pathlib import Path

from proxmox_cpu_affinity.model.errors import ProgramFailedError
from proxmox_cpu_affinity.model.guest import HOOK_FILE
from proxmox_cpu_affinity.pve.hookfile import LIBEXEC, shipped
from proxmox_cpu_affinity.sim.node import Node

SOCKET = "/run/proxmox-cpu-affinity/api.sock"

_DOWN = 'DOWN = f"the service does not run (systemctl start {NAME})"'
_JOURNAL, _LOG = "journalctl -u proxmox-cpu-affinity", "/var/log/proxmox-cpu-affinity.log"


def install(node: Node) -> str:
    """Install hook and notify.py below the node's root; the hook's volume id."""
    source = shipped()
    notify = node.path(f"{LIBEXEC}/notify.py")
    notify.parent.mkdir(parents=True, exist_ok=True)
    text = (source / "notify.py").read_text()
    text = _changed(text, f'"{SOCKET}"', repr(str(node.path(SOCKET))))
    notify.write_text(_changed(text, _DOWN, f"DOWN = {_down(node)!r}"))
    hook = (source / HOOK_FILE).read_text()
    hook = _changed(hook, f"notify=/{LIBEXEC}/notify.py", f"notify={shlex.quote(str(notify))}")
    hook = _changed(hook, "python=/usr/bin/python3", f"python={shlex.quote(sys.executable)}")
    hook = _changed(hook, _JOURNAL, _LOG)
    installed = notify.with_name(HOOK_FILE)
    installed.write_text(hook)
    installed.chmod(0o755)
    return node.add_snippet(HOOK_FILE, hook)


def _down(node: Node) -> str:
    """As notify.py has it; there is no systemctl that knows of this node's service."""
    name = "proxmox-cpu-affinity-service"
    beside = Path(sys.executable).with_name(name)
    program = shlex.quote(str(beside)) if beside.is_file() else name
    root = shlex.quote(str(node.root))
    return f"the service does not run ({program} --root {root} --port 0 &)"


def _changed(text: str, old: str, new: str) -> str:
    """The text with its one occurrence of `old` replaced; a drifted file is a defect of ours."""
    if text.count(old) != 1:
        raise ProgramFailedError(f"{old!r} does not stand once in the hook's files")
    return text.replace(old, new)
