"""The guest as a Proxmox VE node: /etc/pve as plain folders, stand-in guests, the service's unit.

What is true of a guest is read from the kernel (kernel.py), never asked of the program under test.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

FULL = bool(os.environ.get("E2E_FULL"))
PATIENCE = 90.0  # seconds; nothing is asserted about times, but nothing waits for ever
UNIT = "proxmox-cpu-affinity"
HOOK = f"local:snippets/{UNIT}-hook"
STATE = Path(f"/var/lib/{UNIT}/state.json")
PVE = Path("/etc/pve")
GUESTS = Path("/run/qemu-server")


def run(*words: str, check: bool = True) -> str:
    """A program's two outputs together."""
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert not check or done.returncode == 0, f"{words} ended with {done.returncode}: {done.stdout}"
    return done.stdout


def host(action: str, cpu: int) -> None:
    """Have the host do something to this machine: a line of the runner's that it acts on. Whether
    and when it has done it shows in sysfs only."""
    sys.stdout.write(json.dumps({"host": action, "cpu": cpu}) + "\n")
    sys.stdout.flush()


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it never came true that {what}"
        time.sleep(0.2)


# -- the node ---------------------------------------------------------------------------------


def prepare() -> None:
    """The folders that Proxmox VE has."""
    home = PVE / "nodes" / os.uname().nodename
    for folder in ("qemu-server", "lxc"):
        (home / folder).mkdir(parents=True)
        (PVE / folder).symlink_to(f"nodes/{home.name}/{folder}")
    (PVE / "local").symlink_to(f"nodes/{home.name}")
    (PVE / "storage.cfg").write_text(
        "dir: local\n\tpath /var/lib/vz\n\tcontent backup,iso,vztmpl,snippets\n"
    )
    GUESTS.mkdir(mode=0o750)
    Path("/run/lock/qemu-server").mkdir()


def configure(vmid: int, *, vcpus: int = 1, keys: Mapping[str, str] | None = None) -> None:
    """Write a guest's file; it has the hookscript unless `keys` says otherwise."""
    values = {"cores": str(vcpus), "memory": "64", "hookscript": HOOK, **(keys or {})}
    lines = [f"{key}: {value}\n" for key, value in sorted(values.items()) if value]
    (PVE / f"qemu-server/{vmid}.conf").write_text("".join(lines))


def start(vmid: int) -> str:
    """Start a guest; what its task log would say."""
    return run("guest", "start", str(vmid))


def stop(vmid: int) -> str:
    """Stop a guest; what its task log would say."""
    return run("guest", "stop", str(vmid))


def no_guests() -> None:
    """Stop all guests and forget them."""
    for config in PVE.glob("qemu-server/*.conf"):
        stop(int(config.stem))
        config.unlink()


def fresh(vmid: int, *, vcpus: int = 1, keys: Mapping[str, str] | None = None) -> str:
    """Configure and start a guest."""
    configure(vmid, vcpus=vcpus, keys=keys)
    return start(vmid)


# -- the service ------------------------------------------------------------------------------


class Connection(http.client.HTTPConnection):
    """HTTP over the service's socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(f"/run/{UNIT}/api.sock")


def ask(path: str, method: str = "GET") -> object:
    """The service's answer."""
    connection = Connection("localhost")
    try:
        body = "{}" if method == "POST" else None
        connection.request(method, f"/api/v1/{path}", body)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, f"{path}: {answer.status} {content!r}"
        return json.loads(content)
    finally:
        connection.close()


def guest(vmid: int) -> dict[str, object]:
    """What the service says of a guest."""
    answer = ask(f"guests/{vmid}")
    assert isinstance(answer, dict)
    return answer


def confirmed(*vmids: int) -> None:
    """Wait until the service has read these guests back as confined."""
    wait_for(f"{vmids} are confined", lambda: all(guest(v)["outcome"] == "full" for v in vmids))


def unit(name: str) -> str:
    """A property of the service's unit."""
    return run("systemctl", "show", "--value", "-p", name, UNIT).strip()


def service_up() -> None:
    """The service runs; it may have been stopped or failed by an earlier check."""
    if unit("ActiveState") != "active":
        run("systemctl", "reset-failed", UNIT, check=False)
        run("systemctl", "start", UNIT)


def service_down() -> None:
    run("systemctl", "stop", UNIT)


def log() -> str:
    """The end of the service's log."""
    return run("journalctl", "-u", UNIT, "-n", "25", "-o", "cat", "--no-pager", check=False)
