"""`explain`'s words, on decisions that the real engine and brain made on generated hosts."""

from dataclasses import replace

import pytest

from proxmox_cpu_affinity.cli.explaining import WHOLE_GROUP, Explanation, explanation
from proxmox_cpu_affinity.engine.facts import Rules, compile_host
from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.formats import wire
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess, Manage
from proxmox_cpu_affinity.model.ids import Pid, Tid, Vmid
from proxmox_cpu_affinity.model.placement import (
    Confined,
    Confinement,
    Outcome,
    Strategy,
    ThreadFault,
    Width,
)
from proxmox_cpu_affinity.reconcile import State, step
from proxmox_cpu_affinity.reconcile.events import Confirmed, HookCalled, Phase, ReassignAsked
from proxmox_cpu_affinity.service import outcomes, persist, views
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec


class Stage:
    """A host and its guests; starts go through the brain, effects are taken for granted."""

    def __init__(
        self,
        spec: str,
        *,
        strategy: Strategy = Strategy.BALANCED,
        width: Width = Width.EXACT,
    ) -> None:
        self.topology = topology(generate(parse_spec(spec)))
        rules = Rules(strategy, width=width)
        host = compile_host(self.topology, predicted(self.topology), rules)
        self.state = State(host, Manage.ALL)

    def start(self, vmid: int, vcpus: int, *, faults: int = 0, threads: int = 5) -> None:
        config = GuestConfig(Vmid(vmid), name=f"g{vmid}", cores=vcpus)
        process = GuestProcess(Vmid(vmid), Pid(10 * vmid), 7)
        for phase, seen in ((Phase.PRE_START, None), (Phase.POST_START, process)):
            self.state, _ = step(self.state, HookCalled(1.0, Vmid(vmid), phase, config, seen))
        tracked = self.state.tracked.get(Vmid(vmid))
        if tracked is None:
            return
        outcome = Outcome.FULL if not faults else Outcome.PART
        outcome = Outcome.FAILED if faults == threads else outcome
        refused = tuple(ThreadFault(Tid(i), f"iou-wrk-{i}", "Invalid") for i in range(faults))
        confined = Confined(
            process,
            tracked.placement.applied,
            outcome,
            Confinement.THREADS,
            threads,
            refused,
        )
        self.state, _ = step(self.state, Confirmed(2.0, confined))

    def explain(self, vmid: int) -> Explanation:
        guests = [views.guest(self.state, config) for config in self.state.configs.values()]
        return explanation(
            vmid,
            guests=guests,
            guest=next(guest for guest in guests if guest.vmid == vmid),
            decisions=views.decisions(self.state, ()),
            topology=views.topology(self.topology),
        )

    def restart(self) -> None:
        """The service ends and begins again with what it kept."""
        kept = persist.from_json(persist.to_json(self.state, boot_id="one"), boot_id="one")
        fresh = State(self.state.host, self.state.manage, configs=self.state.configs)
        self.state = replace(fresh, tracked=kept.tracked, turn=kept.turn)

    def words(self, vmid: int) -> dict[str, str]:
        return dict(self.explain(vmid).words)


def test_a_guest_alone_got_the_first_of_equals() -> None:
    stage = Stage("1x2x2x1")
    stage.start(100, 2)
    said = stage.words(100)
    assert said["Asked for"] == "2 vCPUs, policy shared, managed by PCA_MANAGE=all"
    assert said["Got"] == "CPUs 0-1 (cache group 0, node 0)"
    assert (
        said["Held"]
        == "by the mask of every thread, since it was up: 5 threads read back, all on them"
    )
    assert said["Why"].endswith("as cheap as CPUs 2-3, and first in turn")
    assert said["Neighbours"] == "none in its cache groups"
    assert said["Elsewhere"] == "CPUs 2-3 (cache group 1) +0.0000"
    assert "Outside" not in said
    assert "Warnings" not in said


