"""The host as the service knows it: topology, the best matrix there is, and measuring it.

The matrix is the cached one while its fingerprint fits, else what is known of the CPUs that were
online before, else the prediction; a measurement in the background replaces any, unless it is
worse.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from proxmox_cpu_affinity.engine.facts import Host, Rules, compile_host
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
from proxmox_cpu_affinity.model.errors import AffinityError, ExhaustedError, SyntaxFault
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


@dataclass(frozen=True, slots=True)
class _Known:
    """What one reading of the host gave: always replaced as a whole."""

    online: str | None  # as the kernel writes it
    topology: Topology
    fingerprint: str
    machine: Mapping[str, str]  # facts that no hotplug changes
    matrix: LatencyMatrix
    from_cache: bool

    @property
    def trusted(self) -> bool:
        return self.matrix.verdict is Verdict.TRUSTED


@dataclass(slots=True)
class HostWatch:
    """Reads the host, keeps the matrix, measures.

    `read` may run in a thread while others ask: they get what was known before, topology and
    matrix of the same host, until all is read.
    """

    tree: Tree
    cache_file: JsonFile
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    measuring: Measuring = field(default_factory=Measuring)
    _latest: _Known | None = None
    _writing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def _known(self) -> _Known:
        assert self._latest is not None, "read() comes first"
        return self._latest

    @property
    def topology(self) -> Topology:
        return self._known.topology

    @property
    def matrix(self) -> LatencyMatrix:
        return self._known.matrix

    @property
    def from_cache(self) -> bool:
        return self._known.from_cache

    def changed(self) -> bool:
        """Whether other CPUs are online than at the last reading: one small file to read. One that
        cannot be read tells of no change."""
        online = self.tree.text(ONLINE)
        return online is not None and online != self._known.online

    def read(self) -> None:
        """Read the topology, and take the best matrix of this host; predict where there is none.

        SyntaxFault, ExhaustedError where the host does not tell its CPUs: what was known stays.
        """
        online = self.tree.text(ONLINE)
        topology = parse_topology(capture_sysfs(self.tree))
        if not topology.online:
            raise SyntaxFault("no CPU is online", where=self.tree.shown(ONLINE))
        facts = host_facts(topology, self.tree)
        fingerprint = cache.fingerprint(facts)
        machine = {name: facts[name] for name in facts.keys() - cache.HOTPLUGGED}
        cached = self._cached(fingerprint)
        matrix = cached or self._carried(topology, machine) or predicted(topology)
        found = _Known(online, topology, fingerprint, machine, matrix, from_cache=bool(cached))
        with self._writing:
            self._latest = found

    def _cached(self, fingerprint: str) -> LatencyMatrix | None:
        loaded = self.cache_file.load()
        if loaded.problem:
            log.warning("the cached latency matrix %s", loaded.problem)
        if loaded.content is None:
            return None
        found = cache.usable(loaded.content, fingerprint)
        if isinstance(found, LatencyMatrix):
            return found
        log.info("the cached latency matrix is not used: %s", found.reason)
        return None

    def _carried(self, topology: Topology, machine: Mapping[str, str]) -> LatencyMatrix | None:
        """What was measured on this machine when other CPUs were online."""
        before = self._latest
        if before is None or not before.trusted or before.machine != machine:
            return None
        return carried(before.matrix, topology)

    def compiled(self, settings: Settings) -> Host:
        """The host for the engine, which never sees an unstable measurement."""
        known = self._known
        unstable = known.matrix.verdict is Verdict.UNSTABLE
        matrix = predicted(known.topology) if unstable else known.matrix
        rules = Rules(
            settings.strategy,
            settings.weights,
            settings.reserved,
            settings.dedicated_fallback,
            settings.width,
            settings.rebalance,
            widening=settings.widening,
        )
        return compile_host(known.topology, matrix, rules, own_cpus())

    async def measure(
        self,
        settings: Settings,
        *,
        held: Callable[[], CpuSet] = lambda: EMPTY,
    ) -> Attempt:
        """Measure all pairs, or those of CPUs that nothing is known of. Failures are logged.

        `held`: the CPUs that guests use now, asked again and again.
        """
        began = self._known
        known = began.matrix if began.trusted and not began.from_cache else None
        if known is not None and not probe.unmeasured(known):
            return Attempt(changed=False, settled=True)
        self.measuring = Measuring(running=True)

        def progress(now: probe.Progress) -> None:
            self.measuring.done, self.measuring.total = now.done, now.total

        try:
            fresh = await probe.measure_host(
                began.topology,
                program=find_program(self.environment),
                parameters=fixed_or_adaptive(settings.rounds, settings.iterations),
                manners=probe.Manners(settings.measure_share, held),
                tree=self.tree,
                known=known,
                on_progress=progress,
            )
        except ExhaustedError as error:  # it may pass
            log.warning("the latency is not measured yet: %s (%s)", error.text, error.hint)
            return Attempt(changed=False, settled=False)
        except AffinityError as error:
            log.warning("the latency is not measured: %s", error.text)
            return Attempt(changed=False, settled=True)
        finally:
            self.measuring.running = False
        return await self._taken(fresh, began.fingerprint)

    async def _taken(self, fresh: LatencyMatrix, fingerprint: str) -> Attempt:
        settled = fresh.verdict is not Verdict.UNSTABLE
        with self._writing:
            known = self._known
            if fingerprint != known.fingerprint:
                return Attempt(changed=False, settled=False)  # this was another host
            better = cache.better(known.matrix, fresh) is fresh
            if better:
                self._latest = replace(known, matrix=fresh)
        if not better:
            log.info("the new measurement is %s: the earlier one stays", fresh.verdict)
            return Attempt(changed=False, settled=settled)
        await asyncio.to_thread(self._keep, fresh, fingerprint)
        return Attempt(changed=True, settled=settled)

    def _keep(self, matrix: LatencyMatrix, fingerprint: str) -> None:
        try:
            self.cache_file.save(cache.encoded(matrix, fingerprint))
        except AffinityError as error:
            log.warning("%s: the latency will be measured again at the next start", error.text)
