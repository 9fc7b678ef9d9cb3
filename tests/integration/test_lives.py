"""Lives of guests on the simulated node under a real service: with our hookscript, and without it
by tag or all of them; those that go another way than start and stop are in test_lives_away.

Whatever happens to a guest, in the end the kernel, the API and the service agree, no start was held
or failed, and nothing is recorded of who is gone.
"""

import json
import os
import signal
from collections.abc import Iterator

import pytest

from proxmox_cpu_affinity.model.ids import Vmid
from tests.scenarios.scenario import Scenario
from tests.scenarios.story import Story

from .living import CPUS, PLACES, Life, Place, lives, masks

pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")


@pytest.fixture(scope="module", params=PLACES, ids=str)
def shared(request: pytest.FixtureRequest) -> Iterator[Life]:
    assert isinstance(request.param, Place)
    yield from lives(request.param)


@pytest.fixture
def life(shared: Life) -> Iterator[Life]:
    yield shared
    shared.bury()


def story(keys: tuple[str, ...], *events: str) -> Story:
    """The same told to the service's brain alone, where no scan comes but those of the story."""
    hook = "hookscript: local:snippets/proxmox-cpu-affinity-hook"
    played = Story(Scenario("1x2x4x1", {}, {Vmid(100): (*keys, hook)}, events))
    for event in events:
        played.play(event)
    return played


def renewed(life: Life, vmid: int, before: int | None) -> None:
    """Wait until the guest runs in another process."""
    life.service.wait_for(lambda: life.node.pid(vmid) not in {None, before})


# -- start and stop --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "shutdown"])
def test_start_and_end(life: Life, end: str) -> None:
    vmid = life.guest()
    first = life.runs(vmid)
    life.do(end, vmid)
    life.rests(vmid)
    life.do("start", vmid)
    assert life.runs(vmid) == first


def test_two_guests_share_nothing(life: Life) -> None:
    one, two = life.guest(), life.guest()
    assert not life.runs(one) & life.runs(two)
    life.do("stop", one)
    life.rests(one)
    third = life.guest()
    assert not life.runs(third) & life.runs(two)


def test_stop_and_start_in_quick_succession(life: Life) -> None:
    """In the old model a post-stop comes late, or not at all."""
    vmid = life.guest()
    for _ in range(3):
        life.do("stop", vmid)
        life.do("start", vmid)
    life.runs(vmid)
    life.do("stop", vmid)
    life.rests(vmid)


def test_qm_reboot(life: Life) -> None:
    vmid = life.guest()
    first, cpus = life.node.pid(vmid), life.runs(vmid)
    life.do("reboot", vmid)
    renewed(life, vmid, first)
    assert life.runs(vmid) == cpus


def test_reboot_inside_changes_nothing(life: Life) -> None:
    vmid = life.guest()
    first, cpus = life.node.pid(vmid), life.runs(vmid)
    life.node.guest_reboot(vmid)
    assert life.node.pid(vmid) == first
    assert life.runs(vmid) == cpus


def test_reboot_inside_as_a_shutdown(life: Life) -> None:
    vmid = life.guest("--reboot", 0)
    life.runs(vmid)
    life.node.guest_reboot(vmid)
    life.service.wait_for(lambda: life.node.pid(vmid) is None)
    life.rests(vmid)


def test_poweroff_inside(life: Life) -> None:
    vmid = life.guest()
    life.runs(vmid)
    life.node.guest_poweroff(vmid)
    life.service.wait_for(lambda: life.node.pid(vmid) is None)
    life.rests(vmid)


def test_kill_9(life: Life) -> None:
    vmid = life.guest()
    life.runs(vmid)
    os.kill(life.node.pid(vmid) or 0, signal.SIGKILL)
    life.service.wait_for(lambda: life.node.pid(vmid) is None)
    life.rests(vmid)
    life.do("start", vmid)
    life.runs(vmid)


def test_reset_suspend_resume(life: Life) -> None:
    vmid = life.guest()
    cpus = life.runs(vmid)
    for command in ("reset", "suspend", "resume"):
        life.do(command, vmid)
        assert life.runs(vmid) == cpus


def test_destroy(life: Life) -> None:
    vmid = life.guest()
    life.runs(vmid)
    life.do("stop", vmid)
    life.do("destroy", vmid)
    life.gone(vmid)


# -- high availability -----------------------------------------------------------------------------


def test_ha_start_restart_and_stop(life: Life) -> None:
    vmid = life.guest(start=False)
    life.node.run("ha-manager", "add", f"vm:{vmid}", "--state", "stopped")
    assert life.do("start", vmid) == f"Requesting HA start for VM {vmid}\n"
    life.rests(vmid)
    life.node.lrm_round()
    cpus = life.runs(vmid)
    os.kill(life.node.pid(vmid) or 0, signal.SIGKILL)
    life.service.wait_for(lambda: life.node.pid(vmid) is None)
    life.node.lrm_round()
    assert life.runs(vmid) == cpus
    life.do("stop", vmid)
    assert life.runs(vmid) == cpus
    life.node.lrm_round()
    life.rests(vmid)