def test_the_winner_is_told_by_its_weightiest_terms() -> None:
    stage = Stage("1x1x2x1")
    stage.start(100, 1)
    stage.start(101, 1)
    found = stage.explain(101)
    said = dict(found.words)
    assert found.guest.cpus == "1"
    assert said["Why"] == (
        "the cheapest of the candidates: 0.5000 cheaper than CPU 0, "
        "by other guests on the same CPUs (0.5000)"
    )
    (other,) = found.elsewhere
    assert (other.cpus, other.more, other.origin) == ("0", 0.5, "cache group 0")
    assert said["Elsewhere"] == "CPU 0 (cache group 0) +0.5000"
    assert found.decision is not None
    assert [c.cpus for c in found.decision.candidates] == ["1", "0"]


def test_neighbours_are_named_once_at_their_nearest() -> None:
    stage = Stage("1x2x2x2")  # siblings: 0/4, 1/5, 2/6, 3/7; groups: 0,1 and 2,3
    for vmid, vcpus in ((100, 4), (101, 4), (102, 1)):
        stage.start(vmid, vcpus)
    found = stage.explain(102)
    held = {
        g: CpuSet.parse(views.guest(stage.state, c).cpus) for g, c in stage.state.configs.items()
    }
    beside = found.neighbours
    named = [*beside.same_cpus, *beside.smt_siblings, *beside.cache_groups]
    assert len(named) == len(set(named))
    assert beside.same_cpus == [g for g in (100, 101) if held[Vmid(g)].overlaps(held[Vmid(102)])]
    assert len(beside.same_cpus) == 1
    assert f"VM {beside.same_cpus[0]} on the same CPUs" in dict(found.words)["Neighbours"]


def test_a_neighbour_on_the_sibling_is_not_one_of_the_cache_group() -> None:
    stage = Stage("1x2x1x2")
    for vmid in (100, 101, 102):
        stage.start(vmid, 1)
    beside = stage.explain(102).neighbours
    assert beside.same_cpus == []
    assert len(beside.smt_siblings) == 1
    assert beside.cache_groups == []
    assert "on SMT siblings of its CPUs" in stage.words(102)["Neighbours"]


@pytest.mark.parametrize(
    ("faults", "held"),
    [
        (2, "by the mask of every thread, since it was up, in part: 3 of 5 threads on them"),
        (5, "by nothing: no thread is on them"),
    ],
)
def test_threads_outside_are_named(faults: int, held: str) -> None:
    stage = Stage("1x1x2x1")
    stage.start(100, 1, faults=faults)
    said = stage.words(100)
    assert said["Held"] == held
    assert said["Outside"].split("; ") == [f"iou-wrk-{i}: Invalid" for i in range(faults)]


def test_an_old_place_that_was_kept_is_told() -> None:
    stage = Stage("1x1x4x1")
    stage.start(100, 1)
    stage.start(101, 1)
    stage.state, _ = step(
        stage.state,
        HookCalled(3.0, Vmid(100), Phase.POST_STOP, stage.state.configs[Vmid(100)], None),
    )
    stage.start(100, 1)
    said = stage.words(100)
    assert said["Got"].startswith("CPU 0 ")
    assert said["Why"].startswith("its old place: nothing is clearly better: ")


def test_round_robin_has_no_candidates_and_says_its_rule() -> None:
    stage = Stage("1x1x4x1", strategy=Strategy.ROUND_ROBIN)
    stage.start(100, 2)
    found = stage.explain(100)
    assert dict(found.words)["Why"] == "CPU 1 is next in turn, with its nearest neighbours"
    assert found.elsewhere == []


def test_a_guest_that_found_no_place_says_why() -> None:
    stage = Stage("1x1x2x1", strategy=Strategy.ROUND_ROBIN)
    stage.start(100, 9)
    said = stage.words(100)
    assert said["Got"].startswith("no CPUs: 9 vCPUs are more than the 2 usable CPUs")
    assert "Why" not in said


def test_where_nothing_could_be_chosen_nothing_is_priced() -> None:
    stage = Stage("1x1x2x1")
    stage.start(100, 3)
    stage.restart()
    found = stage.explain(100)
    assert found.decision is not None
    assert found.decision.candidates == []
    assert dict(found.words)["Why"] == (
        "decided, or found so, before the service was started; "
        "there is no other place to choose now"
    )
    assert found.elsewhere == []


def test_a_guest_larger_than_the_host_has_its_warning() -> None:
    stage = Stage("1x1x2x1")
    stage.start(100, 3)
    said = stage.words(100)
    assert said["Why"] == "it has more vCPUs than there are usable CPUs"
    assert said["Warnings"] == "3 vCPUs on 2 usable CPUs: they share"


