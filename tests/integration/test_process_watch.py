"""The end of a guest's process, told once: of that very process, whoever has its number now."""

import asyncio
import errno
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxmox_cpu_affinity.linux.threads import stat_of
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.linux.watch import ProcessWatch
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Pid, Vmid

TREE = Tree(Path("/"))


@asynccontextmanager
async def watching() -> AsyncIterator[tuple[ProcessWatch, list[GuestProcess]]]:
    ended: list[GuestProcess] = []
    watch = ProcessWatch(TREE, ended.append)
    try:
        yield watch, ended
    finally:
        watch.close()


async def comes(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def guest(pid: int, *, later: int = 0) -> GuestProcess:
    """A process as a guest; `later`: one that began so many ticks after it."""
    seen = stat_of(TREE, Pid(pid))
    assert seen is not None
    return GuestProcess(Vmid(100), Pid(pid), seen.start_time + later)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as sleeping:
        try:
            yield sleeping
        finally:
            sleeping.kill()


def test_an_end_is_told_once_and_not_before(process: subprocess.Popen[bytes]) -> None:
    async def story() -> None:
        async with watching() as (watch, ended):
            found = guest(process.pid)
            watch.watch(found)
            watch.watch(found)
            await asyncio.sleep(0.05)
            assert ended == []
            process.kill()
            await comes(lambda: bool(ended))
            await asyncio.sleep(0.05)
            assert ended == [found]

    asyncio.run(story())


def test_who_is_gone_already_is_told_of(process: subprocess.Popen[bytes]) -> None:
    async def story() -> None:
        async with watching() as (watch, ended):
            found = guest(process.pid)
            process.kill()
            process.wait()
            watch.watch(found)
            await comes(lambda: ended == [found])

    asyncio.run(story())


def test_another_process_of_the_same_number_is_not_the_guest(
    process: subprocess.Popen[bytes],
) -> None:
    async def story() -> None:
        async with watching() as (watch, ended):
            former = guest(process.pid, later=-1)
            watch.watch(former)
            await comes(lambda: ended == [former])
            assert process.poll() is None

    asyncio.run(story())


def test_who_cannot_be_watched_yet_is_watched_later(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where epoll took no more (fs.epoll.max_user_watches) it was taken for watched for good."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def story() -> None:
        async with watching() as (watch, ended):
            found = guest(process.pid)
            before = descriptors()
            with monkeypatch.context() as patched:
                patched.setattr(asyncio.get_running_loop(), "add_reader", full)
                watch.watch(found)
            assert descriptors() == before
            watch.watch(found)
            process.kill()
            await comes(lambda: ended == [found])

    asyncio.run(story())
