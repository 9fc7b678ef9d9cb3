"""Runs the measuring program: pairs in, samples out, within a time limit, and leaves no process.

Asynchronous for the service; a command line uses asyncio.run on the same functions. Out of scope:
the order of pairs (schedule.py), the worth of a run (judge.py), keeping it (cache.py, store).
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from proxmox_cpu_affinity.latency.judge import Run, judged
from proxmox_cpu_affinity.latency.protocol import (
    ADAPTIVE,
    VERSION,
    Failed,
    Greeting,
    Parameters,
    Ran,
    Reply,
    outcome,
    parse,
)
from proxmox_cpu_affinity.latency.schedule import Pair, ordered_pairs
from proxmox_cpu_affinity.linux.threads import own_cpus
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import MeasureError, SyntaxFault
from proxmox_cpu_affinity.model.latency import LatencyMatrix, PairSample
from proxmox_cpu_affinity.model.topology import Topology


@dataclass(frozen=True, slots=True)
class Progress:
    """A pair was dealt with: it gave a sample, or a reason why not."""

    done: int
    total: int
    outcome: PairSample | Failed


def _silent(progress: Progress) -> None:
    del progress


async def measure_host(
    topology: Topology,
    *,
    tree: Tree,
    program: Path,
    parameters: Parameters = ADAPTIVE,
    usable: CpuSet | None = None,
    on_progress: Callable[[Progress], None] = _silent,
) -> LatencyMatrix:
    """The matrix of a host: every pair of its online CPUs that this process may use.

    `tree`: where /proc lies; `usable`: measure these CPUs only (None: this process's own).
    MeasureError where the program cannot be started; whatever happens later is in the matrix's
    conditions.
    """
    mine = own_cpus() if usable is None else usable
    pairs = ordered_pairs(topology.online & mine, topology)
    before = pressure(tree)
    run = await measure(pairs, parameters, on_progress, program=program)
    return judged(
        topology,
        run,
        parameters,
        pressure_before=before,
        pressure_after=pressure(tree),
        outside=topology.online - mine,
    )


async def measure(
    pairs: Sequence[Pair],
    parameters: Parameters,
    on_progress: Callable[[Progress], None] = _silent,
    *,
    program: Path,
) -> Run:
    """Measure the pairs one after the other, until the time limit; what is done by then is kept.

    MeasureError where the program cannot be started. When cancelled, the program is killed first.
    """
    samples: list[PairSample] = []
    failed: list[Failed] = []
    cut = ""
    if not pairs:
        return Run(0)
    try:
        async with asyncio.timeout(parameters.time_limit), _started(program) as talk:
            await talk.greet(parameters)
            for done, pair in enumerate(pairs, 1):
                got = await talk.ask(pair, parameters)
                if isinstance(got, Failed):
                    failed.append(got)
                else:
                    samples.append(got)
                on_progress(Progress(done, len(pairs), got))
    except TimeoutError:
        cut = f"time limit of {parameters.time_limit:g} s reached"
    except _Broken as broken:
        cut = str(broken)
    return Run(len(pairs), tuple(samples), tuple(failed), cut)


def pressure(tree: Tree) -> float | None:
    """Share of the last ten seconds in which some task waited for a CPU; None: not said.

    Kernels without PSI, or with it switched off, have no such file or refuse to read it
    (Documentation/accounting/psi.rst).
    """
    text = tree.text("proc/pressure/cpu") or ""
    match = re.search(r"^some avg10=([0-9]{1,3}\.[0-9]+)", text, re.MULTILINE)
    return float(match[1]) / 100 if match else None


class _Broken(Exception):
    """The program ended, or says what it should not: the run ends here."""


class _Talk:
    """The lines to and from a running program.

    One pair is asked for at a time, and the next one when it was answered: meanwhile this process
    sleeps, so that reading the answers disturbs no pair.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to, self._from = process.stdin, process.stdout

    async def greet(self, parameters: Parameters) -> None:
        greeting = await self._reply()
        if greeting != Greeting(VERSION):
            raise _Broken(f"the measuring program is not of version {VERSION}")
        await self._say(parameters.lines())

    async def ask(self, pair: Pair, parameters: Parameters) -> PairSample | Failed:
        await self._say(f"pair {pair[0]} {pair[1]}\nrun\n")
        replies: list[Reply] = []
        while not isinstance(reply := await self._reply(), Ran):
            replies.append(reply)
            if len(replies) > parameters.batches_max + 1:
                raise _Broken("the measuring program does not stop answering")
        try:
            return outcome(pair, replies, agree=parameters.agree)
        except MeasureError as fault:
            raise _Broken(fault.text) from None

    def hang_up(self) -> None:
        self._to.close()

    async def _say(self, text: str) -> None:
        try:
            self._to.write(text.encode("ascii"))
            await self._to.drain()
        except ConnectionError:
            raise _Broken("the measuring program ended by itself") from None

    async def _reply(self) -> Reply:
        try:
            line = await self._from.readline()
            if not line:
                raise _Broken("the measuring program ended by itself")
            return parse(line.decode("ascii", "replace"))
        except ValueError:  # readline's: longer than the reader's buffer
            raise _Broken("the measuring program said an endless line") from None
        except SyntaxFault as fault:
            raise _Broken(fault.text) from None


@asynccontextmanager
async def _started(program: Path) -> AsyncIterator[_Talk]:
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"LC_ALL": "C"},
        )
    except OSError as fault:
        raise MeasureError(
            f"cannot start the measuring program {program}: {fault.strerror}",
            hint="build it with: make setup",
        ) from None
    talk = _Talk(process)
    try:
        yield talk
    finally:
        # The end of its input also ends what a wrapper (PCA_PINGPONG) started: wait() returns when
        # nobody holds the program's pipes any more.
        talk.hang_up()
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
