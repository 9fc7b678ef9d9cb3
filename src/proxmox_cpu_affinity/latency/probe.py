"""Measures a host or a list of rounds: coarse first, beside guests only in short bursts.

Asynchronous for the service; a command line uses asyncio.run on the same functions. Out of scope:
the order of pairs (schedule.py), the worth of a run (judge.py), keeping it (cache.py, store).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from proxmox_cpu_affinity.formats.pressure import some_waits
from proxmox_cpu_affinity.formats.settings import Settings
from proxmox_cpu_affinity.latency.judge import Run, disturbed, judged
from proxmox_cpu_affinity.latency.protocol import ADAPTIVE, BURST_US, Failed, Parameters
from proxmox_cpu_affinity.latency.schedule import (
    COARSE,
    Pair,
    Round,
    Stage,
    cores_at_once,
    rounds,
    split,
)
from proxmox_cpu_affinity.latency.talk import Broken, Talk, started
from proxmox_cpu_affinity.linux.threads import own_cpus
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.latency import LatencyMatrix, PairSample
from proxmox_cpu_affinity.model.topology import Topology

SHARE = Settings().measure_share
"""Share of the cores that may be busy measuring, unless PCA_MEASURE_CORES says another one."""

BESIDE_SHARE = 0.1
"""Share of its time that measuring may take from a CPU that guests use."""

_GROUP_PAIRS = 128  # asked for together: few enough to read their answers between other work
_GROUP_TIME = 0.03  # ... and seconds of measuring, to see soon whether guests came
_BURST_TRIES = 10  # at a load of 11 on 2 CPUs a quarter of the bursts come to nothing
_CHECKED = 4  # pairs measured again alone


@dataclass(frozen=True, slots=True)
class Progress:
    """A pair was dealt with: it gave a sample, or a reason why not."""

    done: int
    total: int
    outcome: PairSample | Failed


def _silent(progress: Progress) -> None:
    del progress


def _nobody() -> CpuSet:
    return EMPTY


@dataclass(frozen=True, slots=True)
class Manners:
    """How a run behaves towards the rest of the host."""

    share: float = SHARE  # of the cores, busy at the same time
    held: Callable[[], CpuSet] = _nobody  # CPUs that guests use now; asked again and again


async def measure_host(
    topology: Topology,
    *,
    tree: Tree,
    program: Path,
    parameters: Parameters = ADAPTIVE,
    manners: Manners | None = None,
    usable: CpuSet | None = None,
    known: LatencyMatrix | None = None,
    on_progress: Callable[[Progress], None] = _silent,
) -> LatencyMatrix:
    """The matrix of a host: every pair of its online CPUs that this process may use.

    `tree`: where /proc lies; `usable`: measure these CPUs only (None: this process's own);
    `known`: the matrix of the same online CPUs whose measured pairs need no measuring.
    MeasureError where the program cannot be started; whatever happens later is in the matrix's
    conditions.
    """
    manners = manners or Manners()
    mine = own_cpus() if usable is None else usable
    new = None if known is None else unmeasured(known)
    plan = await asyncio.to_thread(
        rounds,
        topology.online & mine,
        topology,
        cores=cores_at_once(topology, manners.share),
        touching=new,
    )
    before = pressure(tree)
    run = await measure(plan, parameters, on_progress, program=program, held=manners.held)
    return await asyncio.to_thread(
        judged,
        topology,
        run,
        parameters,
        pressure_before=before,
        pressure_after=pressure(tree),
        outside=topology.online - mine,
        known=known,
    )


def unmeasured(matrix: LatencyMatrix) -> CpuSet:
    """The CPUs that no measured pair has."""
    count = len(matrix.cpus)
    rows = (matrix.measured[row * count : (row + 1) * count] for row in range(count))
    return CpuSet.of(cpu for cpu, row in zip(matrix.cpus, rows, strict=True) if not any(row))


async def measure(
    plan: Sequence[Round],
    parameters: Parameters,
    on_progress: Callable[[Progress], None] = _silent,
    *,
    program: Path,
    held: Callable[[], CpuSet] = _nobody,
) -> Run:
    """Measure the rounds in their order, until the time limit; what is done by then is kept.

    Pairs with a CPU that is held come after the others of their picture, coarse or fine.
    MeasureError where the program cannot be started. When cancelled, the program is killed first.
    """
    total = sum(len(each.pairs) for each in plan)
    if not total:
        return Run(0)
    found = _Found(total, on_progress)
    cut = ""
    try:
        async with asyncio.timeout(parameters.time_limit), started(program, parameters) as talk:
            await talk.greet()
            course = _Course(talk, parameters, held, found)
            await course.picture(each for each in plan if each.stage <= COARSE)
            await course.picture(each for each in plan if each.stage > COARSE)
    except TimeoutError:
        cut = f"time limit of {parameters.time_limit:g} s reached"
    except Broken as broken:
        cut = str(broken)
    return Run(
        total,
        tuple(found.samples),
        tuple(found.failed),
        cut,
        lowered=found.most or 0,
        beside=found.beside,
    )


@dataclass(slots=True)
class _Found:
    """What a run gave so far."""

    total: int
    on_progress: Callable[[Progress], None]
    samples: list[PairSample] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    most: int | None = None  # pairs at once, where fewer than planned
    beside: int = 0  # pairs measured in bursts
    pace: float = _GROUP_TIME  # seconds of a round, as the last ones took; the first one is alone

    def keep(self, outcomes: Iterable[PairSample | Failed]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                self.failed.append(outcome)
            else:
                self.samples.append(outcome)
            done = len(self.samples) + len(self.failed)
            self.on_progress(Progress(done, self.total, outcome))


@dataclass(frozen=True, slots=True)
class _Course:
    """A run on its way."""

    talk: Talk
    parameters: Parameters
    held: Callable[[], CpuSet]
    found: _Found

    async def picture(self, plan: Iterable[Round]) -> None:
        """Measure what is free, then what guests hold; one check that pairs leave each other be."""
        queue = deque(plan)
        later: list[Round] = []
        checked = False
        while queue:
            group = self._next_group(queue, later)
            outcomes = await self._ask(group)
            fullest = _fullest(group)
            if not checked and fullest:
                if await self._disturbing(fullest, outcomes):
                    self.found.most = max(1, len(fullest) // 2)
                    queue.extendleft(reversed(group))
                    continue
                checked = True
            self.found.keep(outcomes)
        await self._bursts(later)

    async def _ask(self, group: Sequence[Round]) -> list[PairSample | Failed]:
        began = time.monotonic()
        outcomes = await self.talk.ask([each.pairs for each in group])
        if group:
            self.found.pace = (time.monotonic() - began) / len(group)
        return outcomes

    def _next_group(self, queue: "deque[Round]", later: list[Round]) -> list[Round]:
        """Rounds for a moment; those pairs of them that guests hold are put off."""
        held = self.held()
        rounds_most = max(1, int(_GROUP_TIME / self.found.pace))
        group: list[Round] = []
        while queue and _few(group) and len(group) < rounds_most:
            each = queue.popleft()
            free, busy = _parted(each.pairs, held)
            most = self.found.most or len(each.pairs)
            group += (Round(each.stage, part) for part in split(free, most))
            later += (Round(each.stage, part) for part in split(busy, most))
        return group

    async def _disturbing(
        self, pairs: Sequence[Pair], outcomes: Sequence[PairSample | Failed]
    ) -> bool:
        """Measure a few of the pairs alone, and compare."""
        few = set(pairs[:: -(-len(pairs) // _CHECKED)])
        together = [s for s in outcomes if isinstance(s, PairSample) and s.pair in few]
        again = await self.talk.ask([[sample.pair] for sample in together])
        return disturbed(together, [s for s in again if isinstance(s, PairSample)])

    async def _bursts(self, rounds: Sequence[Round]) -> None:
        """Measure rounds in bursts; where both threads did not run at once, some more times."""
        for left in reversed(range(_BURST_TRIES)):
            again = []
            for each in rounds:
                outcomes = await self._burst(each)
                missed = {o.pair for o in outcomes if left and _is_late(o)}
                self.found.keep(o for o in outcomes if o.pair not in missed)
                self.found.beside += len(each.pairs) - len(missed)
                if missed:
                    pairs = tuple(pair for pair in each.pairs if pair in missed)
                    again.append(Round(each.stage, pairs))
            rounds = again

    async def _burst(self, each: Round) -> list[PairSample | Failed]:
        """Measure a round for a moment, then leave its CPUs alone for nine times as long."""
        began = time.monotonic()
        outcomes = await self.talk.ask([each.pairs], burst=True)
        took = min(time.monotonic() - began, BURST_US / 1e6)
        await asyncio.sleep(took * (1 - BESIDE_SHARE) / BESIDE_SHARE)
        return outcomes


def _is_late(outcome: PairSample | Failed) -> bool:
    return isinstance(outcome, Failed) and outcome.reason == "ETIMEDOUT"


def _few(group: Sequence[Round]) -> bool:
    return sum(len(each.pairs) for each in group) < _GROUP_PAIRS


def _fullest(group: Iterable[Round]) -> tuple[Pair, ...]:
    """The most pairs measured at once; those within cores say little of those between them."""
    several = (r.pairs for r in group if r.stage > Stage.SIBLINGS and len(r.pairs) > 1)
    return max(several, key=len, default=())


def _parted(pairs: Iterable[Pair], held: CpuSet) -> tuple[list[Pair], list[Pair]]:
    """The pairs of which both CPUs are free, and the others."""
    free: list[Pair] = []
    busy: list[Pair] = []
    for pair in pairs:
        (busy if pair[0] in held or pair[1] in held else free).append(pair)
    return free, busy


def pressure(tree: Tree) -> float | None:
    """Share of the last ten seconds in which some task waited for a CPU; None: not said.

    Kernels without PSI, or with it switched off, have no such file or refuse to read it
    (Documentation/accounting/psi.rst).
    """
    try:
        return some_waits(tree.text("proc/pressure/cpu") or "")
    except SyntaxFault:
        return None
