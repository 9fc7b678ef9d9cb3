"""What steps of the brain are told as: a guest's history gives its events, in the log's words; and
what is counted of them."""

from dataclasses import replace

import pytest

from proxmox_cpu_affinity.engine.facts import Host, Rules, compile_host
from proxmox_cpu_affinity.engine.score import guest_scores, score
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.formats.wire_events import GuestEvent
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.guest import GuestConfig, GuestProcess, Manage
from proxmox_cpu_affinity.model.ids import Pid, Tid, Vmid
from proxmox_cpu_affinity.model.placement import (
    Confined,
    Confinement,
    Held,
    Outcome,
    ThreadFault,
    Weights,
)
from proxmox_cpu_affinity.reconcile import State, step
from proxmox_cpu_affinity.reconcile.events import (
    Confirmed,
    Enclosed,
    Event,
    HookCalled,
    HostChanged,
    ManageChanged,
    Phase,
    ProcessEnded,
    ReassignAsked,
    Scanned,
    ScopeAppeared,
)
from proxmox_cpu_affinity.service import persist, views
from proxmox_cpu_affinity.service.figures import Figures
from proxmox_cpu_affinity.service.happenings import happened
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

BORN = 5000  # clock ticks after boot at which guests begin: 50 s
FAULT = (ThreadFault(Tid(1), "iou-wrk", "Invalid argument"),)


def host(spec: str, reserved: str = "") -> Host:
    found = topology(generate(parse_spec(spec)))
    cpus = CpuSet.parse(reserved) if reserved else CpuSet(0)
    return compile_host(found, predicted(found), Rules(reserved=cpus))


class History:
    """Guests of a host, and what was told of each step."""

    def __init__(self, spec: str = "1x2x2x1") -> None:
        self.state = State(host(spec), Manage.ALL)
        self.figures = Figures(began=0.0)
        self.now = 50.0

    def feed(self, event: Event) -> list[GuestEvent]:
        before = self.state
        self.state, actions = step(before, event)
        told = list(happened(before, self.state, actions, time="now"))
        self.figures.told(told)
        if isinstance(event, Confirmed):
            self.figures.confined(before, self.state, event.confined)
        return told

    def process(self, vmid: int) -> GuestProcess:
        return GuestProcess(Vmid(vmid), Pid(10 * vmid), BORN)

    def hook(self, vmid: int, phase: Phase, *, cores: int = 1) -> list[GuestEvent]:
        config = GuestConfig(Vmid(vmid), cores=cores)
        seen = self.process(vmid) if phase is Phase.POST_START else None
        return self.feed(HookCalled(self.now, Vmid(vmid), phase, config, seen))

    def read_back(
        self, vmid: int, outcome: Outcome = Outcome.FULL, *, found: str = ""
    ) -> list[GuestEvent]:
        """All three threads; `found`: the mask that the first of them had."""
        wanted = self.state.tracked[Vmid(vmid)].placement.applied
        masks = [CpuSet.parse(found) if found else wanted, wanted, wanted]
        confined = Confined(
            process=self.process(vmid),
            wanted=wanted,
            outcome=outcome,
            confinement=Confinement.THREADS,
            threads=3,
            faults=() if outcome is Outcome.FULL else FAULT,
            found=tuple((Tid(i), mask) for i, mask in enumerate(masks)),
        )
        return self.feed(Confirmed(self.now, confined))

    def started(self, vmid: int, *, cores: int = 1) -> None:
        self.hook(vmid, Phase.PRE_START, cores=cores)
        self.hook(vmid, Phase.POST_START, cores=cores)
        self.read_back(vmid)


def only(told: list[GuestEvent]) -> GuestEvent:
    assert len(told) == 1, told
    return told[0]


