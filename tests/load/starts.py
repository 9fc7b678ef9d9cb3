"""Two hundred guests that start at the same moment, on a node with the real service.

Each is started by the node's own `qm`, with our hookscript; a shell around the hook notes when it
was called and when it returned, and the copy of notify.py how long it waited. On a machine of few
CPUs that many processes mostly wait for each other: what the hook waited for the service is
notify's own time, and what a call took in all is shown beside it. The hook may give up, a start
may not.
"""

import os
import re
import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from proxmox_cpu_affinity.model.guest import HOOK_FILE
from proxmox_cpu_affinity.pve.hookfile import LIBEXEC
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running, cpus_of, masks
from tests.load import flat
from tests.load.outcome import Outcome

WAIT_MOST = 2.0  # seconds: DESIGN's one budget of a hook
PATIENCE = 120.0  # seconds until the last one is confined
FIRST = 100

_AROUND = """#!/bin/bash
began=$EPOCHREALTIME
{hook} "$@"
status=$?
echo "$began $EPOCHREALTIME" >>{times}
exit $status
"""
# In notify.py: when its first line was run, and when its last is about to be.
_BEGAN = ("import posix\n", "import posix\nimport time\nBEGAN = time.monotonic()\n")
_ENDS = (
    "    posix._exit(0)",
    (
        "    log = posix.open({waits!r}, posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT)\n"
        '    posix.write(log, b"%f\\n" % (time.monotonic() - BEGAN))\n'
        "    posix._exit(0)"
    ),
)


@dataclass(frozen=True, slots=True)
class Noted:
    """Where the hooks' times are kept: one line a call."""

    times: Path
    waits: Path

    def walls(self) -> list[float]:
        """Seconds from the hook's call to its return, sorted."""
        pairs = (line.split() for line in self.times.read_text().splitlines())
        return sorted(float(ended) - float(began) for began, ended in pairs)

    def waited(self) -> list[float]:
        """Seconds that notify.py took, of those calls that it lived to the end of, sorted."""
        return sorted(map(float, self.waits.read_text().splitlines()))


def noting(node: Node) -> Noted:
    """Have the installed hook and notify.py of a node note their times."""
    noted = Noted(node.path("/var/log/hook.times"), node.path("/var/log/hook.waits"))
    hook = node.path(f"/var/lib/vz/snippets/{HOOK_FILE}")
    inner = hook.rename(hook.with_name("the-hook-itself"))
    hook.write_text(
        _AROUND.format(hook=shlex.quote(str(inner)), times=shlex.quote(str(noted.times)))
    )
    hook.chmod(0o755)
    notify = node.path(f"{LIBEXEC}/notify.py")
    text = notify.read_text()
    for old, new in (_BEGAN, _ENDS):
        assert text.count(old) == 1, f"{old!r} is not once in notify.py"
        text = text.replace(old, new.format(waits=str(noted.waits)))
    notify.write_text(text)
    return noted


def at_once(node: Node, vmids: Sequence[int]) -> list[subprocess.CompletedProcess[str]]:
    """`qm start` of each: all wait at a pipe until it is closed."""
    ready, gate = os.pipe()
    qm = str(node.path("/usr/sbin/qm"))
    wait = ["/bin/sh", "-c", 'read x; exec "$@" </dev/null', "sh"]
    started = [
        subprocess.Popen(
            [*wait, qm, "start", str(vmid)],
            stdin=ready,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for vmid in vmids
    ]
    os.close(ready)
    os.close(gate)
    said = [process.communicate()[0] for process in started]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, text)
        for process, text in zip(started, said, strict=True)
    ]


def confined(service: Running, vmids: Sequence[int]) -> float:
    """Seconds until the service says of all that they are confined, as read back."""
    began = time.monotonic()
    while True:
        found = service.get("/api/v1/guests").list
        full = {guest["vmid"] for guest in found if guest["outcome"] == "full"}
        if full >= set(vmids) or time.monotonic() > began + PATIENCE:
            return time.monotonic() - began
        time.sleep(0.2)


def astray(service: Running, vmids: Sequence[int]) -> list[str]:
    """Guests that the kernel does not hold where the service says."""
    found = []
    for guest in service.get("/api/v1/guests").list:
        vmid = int(str(guest["vmid"]))
        shown = {frozenset(mask) for mask in masks(service.node, vmid).values()}
        said = frozenset(cpus_of(str(guest["applied"])))
        if vmid in vmids and (shown != {said} or guest["outcome"] != "full"):
            found.append(f"guest {vmid}: {guest['outcome']} on {sorted(said)}, masks {shown}")
    return found


def run(node: Node, volume: str, *, count: int) -> Outcome:
    """Start so many guests at once, and let them all crash at once."""
    vmids = range(FIRST, FIRST + count)
    for vmid in vmids:
        text = f"cores: 1\nmemory: 64\nhookscript: {volume}\n"
        node.path(f"/etc/pve/qemu-server/{vmid}.conf").write_text(text)
    noted = noting(node)
    with Running(node, settings="PCA_LOG_LEVEL=warn\n") as service:
        before = flat.descriptors(service.process.pid)
        done = at_once(node, vmids)
        late = confined(service, vmids)
        wrong = [f"{' '.join(d.args[5:])} failed: {d.stdout}" for d in done if d.returncode]
        wrong += astray(service, vmids)
        resident = flat.resident(service.process.pid)
        node.close()
        service.wait_for(lambda: service.get("/api/v1/status").json["guests_running"] == 0)
        after = flat.descriptors(service.process.pid)
    if after != before:
        wrong.append(f"{after} descriptors after all guests ended, {before} before")
    return _outcome(noted, done, tuple(wrong), f"{late:.1f} s", f"{resident / 1e6:.1f} MB")


def _outcome(
    noted: Noted,
    done: Sequence[subprocess.CompletedProcess[str]],
    wrong: tuple[str, ...],
    late: str,
    resident: str,
) -> Outcome:
    walls, waits = noted.walls(), noted.waited()
    said = Counter(re.sub(r"\d+", "N", line) for one in done for line in one.stdout.splitlines())
    up = sum(count for line, count in said.items() if "without it" in line)
    beyond = [wait for wait in waits if wait > WAIT_MOST]
    if beyond:
        wrong = (*wrong, f"{len(beyond)} hooks waited for the service {max(beyond):.1f} s and less")
    if len(walls) != 2 * len(done):
        wrong = (*wrong, f"{len(walls)} calls of the hook for {len(done)} starts")
    line = (
        f"{len(done)} guests at once: {sum(d.returncode == 0 for d in done)} started, all confined "
        f"{late} after the last start, service {resident}; hooks waited for the service "
        f"{spread(waits)}, in all {spread(walls)}; {up} of {len(walls)} gave up"
    )
    return Outcome("starts", line, wrong)


def spread(values: Sequence[float]) -> str:
    """Median, 90 and 99 per cent and the most, of seconds."""
    cuts = quantiles(values, n=100, method="inclusive")
    return f"{cuts[49]:.2f} s ({cuts[89]:.2f}, {cuts[98]:.2f}, most {max(values):.2f})"
