"""The guest as a Proxmox VE node: /etc/pve as plain folders, stand-in guests, the service's unit.

What is true of a guest is read from the kernel (kernel.py), never asked of the program under test.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.in_guest import kernel

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


def wait_for(what: str, condition: Callable[[], bool], *, patience: float = PATIENCE) -> None:
    """Until a condition holds."""
    deadline = time.monotonic() + patience
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


def power_off(vmid: int) -> None:
    """A guest ends by itself: no hook says so."""
    os.kill(kernel.pid(vmid), signal.SIGTERM)
    wait_for(f"guest {vmid} has ended", lambda: not kernel.folder(vmid).exists())


def no_guests() -> None:
    """End all guests and forget them; the service has noticed."""
    for file in GUESTS.glob("*.pid"):
        power_off(int(file.stem))
    for config in PVE.glob("qemu-server/*.conf"):
        config.unlink()
    if unit("ActiveState") == "active":
        wait_for("the service has noticed", lambda: status()["guests_running"] == 0)


def ready() -> None:
    """The service runs, and no guest does."""
    service_up()
    no_guests()


def hook(vmid: int, phase: str) -> str:
    """The hookscript alone, as if a start went no further."""
    return run(f"/var/lib/vz/snippets/{UNIT}-hook", str(vmid), phase)


def start_all(vmids: Iterable[int]) -> dict[int, str]:
    """Start guests at the same time; what the task log of each would say."""
    started = {
        vmid: subprocess.Popen(
            ["guest", "start", str(vmid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for vmid in vmids
    }
    said = {vmid: process.communicate()[0] for vmid, process in started.items()}
    for vmid, process in started.items():
        assert process.returncode == 0, f"guest {vmid} did not start: {said[vmid]}"
    return said


def drop_ins() -> set[int]:
    """Guests for which a drop-in stands."""
    files = Path("/run/systemd/system").glob(f"*.scope.d/50-{UNIT}.conf")
    return {int(file.parent.name.removesuffix(".scope.d")) for file in files}


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


def ask(path: str, body: Mapping[str, object] | None = None) -> object:
    """The service's answer; with a body it is asked to do something."""
    connection = Connection("localhost")
    try:
        method, content = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
        connection.request(method, f"/api/v1/{path}", content)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status == 200, f"{path}: {answer.status} {said!r}"
        return json.loads(said)
    finally:
        connection.close()


def status() -> dict[str, object]:
    """What the service says of itself."""
    answer = ask("status")
    assert isinstance(answer, dict)
    return answer


def scan() -> None:
    """Have the service read its settings and all guests again."""
    read = logged("settings read again")
    run("systemctl", "reload", UNIT)
    wait_for("all is read again", lambda: logged("settings read again") > read)


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


@contextmanager
def settings(**values: str) -> Iterator[None]:
    """The service runs with settings of its own, told by SIGHUP; the former ones come back."""
    file = Path(f"/etc/default/{UNIT}")
    before = file.read_text()

    file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    try:
        scan()
        yield
    finally:
        file.write_text(before)
        scan()


def log() -> str:
    """The end of the service's log."""
    return run("journalctl", "-u", UNIT, "-n", "40", "-o", "cat", "--no-pager", check=False)


def logged(text: str) -> int:
    """How often the service has said something in this boot."""
    return run("journalctl", "-u", UNIT, "-o", "cat", "--no-pager", check=False).count(text)
