"""Rules of the brain of which no scenario tells: each fails when its line is left out."""

from dataclasses import replace

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Outcome
from proxmox_cpu_affinity.reconcile import step
from proxmox_cpu_affinity.reconcile.events import Confirmed, ScopeRemoved
from tests.unit.test_brain_histories import HOOK, kernel, played

ONE, TWO = ("cores: 1", HOOK), ("cores: 2", HOOK)


def test_an_announced_start_ends_the_letting_go_of_the_run_before() -> None:
    events = ("0 start 100", "1 undo 100", "2 vanish 100", "3 pre-start 100")
    story = played("1x2x4x1", {100: TWO}, *events)
    assert Vmid(100) in story.state.tracked
    assert not story.state.released
    assert not story.state.released_runs


def test_a_mask_of_all_cpus_is_not_kept_so_undoing_gives_those_that_came_since() -> None:
    events = ("0 start 100", "1 host 1x2x4x1", "2 undo 100")
    story = played("1x2x4x1+offline=7", {100: TWO}, *events)
    assert kernel(story, 100) == {"0-7"}


def test_an_answer_to_an_older_wish_says_nothing() -> None:
    """A guest that was moved meanwhile: the answer to the newer wish is on its way."""
    state = played("1x2x4x1", {100: TWO}, "0 start 100").state
    confined = state.tracked[Vmid(100)].confined
    assert confined is not None
    older = replace(confined, wanted=CpuSet.parse("6-7"), outcome=Outcome.FAILED)
    assert step(state, Confirmed(5.0, older)) == (state, ())


def test_that_letting_go_fails_is_told_once() -> None:
    events = ("0 start 100", "1 deaf", "2 undo 100", "30 scan", "60 scan")
    story = played("1x2x4x1", {100: TWO}, *events)
    assert story.state.leaving
    assert sum("tells warn 100" in line for line in story.lines) == 1


def test_the_end_of_a_former_scope_leaves_an_announced_start_alone() -> None:
    """PVE stops the scope of that name before each start."""
    story = played("1x2x4x1", {100: TWO}, "0 systemd", "1 pre-start 100")
    drop_ins = dict(story.world.drop_ins)
    story.feed(ScopeRemoved(2.0, Vmid(100)))
    assert Vmid(100) in story.state.tracked
    assert story.world.drop_ins == drop_ins
    assert drop_ins.keys() == {Vmid(100)}


def test_who_floats_is_adopted_after_who_does_not() -> None:
    """Its own CPU is chosen inside of its mask, beside those that nobody can choose."""
    events = ("0 run 100", "0 run 101", "1 drift 100 0-3", "1 drift 101 0")
    story = played("1x2x4x1", {100: ONE, 101: ONE}, *events, "2 restart lost", "3 scan")
    homes = {vmid: tracked.placement.home for vmid, tracked in story.state.tracked.items()}
    assert homes[Vmid(101)] == CpuSet.parse("0")
    assert len(homes[Vmid(100)]) == 1
    assert homes[Vmid(100)] <= CpuSet.parse("1-3")


def test_nobody_moves_onto_cpus_of_a_guest_that_is_not_managed_any_more() -> None:
    guests = {100: ("cores: 3", HOOK), 101: ("cores: 3", HOOK), 102: TWO}
    starts = ("0 start 100", "10 start 101", "20 start 102")
    story = played("1x2x4x1", guests, *starts, settings={"PCA_REBALANCE": "on"})
    before = story.state.tracked[Vmid(102)].placement
    for event in ("100 set 100 tags: cpu-affinity-off", "130 scan"):
        story.play(event)
    assert Vmid(100) not in story.state.tracked
    assert story.state.tracked[Vmid(102)].placement == before
    story.play("140 stop 101")
    assert story.state.tracked[Vmid(102)].placement != before


def test_vcpus_to_come_are_those_of_managed_guests() -> None:
    story = played("1x2x4x1", {100: TWO, 101: ("cores: 30",)}, "0 start 100", "30 scan")
    assert story.state.configs.keys() == {Vmid(100), Vmid(101)}
    assert story.state.occupancy().configured_vcpus == 2


def test_a_dedicated_guest_that_has_too_few_cpus_keeps_them_at_a_reload() -> None:
    """Placed anew it would find none: another guest has the rest."""
    keys = ("cores: 3", "vcpus: 2", "hotplug: cpu", "tags: cpu-dedicated", HOOK)
    events = ("0 start 100", "1 start 101", "2 set 100 vcpus: 3", "30 scan")
    story = played("1x1x4x1", {100: keys, 101: TWO}, *events)
    home = story.state.tracked[Vmid(100)].placement.home
    assert len(home) == 2
    story.play("40 set-service PCA_REBALANCE off")
    assert story.state.tracked[Vmid(100)].placement.home == home
    assert not story.state.refused