def test_a_reservation_is_told_from_a_run() -> None:
    stage = Stage("1x1x2x1")
    config = GuestConfig(Vmid(100))
    stage.state, _ = step(stage.state, HookCalled(1.0, Vmid(100), Phase.PRE_START, config, None))
    said = stage.words(100)
    assert said["Got"].endswith("reserved for a start that is under way")
    assert "Held" not in said


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        (GuestConfig(Vmid(100), template=True), "nothing: it is a template"),
        (GuestConfig(Vmid(100), affinity="0"), "nothing: `affinity:` is set in its configuration"),
        (GuestConfig(Vmid(100), tags=("cpu-affinity-off",)), "nothing: it has the tag "),
    ],
)
def test_a_guest_that_is_not_ours_says_why(config: GuestConfig, asked: str) -> None:
    stage = Stage("1x1x2x1")
    stage.state = replace(stage.state, configs={Vmid(100): config})
    said = stage.words(100)
    assert said["Asked for"].startswith(asked)
    assert said["Got"] == "no CPUs: it does not run"


def test_a_guest_that_was_not_chosen_is_told_how_to_change_that() -> None:
    stage = Stage("1x1x2x1")
    config = GuestConfig(Vmid(100))
    stage.state = replace(stage.state, configs={Vmid(100): config}, manage=Manage.HOOK)
    view = views.guest(stage.state, config)
    assert (view.reason_code, view.managed) == ("not chosen", False)
    assert "(to change that: hookscript enable 100)" in stage.words(100)["Asked for"]


def test_a_guest_that_was_let_go_says_so() -> None:
    stage = Stage("1x1x2x1")
    stage.start(100, 1)
    stage.state, _ = step(stage.state, ReassignAsked(4.0, Vmid(100), undo=True))
    config = stage.state.configs[Vmid(100)]
    view = views.guest(stage.state, config, GuestProcess(Vmid(100), Pid(1000), 7))
    assert view.reason_code == wire.RELEASED
    found = explanation(
        100, guests=[view], guest=view, decisions=[], topology=views.topology(stage.topology)
    )
    assert dict(found.words)["Got"] == "no CPUs of ours: let go by hand until its next start"


def test_decisions_that_hold_come_first_and_none_comes_twice() -> None:
    stage = Stage("1x1x4x1")
    for vmid in (101, 100):
        stage.start(vmid, 1)
    own = {v: t.decision for v, t in stage.state.tracked.items()}
    older = own[Vmid(100)]
    assert older is not None
    stage.start(100, 1)
    standing = stage.state.tracked[Vmid(100)].decision
    first = own[Vmid(101)]
    assert first is not None
    assert standing is not None
    kept = [("t2", Vmid(100), standing), ("t1", Vmid(100), older)]
    found = views.decisions(stage.state, kept)
    assert [(d.vmid, d.time, d.current) for d in found] == [
        (100, "t2", True),
        (101, "", True),  # older than all that were kept
        (100, "t1", False),
    ]


def test_after_a_restart_places_are_priced_anew() -> None:
    """What was decided is not kept; what it would be now is, beside the guests of now."""
    stage = Stage("1x2x4x1")
    stage.start(100, 3)
    stage.start(101, 2)
    then = stage.explain(100)
    stage.restart()
    stage.start(102, 2)
    found = stage.explain(100)
    assert then.decision is not None
    assert found.decision is not None
    assert (then.decision.recomputed, found.decision.recomputed) == (False, True)
    assert (found.decision.current, found.decision.time) == (True, "")
    assert found.decision.cpus == then.decision.cpus == found.guest.cpus
    said = dict(found.words)
    assert said["Why"].startswith(
        "decided, or found so, before the service was started; "
        "priced now, beside the guests that are there now: "
    )
    assert found.elsewhere
    assert all(place.more is not None for place in found.elsewhere)
    assert said["Neighbours"] == dict(stage.explain(100).words)["Neighbours"]
    terms = {c.cpus: c for c in found.decision.candidates}
    assert terms[found.guest.cpus].contention == 0
    assert dict(stage.explain(102).words)["Why"].startswith("the cheapest of the candidates")


