"""What happens between the awaits of the service: effects that come late, on a world in memory."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from proxmox_cpu_affinity.linux.dropins import DropIns
from proxmox_cpu_affinity.linux.scopes import Sighting
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import (
    AffinityError,
    ExhaustedError,
    GuestNotFoundError,
    NotPveHostError,
    StoreError,
)
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess, Thread
from proxmox_cpu_affinity.model.ids import Tid, Vmid
from proxmox_cpu_affinity.model.latency import Verdict
from proxmox_cpu_affinity.model.placement import Confined, Confinement, Outcome, Placement
from proxmox_cpu_affinity.ports import Loaded
from proxmox_cpu_affinity.reconcile.events import Phase, ScopesReached
from proxmox_cpu_affinity.service import app, views
from proxmox_cpu_affinity.service.api import Api, Call
from proxmox_cpu_affinity.service.app import Service
from proxmox_cpu_affinity.service.world import World as Adapters
from tests.scenarios.scenario import Scenario
from tests.scenarios.story import Story
from tests.scenarios.world import World

if TYPE_CHECKING:
    from proxmox_cpu_affinity.linux.scopewatch import ScopeWatch
    from proxmox_cpu_affinity.linux.watch import ProcessWatch
    from proxmox_cpu_affinity.service.host import HostWatch

HOOK = "hookscript: local:snippets/proxmox-cpu-affinity-hook"


class Kernel:
    """The world's kernel, which takes its time."""

    means = Confinement.THREADS

    def __init__(self, world: World, slow: float) -> None:
        self.world, self.slow = world, slow

    async def confine(self, process: GuestProcess, placement: Placement) -> Confined:
        await asyncio.sleep(self.slow)
        return self.world.confine(process, placement)

    async def undo(
        self, process: GuestProcess, found: Mapping[Tid, CpuSet], free: CpuSet
    ) -> Confined:
        await asyncio.sleep(self.slow)
        return self.world.undo(process, found, free)

    async def threads(self, process: GuestProcess) -> Sequence[Thread]:
        return self.world.threads(process)


class Disk:
    """Keeps nothing, as slowly as it is told to."""

    delay = 0.0

    def load(self) -> Loaded:
        return Loaded(None)

    trouble: AffinityError | None = None
    saved = 0

    def save(self, state: Mapping[str, object]) -> None:
        del state
        time.sleep(self.delay)
        if self.trouble is not None:
            raise self.trouble
        self.saved += 1


class Guests:
    node = "pve1"

    def __init__(self, world: World) -> None:
        self.configs, self.processes, self.process = world.configs, world.processes, world.process
        self._config = world.config

    def config(self, vmid: Vmid) -> GuestConfig:
        found = self._config(vmid)
        if found is None:
            raise GuestNotFoundError(f"there is no guest {vmid}")
        return found


def service(
    root: Path, vmids: Sequence[int], *, slow: float = 0.0, scopes: object = None
) -> tuple[Service, World, Disk]:
    guests = {Vmid(vmid): ("cores: 2", HOOK) for vmid in vmids}
    story = Story(Scenario("1x2x4x1", {}, guests, ()))
    host = SimpleNamespace(
        read=lambda: None,
        compiled=lambda _: story.state.host,
        topology=story.topology,
        from_cache=True,
        changed=lambda: False,
    )
    disk = Disk()
    adapters = Adapters(
        tree=Tree(root),
        guests=Guests(story.world),
        confiner=Kernel(story.world, slow),
        keeper=disk,
        host=cast("HostWatch", host),
        scopes=cast("ScopeWatch", scopes),
    )
    made = Service(adapters, story.wanted_settings())
    made.prepare()
    # The world's processes are no processes that a pidfd could be opened for.
    nobody = SimpleNamespace(watch=lambda _: None, close=lambda: None)
    made.effects.watch = cast("ProcessWatch", nobody)
    return made, story.world, disk


async def started(made: Service, world: World, vmid: int) -> None:
    world.run(Vmid(vmid))
    await made.hook(Vmid(vmid), Phase.POST_START)


