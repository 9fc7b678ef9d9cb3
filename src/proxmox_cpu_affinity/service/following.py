"""The host in the life of the service: CPUs that come and go, and latencies that get known.

Out of scope: how it is read and measured (host, latency), and what follows from it (reconcile).
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

from proxmox_cpu_affinity.engine.facts import Host
from proxmox_cpu_affinity.formats.settings import Settings
from proxmox_cpu_affinity.linux.uevents import CpuEvents
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import AffinityError
from proxmox_cpu_affinity.model.latency import Verdict
from proxmox_cpu_affinity.reconcile import State
from proxmox_cpu_affinity.reconcile.events import Event, HostChanged
from proxmox_cpu_affinity.service.herald import Herald
from proxmox_cpu_affinity.service.log import failed, log
from proxmox_cpu_affinity.service.measuring import Attempt, UntilSettled, used_by
from proxmox_cpu_affinity.service.world import World

CPU_BATCH = 1.0  # seconds for which CPU events are gathered


@dataclass(slots=True)
class HostFollower:
    """Feeds HostChanged whenever the host is another one, or better known."""

    world: World
    herald: Herald
    settings: Callable[[], Settings]
    state: Callable[[], State]
    feed: Callable[[Event], Coroutine[None, None, None]]
    spawn: Callable[[Coroutine[None, None, object]], None]
    _switched: asyncio.Event = field(default_factory=asyncio.Event)
    _events: CpuEvents = field(init=False)
    _measuring: UntilSettled = field(init=False)

    def __post_init__(self) -> None:
        self._events = CpuEvents(self._switched.set)
        self._measuring = UntilSettled(self._measure_once, self._measured)

    def compiled(self) -> Host:
        """The host for the engine, under the settings in force."""
        return self.world.host.compiled(self.settings())

    def begin(self) -> None:
        """Follow the host from now on, and measure it where it is not known well."""
        self.listen()
        self.spawn(self._await_cpus())
        host = self.world.host
        if not host.from_cache or host.matrix.verdict is not Verdict.TRUSTED:
            self.spawn(self.measure())

    def listen(self) -> None:
        """Hear of CPUs at once, if the settings want it now, else no more."""
        if not self.settings().hotplug_watchdog:
            self._events.close()
            return
        problem = self._events.open()
        if problem:
            log.warning("CPU hotplug is seen by the scans only: %s", problem)

    def end(self) -> None:
        self._events.close()

    async def look(self) -> None:
        """See whether CPUs came or went, if the settings want it."""
        if self.settings().hotplug_watchdog and self.world.host.changed():
            await self._changed()

    async def _await_cpus(self) -> None:
        """The first of a batch at once, for a guest may have lost its CPU; the rest together."""
        while True:
            await self._switched.wait()
            self._switched.clear()
            try:
                await self.look()
            except Exception as error:
                failed("CPUs came or went and could not be followed; the next scan tries", error)
            await asyncio.sleep(CPU_BATCH)

    async def _changed(self) -> None:
        """Other CPUs are online: read the host again, move who lost one, measure."""
        host = self.world.host
        before = host.topology.online
        await asyncio.to_thread(host.read)
        online = host.topology.online
        text = f"CPUs changed: {online} are online now"
        log.warning("%s", text)
        self.herald.cpus(before, online, text)
        await self.feed(HostChanged(time.monotonic(), self.compiled(), switched=True))
        if not host.from_cache:
            self.spawn(self.measure())

    async def measure(self) -> None:
        """Measure the latency in the background until it can be trusted; guests stay placed."""
        await self._measuring.run()

    async def _measure_once(self) -> Attempt:
        host = self.world.host
        others = await asyncio.to_thread(self._used_by_others)

        def held() -> CpuSet:
            return reduce(or_, (t.placement.applied for t in self.state().tracked.values()), others)

        self.herald.measuring(host.matrix)
        attempt = await host.measure(self.settings(), held=held)
        self.herald.measured(host.matrix, changed=attempt.changed)
        return attempt

    def _used_by_others(self) -> CpuSet:
        """CPUs that guests use which were not placed."""
        try:
            processes = self.world.guests.processes()
            return used_by(self.world.tree, processes, self.state().tracked)
        except AffinityError:
            return EMPTY

    async def _measured(self) -> None:
        matrix = self.world.host.matrix
        log.info(
            "latency measured: %s, %.0f %% of the pairs; %s",
            matrix.verdict,
            100 * matrix.share_measured(),
            "; ".join(matrix.conditions) or "nothing odd",
        )
        if matrix.verdict is Verdict.UNSTABLE:
            return  # the engine never sees it: nothing is different for the guests
        await self.feed(HostChanged(time.monotonic(), self.compiled(), measured=True))