def test_a_guest_that_was_adopted_has_candidates() -> None:
    """Nobody ever decided about it here."""
    stage = Stage("1x1x4x1")
    stage.start(100, 2)
    tracked = stage.state.tracked[Vmid(100)]
    stage.state = stage.state.with_tracked(Vmid(100), replace(tracked, decision=None))
    found = stage.explain(100)
    assert found.decision is not None
    assert found.guest.cpus in [c.cpus for c in found.decision.candidates]


def test_decisions_of_one_guest_are_those_alone() -> None:
    stage = Stage("1x1x4x1")
    for vmid in (100, 101):
        stage.start(vmid, 1)
    made = stage.state.tracked[Vmid(100)].decision
    assert made is not None
    kept = [("t1", Vmid(100), made), ("t0", Vmid(101), replace(made, reason="older"))]
    (own, older) = views.decisions(stage.state, kept, Vmid(101))
    assert (own.vmid, own.current) == (101, True)
    assert (older.time, older.told) == ("t0", "CPU 0: older")
    assert views.decisions(stage.state, kept, Vmid(999)) == []


def test_width_is_said_with_its_reason() -> None:
    stage = Stage("1x1x4x1", width=Width.AUTO)
    stage.start(100, 4)
    assert stage.words(100)["Width"] == (
        "host committed 100 %, no vCPUs share CPUs in L3 0: exact, CPUs 0-3"
    )
    stage.start(101, 2)
    assert stage.words(100)["Width"] == "host committed 150 %: floats in L3 0, CPUs 0-3"
    found = stage.explain(101)
    assert dict(found.words)["Width"] == "host committed 150 %: floats in L3 0, CPUs 0-3"
    assert found.decision is not None
    assert found.decision.width == found.guest.width_why == dict(found.words)["Width"]
    assert found.guest.width == "domain"


def test_small_exact_guests_are_told_what_their_group_would_bring() -> None:
    """What the comparison on real kernels showed, and of no other guest."""
    stage = Stage("1x1x8x1")
    for vmid, vcpus in ((100, 1), (101, 2), (102, 3)):
        stage.start(vmid, vcpus)
    told = [WHOLE_GROUP in stage.words(vmid)["Width"] for vmid in (100, 101, 102)]
    assert told == [True, True, False]
    wide = Stage("1x1x8x1", width=Width.DOMAIN)
    wide.start(100, 1)
    assert WHOLE_GROUP not in wide.words(100)["Width"]


def test_the_hooks_line_says_the_width_in_the_same_words() -> None:
    stage = Stage("1x1x4x1", width=Width.AUTO)
    for vmid in (100, 101):
        stage.start(vmid, 3)
    why = "host committed 150 %: floats in L3 0, CPUs 0-3"
    assert outcomes.hook_started(stage.state, Vmid(101), announced=True).line.startswith("CPUs ")
    for announced in (True, False):
        line = outcomes.hook_started(stage.state, Vmid(101), announced=announced).line
        assert line.count(why) == 1


def test_a_guest_that_was_moved_is_compared_with_what_is_there_now() -> None:
    """Why it moved stays; the candidates were none, and are those of now."""
    stage = Stage("1x2x4x1")
    stage.start(100, 2)
    tracked = stage.state.tracked[Vmid(100)]
    moved = Decision(tracked.placement, (), "from CPUs 4-5: less beside it")
    stage.state = stage.state.with_tracked(Vmid(100), replace(tracked, decision=moved))
    found = stage.explain(100)
    assert found.decision is not None
    assert found.decision.recomputed
    assert found.decision.told == "CPUs 0-1: from CPUs 4-5: less beside it"
    assert dict(found.words)["Why"].startswith("from CPUs 4-5: less beside it: as cheap as ")
    assert found.elsewhere


def test_undo_that_could_not_be_begun_is_no_undo_of_nothing() -> None:
    """It said `nothing to undo` of a guest that is held still."""
    answers = [outcomes.let_go(Vmid(101), None, before="0", leaving=one) for one in (False, True)]
    assert [(row.status, row.notes) for row in answers] == [
        ("skipped", "nothing to undo"),
        ("failed", "not let go yet: each scan tries again"),
    ]
