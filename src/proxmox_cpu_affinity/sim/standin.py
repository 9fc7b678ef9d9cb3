"""A small process that passes for QEMU where QEMU is not installed or not wanted.

Run as `kvm -I -S standin.py ARGUMENTS` with PVE's arguments for QEMU; it honours -name, -pidfile,
-daemonize, -smp, -device of vCPUs, -machine, -no-shutdown, -no-reboot, -S, -incoming and the two
QMP sockets and ignores the rest. It and its parts (standin_machine, standin_monitor) import the
standard library only. Out of scope: a guest. It never computes anything; its vCPU threads sleep.
"""

import contextlib
import fcntl
import os
import signal
import socket
import struct
import sys

# The file is run by its path, isolated from what is installed.
sys.path.insert(0, os.path.abspath(__file__).rsplit("/", 3)[0])

from proxmox_cpu_affinity.sim.standin_machine import Incoming, Machine, fields
from proxmox_cpu_affinity.sim.standin_monitor import Loop


def options(argv: list[str]) -> dict[str, list[str]]:
    """The values of each option; flags have none."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in argv:
        if word.startswith("-"):
            name = word[1:]
            found.setdefault(name, [])
        elif name:
            found[name].append(word)
    return found


def write_pidfile(path: str) -> None:
    """Create, lock and fill the pidfile like QEMU; an open file description lock outlives fork."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    whole_file = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, whole_file)
    except OSError as error:
        sys.exit(f"kvm: cannot create PID file: Cannot lock pid file: {error.strerror}")
    os.ftruncate(file, 0)
    os.write(file, b"%d\n" % os.getpid())


def daemonize() -> int:
    """Go on in a child of init; returns the pipe on which the waiting parent is told it is up."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        # The parent's status is QEMU's: 0 once the machine is set up, 1 if it died before.
        os._exit(0 if os.read(reader, 1) == b"\0" else 1)
    os.close(reader)
    os.setsid()
    if os.fork():
        os._exit(0)
    return writer


def detach(writer: int) -> None:
    """The end of the set-up: leave the caller's directory and streams, then tell the parent."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
    os.write(writer, b"\0")
    os.close(writer)


def monitors(opts: dict[str, list[str]]) -> tuple[str, str]:
    """The paths of the server socket and of qmeventd's, from the -chardev options."""
    server = upstream = ""
    for value in opts.get("chardev", []):
        path = fields(value).get("path", "")
        if "server=on" in value:
            server = path
        else:
            upstream = path
    return server, upstream


def main(argv: list[str]) -> int:
    opts = options(argv)
    pidfile = opts.get("pidfile", [""])[0]
    writer = daemonize() if "daemonize" in opts else None
    if pidfile:
        write_pidfile(pidfile)
    machine = Machine(opts)
    server, upstream = monitors(opts)
    incoming = Incoming(opts["incoming"][0]) if "incoming" in opts else None
    loop = Loop(machine, server=server, events=upstream, incoming=incoming)
    wake, wakeup = socket.socketpair()
    wakeup.settimeout(0)
    signal.set_wakeup_fd(wakeup.fileno())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    loop.wake_by(wake)
    machine.start_threads()
    if writer is not None:
        detach(writer)
    loop.run()
    if pidfile:
        with contextlib.suppress(FileNotFoundError):  # whoever stopped it may have been quicker
            os.unlink(pidfile)
    os._exit(0)  # the threads sleep for ever


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