def test_a_start_is_placed_then_confined_then_gone() -> None:
    history = History()
    placed = only(history.hook(100, Phase.PRE_START))
    assert (placed.what, placed.outcome, placed.level) == ("placed", "reserved", "info")
    assert placed.text.startswith(f"CPU {placed.cpus}: ")
    assert history.hook(100, Phase.POST_START) == []
    confined = only(history.read_back(100))
    assert (confined.what, confined.outcome) == ("confined", "full")
    assert confined.text == f"3 threads read back on CPU {placed.cpus}"
    gone = only(history.feed(ProcessEnded(60.0, history.process(100))))
    assert (gone.what, gone.cpus, gone.outcome) == ("gone", "", "")
    assert gone.text == f"stopped: CPU {placed.cpus} free again"
    assert history.figures.events["placed"] == history.figures.events["gone"] == 1


def test_a_start_that_is_announced_again_is_placed_again() -> None:
    history = History()
    for cores in (1, 1, 2):  # nobody is moved who does not run
        assert only(history.hook(100, Phase.PRE_START, cores=cores)).what == "placed"


def test_a_part_is_a_warning_and_the_rest_is_told_when_it_comes() -> None:
    history = History()
    history.hook(100, Phase.PRE_START)
    history.hook(100, Phase.POST_START)
    told = only(history.read_back(100, Outcome.PART))
    assert (told.what, told.outcome, told.level) == ("confined", "part", "warn")
    assert history.read_back(100, Outcome.PART) == []
    assert only(history.read_back(100)).outcome == "full"
    assert history.figures.outcomes == {"full": 1, "part": 2, "failed": 0}


def test_what_was_moved_about_is_repaired_and_counted() -> None:
    history = History()
    history.started(100)
    assert history.read_back(100) == []
    told = only(history.read_back(100, found="3"))
    assert (told.what, told.text) == (
        "repaired",
        f"1 thread was elsewhere; all 3 read back on CPU {told.cpus}",
    )
    history.read_back(100)
    history.read_back(100, found="3")
    assert history.state.tracked[Vmid(100)].drift == 2


def test_a_first_look_is_no_drift() -> None:
    history = History()
    history.hook(100, Phase.PRE_START)
    history.hook(100, Phase.POST_START)
    assert only(history.read_back(100, found="0-3")).what == "confined"
    assert history.state.tracked[Vmid(100)].drift == 0


def test_a_lost_cpu_moves_who_was_on_it_and_nobody_else() -> None:
    history = History()
    history.started(100)
    history.started(101)
    lost = history.state.tracked[Vmid(100)].placement.home
    told = only(history.feed(HostChanged(70.0, host("1x2x2x1", str(lost)), switched=True)))
    assert (told.vmid, told.what, told.outcome) == (100, "moved", "pending")
    assert told.cpus != str(lost)


def test_a_refusal_says_why_and_says_it_once() -> None:
    history = History()
    history.state = replace(history.state, host=host("1x2x2x1", "0-3"))
    told = only(history.hook(100, Phase.PRE_START))
    assert (told.what, told.level, told.cpus) == ("refused", "warn", "")
    assert "no CPU may be used" in told.text
    scan = Scanned(90.0, history.state.configs, {Vmid(100): history.process(100)})
    history.feed(scan)
    assert history.feed(replace(scan, time=120.0)) == []


def test_who_is_let_go_is_released() -> None:
    history = History()
    history.started(100)
    history.started(101)
    told = only(history.feed(ReassignAsked(60.0, Vmid(100), undo=True)))
    assert (told.what, told.text.startswith("no longer on CPU")) == ("released", True)
    told = only(history.feed(ManageChanged(61.0, Manage.HOOK)))
    assert (told.vmid, told.what, told.text) == (101, "released", "not to be managed any more")


# -- how long it took ------------------------------------------------------------------------------


def test_the_time_until_confined_is_that_of_the_first_good_reading() -> None:
    history = History()
    history.hook(100, Phase.PRE_START)
    history.hook(100, Phase.POST_START)
    history.now = 50.5
    history.read_back(100, Outcome.PART)
    assert views.confined_after(history.state.tracked[Vmid(100)]) is None
    history.now = 52.25
    history.read_back(100)
    history.now = 80.0
    history.read_back(100, found="3")
    assert views.confined_after(history.state.tracked[Vmid(100)]) == 2.25
    assert (sum(history.figures.started.counts), history.figures.started.total) == (1, 2.25)


