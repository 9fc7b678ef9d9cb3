"""Lives of guests that go another way than start and stop: migration, backup, snapshots,
hibernation. As test_lives: with our hookscript and without it."""

import functools
from collections.abc import Iterator

import pytest

from proxmox_cpu_affinity.sim.arrival import Breaks

from .living import CPUS, PLACES, Life, Place, lives

pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")


@pytest.fixture(scope="module", params=PLACES, ids=str)
def shared(request: pytest.FixtureRequest) -> Iterator[Life]:
    assert isinstance(request.param, Place)
    yield from lives(request.param)


@pytest.fixture
def life(shared: Life) -> Iterator[Life]:
    yield shared
    shared.bury()


# -- migration -------------------------------------------------------------------------------------


def test_live_migration_away_and_back(life: Life) -> None:
    vmid = life.guest()
    life.runs(vmid)
    life.do("migrate", vmid, life.PEER, "--online")
    life.gone(vmid)
    seen: list[int | None] = []
    done = life.node.migrate_in(
        vmid, source=life.PEER, meanwhile=lambda: seen.append(life.node.pid(vmid))
    )
    assert done.returncode == 0, done.stdout
    assert seen == [life.node.pid(vmid)]
    if life.hooked:
        assert "threads read back" in done.stdout
    life.runs(vmid)
    life.do("stop", vmid)
    life.rests(vmid)


def test_a_guest_that_waits_for_its_ram_keeps_its_place(life: Life) -> None:
    """Its file is still the other node's; a scan must not take that for its end."""
    vmid = life.guest(start=False)
    life.do("migrate", vmid, life.PEER)
    between: list[object] = []

    def look() -> None:
        life.look()
        between.append(life.placed().get(str(vmid)))

    life.node.migrate_in(vmid, source=life.PEER, meanwhile=look)
    cpus = life.runs(vmid)
    assert between == [sorted(cpus) if life.hooked else None]


@pytest.mark.parametrize("place", [PLACES[0], PLACES[2]], ids=str)
def test_the_service_is_killed_while_a_guest_waits_for_its_ram(place: Place) -> None:
    for life in lives(place):
        vmid = life.guest(start=False)
        life.do("migrate", vmid, life.PEER)
        before: list[object] = []
        life.node.migrate_in(
            vmid, source=life.PEER, meanwhile=functools.partial(_restart, life, vmid, before)
        )
        life.look()
        cpus = life.runs(vmid)
        assert before == [sorted(cpus) if life.hooked else None]


def _restart(life: Life, vmid: int, before: list[object]) -> None:
    before.append(life.placed().get(str(vmid)))
    life.service.kill()
    life.service.start()


def test_offline_migration(life: Life) -> None:
    vmid = life.guest()
    life.runs(vmid)
    life.do("stop", vmid)
    life.do("migrate", vmid, life.PEER)
    life.gone(vmid)
    life.node.move_in(vmid, source=life.PEER)
    life.rests(vmid)
    life.do("start", vmid)
    life.runs(vmid)


def test_migration_whose_start_fails_here(life: Life) -> None:
    vmid = life.guest(start=False)
    life.do("migrate", vmid, life.PEER)
    done = life.node.migrate_in(vmid, source=life.PEER, breaks=Breaks.AT_START)
    assert done.returncode == 255
    assert life.node.pid(vmid) is not None
    life.look()
    life.node.move_in(vmid, source=life.PEER)
    life.look()  # without post-start only this tells
    life.runs(vmid)
    life.do("stop", vmid, "--skiplock")
    life.rests(vmid)


def test_migration_that_breaks_on_its_way(life: Life) -> None:
    vmid = life.guest(start=False)
    life.do("migrate", vmid, life.PEER)
    done = life.node.migrate_in(vmid, source=life.PEER, breaks=Breaks.ON_THE_WAY)
    assert done.returncode == 0, done.stdout
    life.service.wait_for(lambda: life.node.pid(vmid) is None)
    life.gone(vmid)
    life.node.migrate_in(vmid, source=life.PEER)
    life.runs(vmid)


