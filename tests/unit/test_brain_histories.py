"""Histories in which the brain once went wrong, each by its name."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import AffinityError
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.reconcile import step
from proxmox_cpu_affinity.reconcile.events import Enclosed
from proxmox_cpu_affinity.service import persist
from tests.scenarios.scenario import Scenario
from tests.scenarios.story import BOOT, Story

HOOK = "hookscript: local:snippets/proxmox-cpu-affinity-hook"


def played(
    host: str,
    guests: Mapping[int, Sequence[str]],
    *events: str,
    settings: Mapping[str, str] | None = None,
) -> Story:
    keys = {Vmid(vmid): lines for vmid, lines in guests.items()}
    story = Story(Scenario(host, settings or {}, keys, events))
    for event in events:
        story.play(event)
    return story


def kernel(story: Story, vmid: int) -> set[str]:
    """The masks of a guest's threads."""
    process = story.world.processes()[Vmid(vmid)]
    return {str(thread.affinity) for thread in story.world.threads(process)}


def test_guest_found_where_none_may_be_does_not_end_the_start() -> None:
    """A shared guest on isolated CPUs, the state lost: adopting it raised out of the step."""
    host = "1x2x4x1+isolated=6-7"
    events = ("0 run 100", "1 drift 100 6-7", "2 restart lost", "3 scan", "30 scan")
    story = played(host, {100: ("cores: 1", HOOK)}, *events)
    assert kernel(story, 100) == {str(story.state.tracked[Vmid(100)].placement.applied)}


def test_dedicated_guest_that_grew_keeps_its_cpus_at_a_reload() -> None:
    keys = ("cores: 6", "vcpus: 4", "hotplug: cpu", "tags: cpu-dedicated", HOOK)
    events = ("0 start 100", "10 set 100 vcpus: 6", "30 scan", "40 set-service PCA_WIDTH domain")
    story = played("1x1x4x1", {100: keys}, *events)
    assert str(story.state.tracked[Vmid(100)].placement.home) == "0-3"
    assert not story.state.refused


def test_guest_that_is_let_go_is_none_that_stopped() -> None:
    """Nobody moves onto CPUs that it still uses."""
    guests = {100: ("cores: 3", HOOK), 101: ("cores: 3", HOOK), 102: ("cores: 2", HOOK)}
    starts = ("0 start 100", "10 start 101", "20 start 102")
    on = {"PCA_REBALANCE": "on"}
    story = played("1x2x4x1", guests, *starts, settings=on)
    before = story.state.tracked[Vmid(102)].placement
    story.play("100 undo 100")
    assert story.state.tracked[Vmid(102)].placement == before
    story.play("110 stop 101")
    assert story.state.tracked[Vmid(102)].placement != before


def test_scope_of_a_guest_let_go_before_its_process_was_proved_is_let_go() -> None:
    events = ("0 systemd", "1 scope 100", "2 set 100 tags: cpu-affinity-off", "3 scan")
    story = played("1x2x4x1", {100: ("cores: 2", HOOK)}, *events)
    assert story.world.scopes[Vmid(100)] == CpuSet()
    story.play("4 run 100")
    story.play("30 scan")
    assert kernel(story, 100) == {"0-7"}


def test_limit_of_ours_is_not_put_back_when_the_guest_is_let_go() -> None:
    """Another guest's start widened the group between a scope and its process."""
    guests = {100: ("cores: 2", HOOK), 101: ("cores: 3", HOOK)}
    events = ("0 systemd", "1 scope 100", "2 start 101", "3 run 100", "4 post-start 100")
    story = played("1x1x4x1", guests, *events)
    assert kernel(story, 100) == {"0-3"}
    story.play("30 undo 100")
    assert kernel(story, 100) == {"0-3"}
    assert story.state.tracked.get(Vmid(100)) is None


def test_letting_go_is_tried_again_until_it_is_read_back() -> None:
    """systemd did not answer once, and the guest stayed on our CPUs for ever."""
    events = ("0 start 100", "1 deaf", "2 undo 100", "3 hearing", "30 scan")
    story = played("1x2x4x1", {100: ("cores: 2", HOOK)}, *events)
    assert kernel(story, 100) == {str(story.world.online)}
    assert not story.state.leaving


def test_who_is_leaving_is_kept_over_a_restart() -> None:
    events = ("0 start 100", "1 deaf", "2 undo 100", "3 restart", "4 hearing", "30 scan")
    story = played("1x2x4x1", {100: ("cores: 2", HOOK)}, *events)
    assert kernel(story, 100) == {str(story.world.online)}


def test_threads_of_guest_nodes_are_not_elsewhere() -> None:
    """Each has its guest node's CPUs, and was told at every scan to have been elsewhere."""
    guest = ("cores: 2", "sockets: 2", "numa: 1", HOOK)
    story = played("2x1x4x1", {100: guest}, "0 start 100", "30 scan", "60 scan")
    assert len(kernel(story, 100)) > 1
    assert story.state.tracked[Vmid(100)].drift == 0


