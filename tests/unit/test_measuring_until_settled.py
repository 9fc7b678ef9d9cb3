"""Measuring again: until it is settled, one at a time, anew when somebody asks meanwhile."""

import asyncio
from dataclasses import dataclass, field

from proxmox_cpu_affinity.service.measuring import FIRST, MOST, Attempt, UntilSettled

QUICK = 0.001  # seconds: the first pause, where a test is not about it


@dataclass
class Script:
    """Attempts that come to what is written."""

    attempts: list[Attempt]
    made: int = 0
    told: int = 0
    started: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def once(self) -> Attempt:
        self.started.set()
        await self.go_on.wait()
        self.made += 1
        return self.attempts.pop(0)

    async def changed(self) -> None:
        self.told += 1

    def runner(self, first: float = QUICK) -> UntilSettled:
        self.go_on.set()
        return UntilSettled(self.once, self.changed, first)


UNSTABLE = Attempt(changed=False, settled=False)
TRUSTED = Attempt(changed=True, settled=True)


def test_it_is_made_again_until_it_is_settled() -> None:
    async def story() -> Script:
        script = Script(
            [Attempt(changed=True, settled=False), UNSTABLE, UNSTABLE, TRUSTED, TRUSTED]
        )
        await script.runner().run()
        return script

    script = asyncio.run(story())
    assert (script.made, script.told) == (4, 2)


def test_each_pause_is_twice_as_long_up_to_an_hour() -> None:
    async def story() -> list[float]:
        pauses: list[float] = []
        script = Script([UNSTABLE] * 9 + [TRUSTED])
        runner = script.runner(first=FIRST)

        async def paused(pause: float) -> None:
            pauses.append(pause)

        runner.pause = paused
        await runner.run()
        return pauses

    pauses = asyncio.run(story())
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert (pauses[0], pauses[-1]) == (FIRST, MOST)


def test_asking_while_one_is_under_way_has_it_made_again_by_the_same() -> None:
    async def story() -> Script:
        script = Script([TRUSTED, TRUSTED, TRUSTED])
        runner = script.runner()
        script.go_on.clear()
        first = asyncio.create_task(runner.run())
        await script.started.wait()
        await runner.run()
        await runner.run()
        assert script.made == 0
        script.go_on.set()
        await first
        return script

    assert asyncio.run(story()).made == 2


def test_asking_in_a_pause_ends_it() -> None:
    async def story() -> Script:
        script = Script([UNSTABLE, TRUSTED])
        runner = script.runner(first=3600.0)
        first = asyncio.create_task(runner.run())
        while script.made == 0:
            await asyncio.sleep(0)
        await runner.run()
        await asyncio.wait_for(first, 30)
        return script

    assert asyncio.run(story()).made == 2


def test_after_a_failure_it_can_be_asked_again() -> None:
    async def story() -> Script:
        script = Script([])
        runner = script.runner()
        for _ in range(2):
            try:
                await runner.run()
            except IndexError:
                script.attempts = [TRUSTED]
        return script

    assert asyncio.run(story()).made == 2