def test_it_outlives_the_service_and_is_unknown_where_nobody_kept_it() -> None:
    history = History()
    history.hook(100, Phase.PRE_START)
    history.hook(100, Phase.POST_START)
    history.now = 51.0
    history.read_back(100)
    kept = persist.to_json(history.state, boot_id="b")
    tracked = persist.from_json(kept, boot_id="b").tracked
    assert views.confined_after(tracked[Vmid(100)]) == 1.0
    of_old = kept["tracked"]
    assert isinstance(of_old, dict)
    del of_old["100"]["confined_at"]
    later = History()
    later.state = replace(later.state, tracked=persist.from_json(kept, boot_id="b").tracked)
    for later.now in (90.0, 120.0):
        later.read_back(100)
        assert views.confined_after(later.state.tracked[Vmid(100)]) is None
    assert sum(later.figures.started.counts) == 0


def test_a_scope_is_held_when_it_is_enclosed_and_from_birth_at_once() -> None:
    for allowed, held, seconds in (("", Held.SCOPE, 0.25), ("same", Held.BIRTH, 0.0)):
        history = History()
        history.feed(ScopeAppeared(50.1, Vmid(100), None, None))  # nothing is known of it yet
        history.hook(100, Phase.PRE_START)
        cpus = history.state.tracked[Vmid(100)].placement.applied
        config = history.state.configs[Vmid(100)]
        born = cpus if allowed else None
        history.feed(ScopeAppeared(50.1, Vmid(100), config, None, born))
        history.feed(Enclosed(50.25, Vmid(100), cpus, cpus))
        history.now = 53.0
        history.hook(100, Phase.POST_START)
        history.read_back(100)
        tracked = history.state.tracked[Vmid(100)]
        assert (tracked.held, views.confined_after(tracked)) == (held, seconds)
        assert (sum(history.figures.started.counts), history.figures.started.total) == (1, seconds)


def test_what_ran_before_the_service_is_in_no_histogram() -> None:
    history = History()
    history.figures.began = 49.0
    history.now = 60.0
    history.started(100)
    assert sum(history.figures.started.counts) == 1
    history.figures.began = 55.0
    history.started(101)
    assert sum(history.figures.started.counts) == 1


# -- scores of single guests -----------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["1x2x2x1", "2x2x4x2", "1x1x4x2+4e+2lp"])
@pytest.mark.parametrize("sizes", [(1,), (2, 2, 1), (4, 8, 3, 1, 1), (16, 9, 5)])
def test_the_mean_of_the_guests_scores_is_the_hosts(spec: str, sizes: tuple[int, ...]) -> None:
    history = History(spec)
    for i, size in enumerate(sizes):
        history.started(100 + i, cores=size)
    placements = [tracked.placement for tracked in history.state.tracked.values()]
    scores = guest_scores(history.state.host, placements)
    whole = score(history.state.host, placements)
    assert whole is not None
    vcpus = sum(len(p.order) for p in placements)
    mean = sum(scores[p.vmid][0] * len(p.order) for p in placements) / vcpus
    assert mean == pytest.approx(whole.slowdown)
    for placement in placements:
        mine, bound = scores[placement.vmid]
        few = len(placement.order) <= len(history.state.host.usable)
        assert mine >= bound - 1e-9 or not few


def test_guests_without_neighbours_lose_what_they_would_alone() -> None:
    history = History("1x2x4x1")
    history.started(100, cores=4)
    history.started(101, cores=4)
    scores = guest_scores(
        history.state.host, [tracked.placement for tracked in history.state.tracked.values()]
    )
    assert all(mine == pytest.approx(bound) for mine, bound in scores.values())
    assert history.state.host.rules.weights == Weights()