# -- backup ----------------------------------------------------------------------------------------


def test_backup_of_a_stopped_guest(life: Life) -> None:
    vmid = life.guest(start=False)
    with life.node.backing_up(vmid):
        life.runs(vmid)  # paused, and a load like any other
    life.rests(vmid)


def test_backup_during_which_the_guest_is_started(life: Life) -> None:
    vmid = life.guest(start=False)
    with life.node.backing_up(vmid):
        cpus = life.runs(vmid)
        life.do("start", vmid)
        assert life.runs(vmid) == cpus
    assert life.runs(vmid) == cpus


@pytest.mark.parametrize("mode", ["snapshot", "stop"])
def test_backup_of_a_running_guest(life: Life, mode: str) -> None:
    vmid = life.guest()
    cpus = life.runs(vmid)
    with life.node.backing_up(vmid, mode=mode):
        assert life.runs(vmid) == cpus
    assert life.runs(vmid) == cpus


def test_backup_of_a_template(life: Life) -> None:
    """It runs for a while, and is never ours."""
    vmid = life.guest(start=False)
    life.do("template", vmid)
    with life.node.backing_up(vmid):
        life.unheld(vmid)
    life.rests(vmid)


# -- snapshots and hibernation ---------------------------------------------------------------------


def test_snapshot_with_ram_and_rollback(life: Life) -> None:
    vmid = life.guest()
    first, cpus = life.node.pid(vmid), life.runs(vmid)
    life.do("snapshot", vmid, "live", "--vmstate", 1)
    assert (life.node.pid(vmid), life.runs(vmid)) == (first, cpus)
    life.do("rollback", vmid, "live")
    assert life.node.pid(vmid) not in {None, first}
    assert life.runs(vmid) == cpus
    life.do("delsnapshot", vmid, "live")
    assert life.runs(vmid) == cpus


def test_rollback_without_ram(life: Life) -> None:
    vmid = life.guest()
    life.do("snapshot", vmid, "cold")
    life.runs(vmid)
    life.do("rollback", vmid, "cold")
    life.rests(vmid)
    life.do("start", vmid)
    life.runs(vmid)


def test_rollback_to_an_affinity_of_its_own(life: Life) -> None:
    """The snapshot's configuration decides, and PVE's mask stays."""
    vmid = life.guest("--affinity", max(CPUS), start=False)
    life.node.do("start", vmid)
    life.node.do("snapshot", vmid, "own", "--vmstate", 1)
    life.node.do("stop", vmid)
    life.do("set", vmid, "--delete", "affinity")
    life.do("start", vmid)
    life.runs(vmid)
    life.node.do("rollback", vmid, "own")
    life.unheld(vmid, cpus=frozenset({max(CPUS)}))


def test_rollback_to_before_it_was_ours(life: Life) -> None:
    vmid = life.guest("--tags", "cpu-affinity-off", start=False)
    if life.hooked:
        life.do("set", vmid, "--delete", "hookscript")
    life.do("snapshot", vmid, "before")
    life.do("set", vmid, "--delete", "tags")
    if life.wish():
        life.do("set", vmid, *life.wish())
    life.do("start", vmid)
    life.runs(vmid)
    life.do("rollback", vmid, "before", "--start")
    life.unheld(vmid)


def test_hibernation_and_resume(life: Life) -> None:
    vmid = life.guest()
    cpus = life.runs(vmid)
    life.do("suspend", vmid, "--todisk", 1)
    life.service.wait_for(lambda: life.node.pid(vmid) is None)
    life.rests(vmid)
    life.do("start", vmid)
    assert life.runs(vmid) == cpus


def test_clone(life: Life) -> None:
    vmid = life.guest()
    copy = life.guest(start=False)
    life.do("destroy", copy)
    life.do("clone", vmid, copy)
    life.do("start", copy)
    assert not life.runs(vmid) & life.runs(copy)