def killed_before_it_was_kept(story: Story, vmid: int) -> None:
    """As when SIGKILL comes after the masks were set, before the first look was on disk."""
    kept = json.loads(story.saved)
    kept["tracked"][str(vmid)]["found"] = None
    story.saved = json.dumps(kept)


def test_our_own_masks_are_never_those_found_first() -> None:
    """vCPUs of a pinned guest, or one with nodes, have other masks than the guest as a whole:
    after a SIGKILL these were taken for what was there before us, and undoing gave them back."""
    pinned = ("cores: 2", "tags: cpu-pinned", HOOK)
    nodes = ("cores: 2", "sockets: 2", "numa: 1", HOOK)
    for guest in (pinned, nodes):
        story = played("2x1x4x1", {100: guest}, "0 start 100")
        killed_before_it_was_kept(story, 100)
        for event in ("1 restart", "30 scan", "31 undo 100"):
            story.play(event)
        assert kernel(story, 100) == {str(story.world.online)}


def test_state_file_of_an_earlier_version_is_understood() -> None:
    """One without what is kept since: an upgrade forgot all guests' first masks and last places."""
    story = played("1x2x4x1", {100: ("cores: 2", HOOK)}, "0 start 100")
    kept = json.loads(story.saved)
    del kept["leaving"], kept["ration"], kept["released_runs"]
    for one in kept["tracked"].values():
        del one["part_of"], one["confined_at"], one["void"]
    memory = persist.from_json(kept, boot_id=BOOT)
    assert memory.tracked.keys() == {Vmid(100)}
    assert not memory.leaving


def test_round_robin_guest_measured_anew_selects_anew_after_a_service_restart_too() -> None:
    """The restart forgot that its selection was void: its next start got the old one."""
    guests = dict.fromkeys((100, 101), ("cores: 2", HOOK))
    events = ("0 start 100", "1 start 101", "10 measured", "20 restart", "30 stop 100")
    settings = {"PCA_STRATEGY": "round-robin"}
    assert Vmid(100) not in played("1x1x8x1", guests, *events, settings=settings).state.last_places


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [("turn", "last_start", "0"), ("100", "confined_at", "soon"), ("100", "void", "no")],
)
def test_what_is_not_understood_in_the_state_file_is_not_dropped(
    where: str, key: str, value: str
) -> None:
    """It was taken for what is not known."""
    kept = json.loads(played("1x2x4x1", {100: ("cores: 2", HOOK)}, "0 start 100").saved)
    {**kept, **kept["tracked"]}[where][key] = value
    with pytest.raises(AffinityError):
        persist.from_json(kept, boot_id=BOOT)


def test_guest_whose_cpu_went_while_nobody_looked_is_moved_and_not_forgotten() -> None:
    """CPUs went offline while the service was down: the masks found first were forgotten with the
    placement, and undoing gave all CPUs to threads that had had fewer."""
    events = ("0 run 100", "1 drift 100 4-5", "2 scan", "3 hardware 1x2x4x1+offline=0")
    story = played("1x2x4x1", {100: ("cores: 1", HOOK)}, *events)
    before = story.state.tracked[Vmid(100)]
    assert before.placement.home == CpuSet.parse("0")
    for event in ("4 restart", "30 scan"):
        story.play(event)
    after = story.state.tracked[Vmid(100)]
    assert (after.process, after.found) == (before.process, before.found)
    assert kernel(story, 100) == {str(after.placement.applied)}
    assert not story.state.astray()
    story.play("40 undo 100")
    assert kernel(story, 100) == {"4-5"}


def test_pinned_guest_of_more_vcpus_than_cpus_stays_where_it_is_after_a_loss_of_state() -> None:
    """Its masks cover all CPUs together, and were taken for nobody's."""
    guest = ("cores: 6", "tags: cpu-pinned", HOOK)
    story = played("1x1x4x1", {100: guest}, "0 start 100")
    before = story.state.tracked[Vmid(100)].placement.order
    for event in ("1 restart lost", "2 scan", "30 scan"):
        story.play(event)
    after = story.state.tracked[Vmid(100)]
    assert after.placement.order == before
    assert after.decision is None


def test_scan_moves_who_is_recorded_on_a_cpu_that_is_gone() -> None:
    """A service begins with such a record; to hold it there would only fail."""
    story = played("1x2x4x1", {100: ("cores: 1", HOOK)}, "0 start 100")
    other = played("1x2x4x1+offline=0", {})
    story.play("1 hardware 1x2x4x1+offline=0")
    story.state = replace(story.state, host=other.state.host)
    story.play("30 scan")
    assert not story.state.astray()
    assert kernel(story, 100) == {str(story.state.tracked[Vmid(100)].placement.applied)}


def test_who_was_let_go_is_held_again_in_its_next_run_whoever_was_there_to_see() -> None:
    """Released guests were kept by number only: one that stopped and started while no service ran
    stayed let go."""
    story = played(
        "1x2x4x1", {100: ("cores: 2", HOOK)}, "0 start 100", "1 undo 100", "30 scan", "31 restart"
    )
    story.play("60 scan")
    assert kernel(story, 100) == {str(story.world.online)}
    for event in ("61 vanish 100", "62 run 100", "63 restart", "90 scan"):
        story.play(event)
    assert kernel(story, 100) != {str(story.world.online)}


