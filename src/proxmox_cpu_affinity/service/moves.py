"""The search for moves that pay: in steps as short as a decision, between which the service goes on
with its work; from the beginning whenever the guests' placements have changed meanwhile."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from proxmox_cpu_affinity.engine.rebalance import Move, Question, search
from proxmox_cpu_affinity.reconcile import State, rebalancing
from proxmox_cpu_affinity.reconcile.events import Event, MovesFound


@dataclass(slots=True)
class MoveSearch:
    """Answers LookForMoves; those who ask while one search runs share the next."""

    state: Callable[[], State]
    feed: Callable[[Event], Coroutine[None, None, None]]
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _wanted: int = 0
    _answered: int = 0
    _asked: bool = False
    _found: tuple[Move, ...] = ()

    async def look(self, *, asked: bool) -> tuple[Move, ...]:
        """The moves found, after the brain has carried them out or said them."""
        self._wanted += 1
        mine, self._asked = self._wanted, self._asked or asked
        async with self._turn:
            if self._answered < mine:
                upto, by_hand, self._asked = self._wanted, self._asked, False
                self._found = await self._answer(asked=by_hand)
                self._answered = upto
            return self._found

    async def _answer(self, *, asked: bool) -> tuple[Move, ...]:
        moves = None
        while moves is None:
            question = rebalancing.question(self.state(), time.monotonic(), asked=asked)
            moves = await self._searched(question)
        await self.feed(MovesFound(time.monotonic(), question, moves, asked))
        return moves

    async def _searched(self, question: Question) -> tuple[Move, ...] | None:
        """None as soon as the question is a past one."""
        steps = search(question)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: tuple[Move, ...] = end.value
                return found
            await asyncio.sleep(0)
            if not rebalancing.stands(self.state(), question):
                return None
