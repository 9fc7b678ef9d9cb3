"""The service asks the kernel who waits, where the settings want it."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest

from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.reconcile.events import Event, Waited
from proxmox_cpu_affinity.service.waiting import Waiting
from tests.unit.test_brain_histories import HOOK, played


@dataclass(slots=True)
class Kernel:
    """Every guest waits all the time; its pressure may be unknown."""

    by_threads: bool = False
    asked: list[GuestProcess] = field(default_factory=list)

    def waited(self, processes: Iterable[GuestProcess], now: float) -> Mapping[Vmid, float]:
        assert now > 0
        self.asked += processes
        return {process.vmid: 1.0 for process in self.asked}


def looked(kernel: Kernel, *, widen: str, times: int = 1) -> list[Event]:
    story = played(
        "1x2x4x1", {100: ("cores: 1", HOOK)}, "0 start 100", settings={"PCA_WIDEN": widen}
    )
    fed: list[Event] = []

    async def feed(event: Event) -> None:
        fed.append(event)

    async def look() -> None:
        waiting = Waiting(kernel, lambda: story.state, feed)
        for _ in range(times):
            await waiting.look()

    asyncio.run(look())
    return fed


def test_nobody_is_asked_where_it_is_off() -> None:
    kernel = Kernel()
    assert looked(kernel, widen="off") == []
    assert kernel.asked == []


def test_the_brain_hears_of_every_running_guest() -> None:
    (heard,) = looked(Kernel(), widen="pressure")
    assert isinstance(heard, Waited)
    assert heard.shares == {Vmid(100): 1.0}


@pytest.mark.parametrize("by_threads", [False, True])
def test_a_kernel_without_pressure_is_named_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, *, by_threads: bool
) -> None:
    monkeypatch.setattr(logging.getLogger("proxmox_cpu_affinity"), "propagate", True)
    looked(Kernel(by_threads=by_threads), widen="pressure", times=3)
    said = [record for record in caplog.records if "cpu.pressure" in record.getMessage()]
    assert len(said) == int(by_threads)