def test_ha_relocate(life: Life) -> None:
    vmid = life.guest(start=False)
    life.node.run("ha-manager", "add", f"vm:{vmid}", "--state", "started")
    life.node.lrm_round()
    life.runs(vmid)
    life.node.run("ha-manager", "relocate", f"vm:{vmid}", life.PEER)
    life.node.lrm_round()
    life.gone(vmid)
    life.node.move_in(vmid, source=life.PEER)
    life.node.lrm_round()
    life.runs(vmid)


# -- changes of a running guest --------------------------------------------------------------------


def test_pending_cores(life: Life) -> None:
    """What runs counts until the restart; then the guest is placed at its new size."""
    vmid = life.guest()
    cpus = life.runs(vmid)
    life.do("set", vmid, "--cores", 2)
    life.node.guest_reboot(vmid)
    assert life.runs(vmid) == cpus
    before = life.node.pid(vmid)
    life.do("reboot", vmid)
    renewed(life, vmid, before)
    life.runs(vmid, cpus=2)
    life.do("set", vmid, "--cores", 1)
    life.do("stop", vmid)
    life.do("start", vmid)
    life.runs(vmid, cpus=1)


def test_pending_affinity(life: Life) -> None:
    vmid = life.guest()
    cpus = life.runs(vmid)
    life.do("set", vmid, "--affinity", max(CPUS))
    assert life.runs(vmid) == cpus
    life.do("stop", vmid)
    life.rests(vmid)
    life.node.do("start", vmid)
    life.unheld(vmid, cpus=frozenset({max(CPUS)}))


def test_pending_affinity_reverted(life: Life) -> None:
    vmid = life.guest()
    life.do("set", vmid, "--affinity", max(CPUS))
    life.do("set", vmid, "--revert", "affinity")
    life.do("stop", vmid)
    life.do("start", vmid)
    life.runs(vmid)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_the_next_scan_finds_a_plugged_vcpu(before: int, after: int) -> None:
    keys = ("cores: 2", f"vcpus: {before}", "hotplug: cpu")
    played = story(keys, "0 start 100", f"10 set 100 vcpus: {after}", "30 scan")
    assert len(played.state.tracked[Vmid(100)].placement.home) == after


def test_plugged_vcpu(life: Life) -> None:
    vmid = life.guest("--hotplug", "cpu", "--vcpus", 1, cores=2)
    life.runs(vmid)
    life.do("set", vmid, "--vcpus", 2)
    life.look()
    life.confined(vmid, cpus=2)


def test_plugged_vcpu_is_held_at_once(life: Life) -> None:
    """QEMU's main thread makes it, whose mask it inherits: no vCPU ever runs elsewhere."""
    vmid = life.guest("--hotplug", "cpu", "--vcpus", 1, cores=2)
    cpus = life.runs(vmid)
    pid = life.node.pid(vmid)
    life.do("set", vmid, "--vcpus", 2)
    assert life.node.pid(vmid) == pid
    assert masks(pid or 0) == {cpus}


def test_unplugged_vcpu(life: Life) -> None:
    vmid = life.guest("--hotplug", "cpu", cores=2)
    life.runs(vmid, cpus=2)
    life.do("set", vmid, "--vcpus", 1)
    life.look()
    life.confined(vmid, cpus=1)


# -- what is kept ----------------------------------------------------------------------------------


def moved_and_destroyed(life: Life) -> tuple[int, int]:
    """Two guests that are gone from here."""
    moved, destroyed = life.guest(), life.guest()
    for vmid in (moved, destroyed):
        life.runs(vmid)
    life.do("migrate", moved, life.PEER, "--online")
    life.do("stop", destroyed)
    life.do("destroy", destroyed)
    return moved, destroyed


def test_a_scan_saves_what_it_forgets() -> None:
    played = story(("cores: 1",), "0 start 100", "10 stop 100", "11 destroy 100", "30 scan")
    assert json.loads(played.saved)["last_places"] == {}


def test_nothing_is_kept_of_guests_that_are_gone(life: Life) -> None:
    for vmid in moved_and_destroyed(life):
        life.gone(vmid)
        kept = life.kept()
        assert str(vmid) not in kept["tracked"]
        assert str(vmid) not in kept["last_places"]


def test_who_is_on_another_node_is_not_found_here(life: Life) -> None:
    moved, destroyed = moved_and_destroyed(life)
    assert life.service.get(f"/api/v1/guests/{destroyed}").status == 404
    assert life.service.get(f"/api/v1/guests/{moved}").status == 404