def test_an_earlier_run_is_let_go_no_more_when_there_is_another() -> None:
    """A scan that had begun long before named the earlier run, whose letting go had failed."""
    story = played("1x2x4x1", {100: ("cores: 2", HOOK)}, "0 start 100", "1 look", "2 vanish 100")
    story.play("3 undo 100")
    assert story.state.leaving
    story.play("4 start 100")
    assert not story.state.leaving
    story.play("5 scan")
    assert kernel(story, 100) != {str(story.world.online)}


NUMA = ("numa: 1", "hotplug: cpu", HOOK)
EXACT = {"PCA_WIDTH": "exact"}


def test_dedicated_guest_with_nodes_that_grows_where_no_cpu_is_left_shares_its_own() -> None:
    """Its vCPUs went on naming parts that there were not any more: confining it failed, and so did
    reading the state after a restart."""
    dedicated = ("cores: 2", "sockets: 2", "vcpus: 3", "tags: cpu-dedicated", *NUMA)
    events = ("0 start 100", "1 start 101", "10 set 100 vcpus: 4", "11 spawn 100 CPU 3/KVM")
    guests = {100: dedicated, 101: ("cores: 5", HOOK)}
    story = played("2x1x4x1", guests, *events, "30 scan", settings=EXACT)
    home = story.state.tracked[Vmid(100)].placement.home
    assert len(home) == 3
    assert kernel(story, 100) == {str(home)}
    for event in ("40 restart", "41 scan"):
        story.play(event)
    assert story.state.tracked[Vmid(100)].placement.home == home


def test_guest_that_lost_all_but_its_second_node_stays_where_that_one_is() -> None:
    """Its memory is there; and its nodes are told apart by their vCPUs, not by their numbers."""
    lines = ("numa0: cpus=2-3,memory=512", "numa1: cpus=0-1,memory=512")
    guests = {100: ("cores: 4", "vcpus: 4", *lines, *NUMA)}
    story = played("2x1x4x1", guests, "0 start 100", settings=EXACT)
    full = story.state.tracked[Vmid(100)].placement
    assert full.parts[0] != full.parts[1]
    for event in ("10 set 100 vcpus: 2", "30 scan"):
        story.play(event)
    assert kernel(story, 100) == {str(full.parts[1])}
    for event in ("40 set 100 vcpus: 4", "60 scan"):
        story.play(event)
    again = story.state.tracked[Vmid(100)].placement
    assert again.parts[1] == full.parts[1]
    assert not again.parts[0] & full.parts[1]


def test_guest_bound_to_a_host_node_is_moved_on_it_only() -> None:
    """Its memory is bound there: a stop on the other node drew its CPUs away from it."""
    bound = ("cores: 2", "numa0: cpus=0-1,hostnodes=0,memory=512,policy=bind", *NUMA)
    guests = {100: bound, 101: bound, 102: ("cores: 2", HOOK)}
    on = {"PCA_REBALANCE": "on", **EXACT}
    events = ("0 start 100", "1 start 101", "2 start 102", "100 stop 102")
    story = played("2x1x2x1", guests, *events, settings=on)
    assert kernel(story, 100) == kernel(story, 101) == {"0-1"}


def test_answer_about_the_scope_of_a_start_that_failed_is_not_of_the_next_start() -> None:
    """It was taken for its own: a warning that CPUs 0-1 are not 0-1, or no drop-in any more."""
    guests = {100: ("cores: 2", HOOK)}
    story = played("1x2x4x1", guests, "0 systemd", "1 scope 100", "2 scope-gone 100")
    story.play("3 pre-start 100")
    wanted = story.state.tracked[Vmid(100)].placement.applied
    for effective in (wanted, None):
        assert step(story.state, Enclosed(4.0, Vmid(100), wanted, effective)) == (story.state, ())


def test_guest_that_is_adopted_is_not_refused_any_more() -> None:
    """`ps` went on saying why it has no CPUs, beside those that it has."""
    guests = {100: ("cores: 4", "tags: cpu-dedicated", HOOK), 101: ("cores: 2", HOOK)}
    events = ("0 start 101", "1 restart lost", "2 start 100", "3 post-start 101")
    story = played("1x1x4x1", guests, *events, settings=EXACT)
    assert Vmid(101) in story.state.refused
    for event in ("4 die 100", "5 scan"):
        story.play(event)
    assert Vmid(101) in story.state.tracked
    assert not story.state.refused


def test_scope_of_a_start_that_took_too_long_is_let_go() -> None:
    """Its CPUs were free for others, and what began in it later was still held on them."""
    guest = ("cores: 2", HOOK)
    story = played("1x2x4x1", {100: guest}, "0 systemd", "1 scope 100", "130 scan")
    assert Vmid(100) not in story.state.tracked
    assert story.world.scopes[Vmid(100)] == CpuSet()
    for event in ("131 set 100 tags: cpu-affinity-off", "132 run 100", "160 scan"):
        story.play(event)
    assert kernel(story, 100) == {"0-7"}
