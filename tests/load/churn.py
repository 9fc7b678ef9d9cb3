"""Guests come, go and are edited without end, and the service grows neither in memory nor in files.

The service is a real process on a simulated node; it is told over its socket as the hook does, a
connection each. Guests are the smallest processes that pass for one, so that a hundred thousand
events take minutes; their starts and ends are real. One in thirty guests is destroyed and another
made, with a VMID that never was before.
"""

import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import PATIENCE, Running
from tests.load import flat
from tests.load.flat import Sample
from tests.load.outcome import Outcome

GUESTS = 24
SAMPLES = 20
TAGS = ("", "cpu-affinity-off", "cpu-pinned", "cpu-dedicated", "cpu-affinity")


class Watched(Running):
    """A service that says what memory it holds."""

    @property
    def program(self) -> tuple[str, ...]:
        return ("tests.load.watched", str(self.report))

    @property
    def report(self) -> Path:
        return self.node.path("/var/log/memory.json")


class Churn:
    """A node whose guests never rest; `events` is what has happened so far."""

    def __init__(self, service: Running, volume: str, seed: int) -> None:
        self.service, self.node = service, service.node
        self.volume = volume
        self.chance = random.Random(seed)
        self.events = 0
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.vmids: list[int] = []
        self.next = 100
        for _ in range(GUESTS):
            self._create()

    # -- what happens -------------------------------------------------------------------------

    def happen(self) -> None:
        """One thing, to somebody: one to three events."""
        vmid = self.chance.choice(self.vmids)
        if self.chance.random() < 0.15:
            self._edit(vmid)
        elif vmid in self.running:
            self._stop(vmid)
        elif self.chance.random() < 0.07:
            self._replace(vmid)
        else:
            self._start(vmid)

    def rest(self) -> None:
        """Every guest is ended, and the service has seen it."""
        for vmid in list(self.running):
            self._end(vmid)
        self.service.process.send_signal(signal.SIGHUP)  # a scan too
        self.service.wait_for(
            lambda: self.service.get("/api/v1/status").json["guests_running"] == 0
        )

    def _start(self, vmid: int) -> None:
        how = self.chance.random()
        if how < 0.9:
            self._tell(vmid, "pre-start")
        if how < 0.8 or how >= 0.9:
            self._run(vmid)
            if how < 0.7:
                self._tell(vmid, "post-start")

    def _stop(self, vmid: int) -> None:
        how = self.chance.random()
        if how < 0.5:
            self._tell(vmid, "pre-stop")
        self._end(vmid)
        if how < 0.7:
            self._tell(vmid, "post-stop")

    def _edit(self, vmid: int) -> None:
        self._configure(vmid)
        self.events += 1
        if self.chance.random() < 0.3:
            self._post(f"/api/v1/guests/{vmid}/reassign")

    def _replace(self, vmid: int) -> None:
        self.node.path(f"/etc/pve/qemu-server/{vmid}.conf").unlink()
        self.vmids.remove(vmid)
        self._create()
        self.events += 2

    def _create(self) -> None:
        self.vmids.append(self.next)
        self._configure(self.next)
        self.next += 1

    # -- how ----------------------------------------------------------------------------------

    def _configure(self, vmid: int) -> None:
        tags = self.chance.choice(TAGS)
        lines = [f"cores: {self.chance.randint(1, 2)}", f"hookscript: {self.volume}"]
        text = "\n".join([*lines, *([f"tags: {tags}"] if tags else [])])
        self.node.path(f"/etc/pve/qemu-server/{vmid}.conf").write_text(f"{text}\n")

    def _run(self, vmid: int) -> None:
        pidfile = self.node.path(f"/run/qemu-server/{vmid}.pid")
        words = ["/usr/bin/kvm", "-c", "read x", "-pidfile", str(pidfile)]
        process = subprocess.Popen(words, executable="/bin/sh", stdin=subprocess.PIPE)
        pidfile.write_text(f"{process.pid}\n")
        self.running[vmid] = process
        self.events += 1

    def _end(self, vmid: int) -> None:
        process = self.running.pop(vmid)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(PATIENCE)
        self.node.path(f"/run/qemu-server/{vmid}.pid").unlink()
        self.events += 1

    def _tell(self, vmid: int, phase: str) -> None:
        self._post(f"/api/v1/guests/{vmid}/{phase}")

    def _post(self, path: str) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(PATIENCE)
            peer.connect(str(self.service.socket))
            peer.sendall(f"{head}Connection: close\r\n\r\n{{}}".encode())
            said = b"".join(iter(lambda: peer.recv(65536), b""))
        assert said.startswith(b"HTTP/1.1 200 "), said[:500]
        self.events += 1


def run(
    node: Node, volume: str, *, events: int, seed: int = 0, say: Callable[[str], None] = print
) -> Outcome:
    """Play so many events; memory and descriptors of the service at rest, twenty times."""
    samples: list[Sample] = []
    began = time.monotonic()
    service = Watched(node, settings="PCA_LOG_LEVEL=warn\n")
    with service:
        churn = Churn(service, volume, seed)
        for part in range(1, SAMPLES + 1):
            while churn.events < events * part // SAMPLES:
                churn.happen()
            churn.rest()
            samples.append(flat.asked(service.process.pid, service.report, churn.events))
            say(f"  {told(samples[-1])}")
        assert service.end() == 0
    rate = churn.events / (time.monotonic() - began)
    kept = flat.warm(samples)
    grown = {
        name: flat.growth([(s.events, getattr(s, name)) for s in kept]) / flat.KIB
        for name in ("rss", "traced")
    }
    line = (
        f"{churn.events} events ({rate:.0f} a second, {churn.next - 100} guests in turn): memory "
        f"{grown['rss']:+.0f} KiB resident, {grown['traced']:+.1f} KiB traced over the last "
        f"{kept[-1].events - kept[0].events}, {kept[-1].descriptors} descriptors"
    )
    return Outcome("churn", line, tuple(flat.wrong(samples)))


def told(sample: Sample) -> str:
    return (
        f"{sample.events:7} events: {sample.rss / flat.KIB:7.0f} KiB resident, "
        f"{sample.traced / flat.KIB:9.1f} KiB traced, {sample.blocks} blocks, "
        f"{sample.descriptors} descriptors"
    )