def masks(world: World, vmid: int) -> set[str]:
    return {str(t.affinity) for t in world.threads(world.processes()[Vmid(vmid)])}


def test_confining_that_was_decided_before_an_undo_does_not_come_after_it(tmp_path: Path) -> None:
    vmids = (100, 101, 102)

    async def story() -> None:
        made, world, _ = service(tmp_path, vmids, slow=0.05)
        for vmid in vmids:
            await started(made, world, vmid)
        scan = asyncio.create_task(made.scan())
        await asyncio.sleep(0.02)  # it is at the first guest
        await made.reassign(Vmid(102), undo=True)
        await scan
        assert masks(world, 102) == {"0-7"}
        assert Vmid(102) not in made.state.tracked

    asyncio.run(story())


def test_letting_go_of_a_guest_that_was_taken_up_again_meanwhile_is_left_out(
    tmp_path: Path,
) -> None:
    """It waited for its turn behind a scan that was confining the guest."""

    async def story() -> None:
        made, world, _ = service(tmp_path, (100,))
        await started(made, world, 100)
        kernel, begun, may_end = made.effects.confiner, asyncio.Event(), asyncio.Event()

        async def confine(process: GuestProcess, placement: Placement) -> Confined:
            begun.set()
            await may_end.wait()
            return world.confine(process, placement)

        async def undo(*_: object) -> Confined:
            raise AssertionError("it was let go")

        vars(kernel).update(confine=confine, undo=undo)
        scan = asyncio.create_task(made.scan())
        await begun.wait()
        work = [scan]
        for let_go in (True, False):
            work.append(asyncio.create_task(made.reassign(Vmid(100), undo=let_go)))
            async with asyncio.timeout(30):
                while (Vmid(100) in made.state.tracked) is let_go:
                    await asyncio.sleep(0.001)
        may_end.set()
        await asyncio.gather(*work)
        assert masks(world, 100) == {str(made.state.tracked[Vmid(100)].placement.applied)}

    asyncio.run(story())


