"""The host as the service knows it: topology, the best matrix there is, and measuring it.

The matrix is the cached one while its fingerprint fits, else what is known of the CPUs that were
online before, else the prediction; a measurement in the background replaces any, unless it is
worse.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from proxmox_cpu_affinity.engine.facts import Host, Rules, Widening, compile_host
from proxmox_cpu_affinity.formats.settings import Settings
from proxmox_cpu_affinity.formats.sysfs import topology as parse_topology
from proxmox_cpu_affinity.latency import cache, probe
from proxmox_cpu_affinity.latency.facts import host_facts
from proxmox_cpu_affinity.latency.predict import carried, predicted
from proxmox_cpu_affinity.latency.program import find_program
from proxmox_cpu_affinity.latency.protocol import fixed_or_adaptive
from proxmox_cpu_affinity.linux.threads import own_cpus
from proxmox_cpu_affinity.linux.tree import Tree, capture_sysfs
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import AffinityError
from proxmox_cpu_affinity.model.latency import LatencyMatrix, Verdict
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.service.log import log
from proxmox_cpu_affinity.service.measuring import Attempt
from proxmox_cpu_affinity.store import JsonFile

ONLINE = "sys/devices/system/cpu/online"


@dataclass(slots=True)
class Measuring:
    """How far a measurement is."""

    running: bool = False
    done: int = 0
    total: int = 0


@dataclass(slots=True)
class HostWatch:
    """Reads the host, keeps the matrix, measures."""

    tree: Tree
    cache_file: JsonFile
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    measuring: Measuring = field(default_factory=Measuring)
    from_cache: bool = False
    _online: str | None = None
    _topology: Topology | None = None
    _matrix: LatencyMatrix | None = None
    _fingerprint: str = ""
    _machine: dict[str, str] = field(default_factory=dict)  # facts that no hotplug changes

    @property
    def topology(self) -> Topology:
        assert self._topology is not None, "read() comes first"
        return self._topology

    @property
    def matrix(self) -> LatencyMatrix:
        assert self._matrix is not None, "read() comes first"
        return self._matrix

    def changed(self) -> bool:
        """Whether other CPUs are online than at the last reading: one small file to read."""
        return self.tree.text(ONLINE) != self._online

    def read(self) -> None:
        """Read the topology, and take the best matrix of this host; predict where there is none."""
        self._online = self.tree.text(ONLINE)
        before = self._machine
        self._topology = parse_topology(capture_sysfs(self.tree))
        facts = host_facts(self._topology, self.tree)
        self._fingerprint = cache.fingerprint(facts)
        self._machine = {name: facts[name] for name in facts.keys() - cache.HOTPLUGGED}
        loaded = self.cache_file.load()
        self.from_cache = False
        if loaded.content is not None:
            found = cache.usable(loaded.content, self._fingerprint)
            if isinstance(found, LatencyMatrix):
                self._matrix, self.from_cache = found, True
                return
            log.info("the cached latency matrix is not used: %s", found.reason)
        elif loaded.problem:
            log.warning("the cached latency matrix %s", loaded.problem)
        if self._matrix is not None and before == self._machine and self._trusted:
            self._matrix = carried(self._matrix, self._topology)
        else:
            self._matrix = predicted(self._topology)

    @property
    def _trusted(self) -> bool:
        return self.matrix.verdict is Verdict.TRUSTED

    def compiled(self, settings: Settings) -> Host:
        """The host for the engine, which never sees an unstable measurement."""
        unstable = self.matrix.verdict is Verdict.UNSTABLE
        matrix = predicted(self.topology) if unstable else self.matrix
        widening = Widening(
            settings.widen, settings.widen_above, settings.widen_below, float(settings.widen_stay)
        )
        rules = Rules(
            settings.strategy,
            settings.weights,
            settings.reserved,
            settings.dedicated_fallback,
            settings.width,
            settings.rebalance,
            widening=widening,
        )
        return compile_host(self.topology, matrix, rules, own_cpus())

    async def measure(
        self,
        settings: Settings,
        on_progress: Callable[[probe.Progress], None] | None = None,
        *,
        held: Callable[[], CpuSet] = lambda: EMPTY,
    ) -> Attempt:
        """Measure all pairs, or those of CPUs that nothing is known of. Failures are logged.

        `held`: the CPUs that guests use now, asked again and again.
        """
        topology, fingerprint = self.topology, self._fingerprint
        known = self.matrix if self._trusted and not self.from_cache else None
        if known is not None and not probe.unmeasured(known):
            return Attempt(changed=False, settled=True)
        self.measuring = Measuring(running=True)

        def progress(now: probe.Progress) -> None:
            self.measuring.done, self.measuring.total = now.done, now.total
            if on_progress is not None:
                on_progress(now)

        try:
            fresh = await probe.measure_host(
                topology,
                program=find_program(self.environment),
                parameters=fixed_or_adaptive(settings.rounds, settings.iterations),
                manners=probe.Manners(settings.measure_share, held),
                tree=self.tree,
                known=known,
                on_progress=progress,
            )
        except AffinityError as error:
            log.warning("the latency is not measured: %s", error.text)
            return Attempt(changed=False, settled=True)
        finally:
            self.measuring.running = False
        if fingerprint != self._fingerprint:
            return Attempt(changed=False, settled=False)  # this was another host
        return await self._taken(fresh)

    async def _taken(self, fresh: LatencyMatrix) -> Attempt:
        settled = fresh.verdict is not Verdict.UNSTABLE
        if cache.better(self.matrix, fresh) is self.matrix:
            log.info("the new measurement is %s: the earlier one stays", fresh.verdict)
            return Attempt(changed=False, settled=settled)
        self._matrix = fresh
        await asyncio.to_thread(self._keep, fresh)
        return Attempt(changed=True, settled=settled)

    def _keep(self, matrix: LatencyMatrix) -> None:
        try:
            self.cache_file.save(cache.encoded(matrix, self._fingerprint))
        except AffinityError as error:
            log.warning("%s: the latency will be measured again at the next start", error.text)
