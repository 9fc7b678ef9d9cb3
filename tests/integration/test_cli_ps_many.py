"""`ps` of a hundred guests reads files and asks the kernel; it starts no program."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from proxmox_cpu_affinity.sim.node import Node

MANY = 100
# Every way of starting a program raises an audit event (docs.python.org, Audit events table).
WATCHED = """
import sys
STARTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.system")
started = []
sys.addaudithook(lambda event, _: started.append(event) if event in STARTS else None)
from proxmox_cpu_affinity.cli.main import main
status = main(sys.argv[1:])
print(started, file=sys.stderr)
sys.exit(status)
"""


@contextlib.contextmanager
def guests(node: Node) -> Iterator[dict[int, int]]:
    """Processes that pass for guests, as small as they can be; pids by VMID."""
    pids = {}
    with contextlib.ExitStack() as stack:
        for vmid in range(100, 100 + MANY):
            pidfile = node.path(f"/run/qemu-server/{vmid}.pid")
            node.path(f"/etc/pve/qemu-server/{vmid}.conf").write_text("cores: 1\n")
            words = ["/usr/bin/kvm", "-c", "read x", "-pidfile", str(pidfile)]
            process = subprocess.Popen(words, executable="/bin/sh", stdin=subprocess.PIPE)
            stack.enter_context(process)
            pids[vmid] = process.pid
            pidfile.write_text(f"{process.pid}\n")
            _executed(process.pid)
        yield pids


def _executed(pid: int) -> None:
    """Wait until the child is the other program: from then on its arguments are its own."""
    while not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/usr/bin/kvm"):
        os.sched_yield()


def test_a_hundred_guests_are_listed_without_starting_a_program(sim_node: Node) -> None:
    with guests(sim_node) as pids:
        for words in (["ps", "--json"], ["ps", "--json", "-v"]):
            done = subprocess.run(
                [sys.executable, "-c", WATCHED, "--root", str(sim_node.root), *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
            )
            found = {guest["vmid"]: guest["pid"] for guest in json.loads(done.stdout)}
            assert found == pids
            assert done.stderr == "[]\n"