def test_drop_in_that_was_wanted_when_its_start_began_is_not_written_after_it(
    tmp_path: Path,
) -> None:
    """A disk that takes long for the state: the hook has given up, and the scope is there."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    drop_ins = DropIns(tmp_path)

    class Systemd:
        problem = ""
        scopes = None

        def __init__(self) -> None:
            self.drop_ins = drop_ins

        async def announce(self, vmid: Vmid, cpus: CpuSet) -> None:
            await asyncio.to_thread(drop_ins.write, vmid, cpus)

        async def sighting(self, vmid: Vmid) -> Sighting:
            del vmid
            return Sighting(None)

    async def story() -> None:
        made, world, disk = service(tmp_path, (100,), scopes=Systemd())
        await made.feed(ScopesReached(time.monotonic()))
        disk.delay = 0.4
        hook = asyncio.create_task(made.hook(Vmid(100), Phase.PRE_START))
        await asyncio.sleep(0.1)
        disk.delay = 0.0
        await started(made, world, 100)
        await hook
        assert not made.state.drop_ins()
        assert not drop_ins.standing()

    asyncio.run(story())


def test_drop_in_that_nobody_wants_is_deleted_by_the_next_scan(tmp_path: Path) -> None:
    drop_ins = DropIns(tmp_path)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    drop_ins.write(Vmid(100), CpuSet.parse("0-1"))

    async def story() -> None:
        made, _, _ = service(tmp_path, (100,), scopes=SimpleNamespace(drop_ins=drop_ins))
        await made.scoping.tidy()
        assert not drop_ins.standing()

    asyncio.run(story())


@pytest.mark.parametrize(
    "trouble", [StoreError("no space left on device"), ExhaustedError("too many open files")]
)
def test_state_that_could_not_be_written_is_written_when_there_is_room(
    trouble: AffinityError, tmp_path: Path
) -> None:
    """It was tried again at the next change only: a guest that ran on was forgotten by SIGKILL."""

    async def story() -> None:
        made, world, disk = service(tmp_path, (100,))
        disk.trouble = trouble
        await started(made, world, 100)
        await made.saving.again()
        assert disk.saved == 0
        disk.trouble = None
        await made.saving.again()
        await made.saving.again()
        assert disk.saved == 1

    asyncio.run(story())


def test_drop_in_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    """Its temporary name outlived it, and its directory the package."""
    drop_ins = DropIns(tmp_path)
    directory = tmp_path / "run/systemd/system/100.scope.d"
    (directory / "50-proxmox-cpu-affinity.conf").mkdir(parents=True)  # which nothing can replace
    with pytest.raises(StoreError, match="drop-in of 100 cannot be written"):
        drop_ins.write(Vmid(100), CpuSet.parse("0-1"))
    assert [file.name for file in directory.iterdir()] == ["50-proxmox-cpu-affinity.conf"]


def test_drop_in_whose_writer_was_killed_is_cleaned_up(tmp_path: Path) -> None:
    drop_ins = DropIns(tmp_path)
    directory = tmp_path / "run/systemd/system/100.scope.d"
    directory.mkdir(parents=True)
    (directory / ".50-proxmox-cpu-affinity.conf.new").write_text("[Sco")
    drop_ins.clean(directories=True)
    assert not directory.exists()


@pytest.mark.parametrize("asks_all", [True, False])
def test_who_asks_for_guests_leaves_threads_for_hooks(
    tmp_path: Path,
    asks_all: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Once each of these questions had a thread at once, and a hook's look came after all."""

    async def story() -> None:
        made, _, _ = service(tmp_path, (100,))
        api, free, readers = Api(made), threading.Event(), []
        read, look = made.world.guests.configs, made.files.look

        def slow_configs() -> tuple[Mapping[Vmid, GuestConfig], frozenset[Vmid]]:
            readers.append(threading.get_ident())
            free.wait(10)
            return read()

        vars(made.world.guests)["configs"] = slow_configs
        # Of a guest that is not there all files are read, to say why.
        asked = [
            asyncio.create_task(
                api.guests(Call("", {}, {})) if asks_all else api.guest(Call("999", {}, {}))
            )
            for _ in range(100)
        ]
        try:
            while not readers:
                await asyncio.sleep(0.01)
            config, _ = await asyncio.wait_for(asyncio.to_thread(look, Vmid(100)), 5)
            assert config is not None
            assert len(readers) == 1
        finally:
            free.set()
            await asyncio.gather(*asked, return_exceptions=True)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("endpoint", "view"), [("core_ranking_summary", "summary"), ("topology", "topology")]
)
def test_what_is_long_on_large_hosts_is_not_made_on_the_event_loop(
    endpoint: str, view: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 512 CPUs a summary takes 14 ms: of 2000 callers at once a hook had to wait for all."""
    made_in: list[int] = []
    monkeypatch.setattr(views, view, lambda *_: made_in.append(threading.get_ident()))

    async def story() -> None:
        made, _, _ = service(tmp_path, (100,))
        vars(made.host)["matrix"] = None
        await Api(made).handlers()[endpoint](Call("", {}, {}))

    asyncio.run(story())
    assert len(made_in) == 1
    assert made_in[0] != threading.get_ident()


def test_that_guests_cannot_be_read_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And again when it comes again: each scan is twice a minute."""

    async def story() -> None:
        made, world, _ = service(tmp_path, (100,))
        guests = vars(made.world.guests)

        def unmounted() -> None:
            raise NotPveHostError("/etc/pve is missing")

        for _ in range(2):
            guests["configs"] = unmounted
            await made.scan()
            await made.scan()
            guests["configs"] = world.configs
            await made.scan()

    asyncio.run(story())
    assert caplog.text.count("/etc/pve is missing: guests stay as they are") == 2


def test_an_action_that_fails_costs_none_of_those_after_it(tmp_path: Path) -> None:
    """Guests with higher VMIDs were repaired by no scan any more."""

    async def story() -> None:
        made, world, _ = service(tmp_path, (100, 101))
        for vmid in (100, 101):
            await started(made, world, vmid)
        confine = made.effects.confiner.confine

        async def failing(process: GuestProcess, placement: Placement) -> Confined:
            if process.vmid == 100:
                raise OSError("nobody foresaw this")
            return await confine(process, placement)

        vars(made.effects.confiner)["confine"] = failing
        held = masks(world, 101)
        world.drift(world.processes()[Vmid(101)], CpuSet.parse("0-7"))
        await made.scan()
        assert masks(world, 101) == held != {"0-7"}

    asyncio.run(story())


def test_a_start_before_the_first_scan_takes_no_cpu_of_a_guest_that_runs(tmp_path: Path) -> None:
    """Without a state file it took them for free: two guests shared, and six CPUs were idle."""

    async def story() -> None:
        made, world, _ = service(tmp_path, (100, 101))
        world.run(Vmid(100))
        world.drift(world.processes()[Vmid(100)], CpuSet.parse("0-1"))
        await made.hook(Vmid(101), Phase.PRE_START)
        await made.scan()
        held = {vmid: t.placement.home for vmid, t in made.state.tracked.items()}
        assert held[Vmid(100)] == CpuSet.parse("0-1")
        assert not held[Vmid(101)] & held[Vmid(100)]

    asyncio.run(story())


def test_releasing_tries_again_as_long_as_systemd_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no scan after a release that would."""
    monkeypatch.setattr(app, "RELEASE_AGAIN", (0.0,) * 4)

    async def story() -> None:
        made, world, _ = service(tmp_path, (100, 101))
        for vmid in (100, 101):
            await started(made, world, vmid)
        undo = made.effects.confiner.undo
        tries: list[Vmid] = []

        async def late(
            process: GuestProcess, found: Mapping[Tid, CpuSet], free: CpuSet
        ) -> Confined:
            tries.append(process.vmid)
            if tries.count(Vmid(100)) >= 3 or process.vmid == 101:
                return await undo(process, found, free)
            return Confined(process, free, Outcome.FAILED, Confinement.NONE, 0)

        vars(made.effects.confiner)["undo"] = late
        assert await made.release_all() == ()
        assert [masks(world, vmid) for vmid in (100, 101)] == [{"0-7"}, {"0-7"}]
        assert sorted(tries) == [100, 100, 100, 101]

    asyncio.run(story())


def test_releasing_names_who_was_to_be_let_go_before_and_is_held_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It named only those that it let go itself: a package was removed as if all were free."""
    monkeypatch.setattr(app, "RELEASE_AGAIN", (0.0,))

    async def story() -> None:
        made, world, _ = service(tmp_path, (100, 101))
        for vmid in (100, 101):
            await started(made, world, vmid)
        undo = made.effects.confiner.undo

        async def refused(
            process: GuestProcess, found: Mapping[Tid, CpuSet], free: CpuSet
        ) -> Confined:
            if process.vmid == 101:
                return await undo(process, found, free)
            return Confined(process, free, Outcome.FAILED, Confinement.NONE, 0)

        vars(made.effects.confiner)["undo"] = refused
        await made.reassign(Vmid(100), undo=True)
        assert await made.release_all() == (100,)
        assert masks(world, 101) == {"0-7"}

    asyncio.run(story())


def test_a_host_that_cannot_be_read_keeps_no_guest_from_being_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the scan came after it in one try, and never."""
    monkeypatch.setattr(app, "SCAN_EVERY", 0.01)

    async def story() -> None:
        made, world, _ = service(tmp_path, (100,))
        vars(made.host)["matrix"] = SimpleNamespace(verdict=Verdict.TRUSTED)
        await made.start()

        def unreadable() -> None:
            raise OSError("sysfs is half there")

        vars(made.host).update(changed=lambda: True, read=unreadable)
        world.run(Vmid(100))
        try:
            async with asyncio.timeout(5):
                while Vmid(100) not in made.state.tracked:
                    await asyncio.sleep(0.01)
        finally:
            await made.stop()

    asyncio.run(story())
