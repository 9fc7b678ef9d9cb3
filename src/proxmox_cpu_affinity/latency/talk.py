"""The measuring program as a process: rounds of pairs in, what became of each pair out.

Out of scope: what is measured and when (probe.py), what the lines mean (protocol.py).
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from proxmox_cpu_affinity.latency.protocol import (
    VERSION,
    Failed,
    Greeting,
    Parameters,
    Ran,
    Refused,
    Reply,
    answered,
    parse,
)
from proxmox_cpu_affinity.latency.schedule import Pair
from proxmox_cpu_affinity.linux.workers import exhausted
from proxmox_cpu_affinity.model.errors import MeasureError, SyntaxFault
from proxmox_cpu_affinity.model.latency import PairSample

_LINE_LIMIT = 1 << 20  # a pair of 10,000 batches takes 150 KB
_SLACK = 10.0  # seconds an answer may take beyond what its pairs may
_AT_A_TIME = 16  # answers read before others' work gets its turn


class Broken(Exception):
    """The program ended, hangs, or says what it should not: the run ends here."""


class Talk:
    """The lines to and from a running program.

    Rounds are asked for together, and the next ones when they were answered: meanwhile this
    process sleeps, so that reading the answers disturbs no pair.
    """

    def __init__(
        self, to: socket.socket, answers: asyncio.StreamReader, parameters: Parameters
    ) -> None:
        self._to, self._from = to, answers
        self._parameters = parameters

    async def greet(self) -> None:
        """Hear its version, and tell it how pairs are measured. Broken."""
        if await self._reply() != Greeting(VERSION):
            raise Broken(f"the measuring program is not of version {VERSION}")
        await self._say(self._parameters.text())

    async def ask(
        self, rounds: Sequence[Sequence[Pair]], *, burst: bool = False
    ) -> list[PairSample | Failed]:
        """What became of each pair, in order. Broken."""
        patience = len(rounds) * self._parameters.pair_limit_us / 1e6 + _SLACK
        try:
            async with asyncio.timeout(patience) as limit:
                await self._say(self._parameters.order(rounds, burst=burst))
                return await self._answers([pair for pairs in rounds for pair in pairs])
        except TimeoutError:
            if not limit.expired():
                raise
            raise Broken("the measuring program hung and was killed") from None

    async def _answers(self, pairs: Sequence[Pair]) -> list[PairSample | Failed]:
        found: list[PairSample | Failed] = []
        for number, pair in enumerate(pairs):
            reply = await self._reply()
            try:
                found.append(answered(pair, reply, agree=self._parameters.agree))
            except MeasureError as fault:
                raise Broken(fault.text) from None
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
        if await self._reply() != Ran(len(pairs)):
            raise Broken("the measuring program does not stop answering")
        return found

    async def _say(self, text: str) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._to, text.encode("ascii"))
        except ConnectionError:
            raise Broken("the measuring program ended by itself") from None

    async def _reply(self) -> Reply:
        try:
            line = await self._from.readline()
            if not line:
                raise Broken("the measuring program ended by itself")
            reply = parse(line.decode("ascii", "replace"))
        except ValueError:  # readline's: longer than the reader's buffer
            raise Broken("the measuring program said an endless line") from None
        except SyntaxFault as fault:
            raise Broken(fault.text) from None
        if isinstance(reply, Refused):
            raise Broken(f"the measuring program does not understand line {reply.line}")
        return reply


@asynccontextmanager
async def started(program: Path, parameters: Parameters) -> AsyncIterator[Talk]:
    """The program, started; ended in any case at the end. MeasureError where it cannot start,
    ExhaustedError where nothing can."""
    try:
        ours, its = socket.socketpair()
    except OSError as fault:
        raise (exhausted(fault) or fault) from None
    # The end of its input ends the program, also one that runs while asyncio, for want of a thread
    # or a descriptor, says that it does not; and what a wrapper (PCA_PINGPONG) started.
    with ours:
        ours.settimeout(0)
        with its:
            process = await _process(program, its.fileno())
        assert process.stdout is not None
        try:
            yield Talk(ours, process.stdout, parameters)
        finally:
            ours.close()
            with suppress(OSError):  # it ended, or runs as somebody else
                process.kill()
            await process.wait()  # until nobody holds its pipe any more


async def _process(program: Path, orders: int) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            program,
            stdin=orders,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"LC_ALL": "C"},
            limit=_LINE_LIMIT,
        )
    except OSError as fault:
        raise exhausted(fault) or MeasureError(
            f"cannot start the measuring program {program}: {fault.strerror}",
            hint="build it with: make setup",
        ) from None
    except RuntimeError as fault:  # asyncio waits for it in a thread, before Python 3.12
        raise (exhausted(fault) or fault) from None
