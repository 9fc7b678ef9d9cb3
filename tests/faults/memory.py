"""Histories against the brain alone: kernel, systemd, PVE's files and the disk are in memory.

Each happening is played as the scenarios' words, so a history that fails can become a scenario.
What must hold is checked after each; at the end every fault is over, and two scans later nothing
may be wrong, unheld or left.
"""

from collections.abc import Callable

from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.reconcile.actions import Action, Save
from tests.faults.history import HOOKS, TAGS, Happening, History, Kind
from tests.scenarios.invariants import check_drop_ins, check_node, check_step, plain, unanswered
from tests.scenarios.scenario import Scenario
from tests.scenarios.story import Story
from tests.scenarios.world import NODE

HOST = "2x1x2x2"
OTHER_HOSTS = (HOST, HOST, "2x1x2x2+offline=3", "2x1x2x2+offline=0,4", "2x1x2x2+offline=0-1,3-7")
HOOK = "hookscript: local:snippets/proxmox-cpu-affinity-hook"
GUESTS = {
    Vmid(100): ("cores: 2", HOOK),
    Vmid(101): ("cores: 1", "tags: cpu-affinity"),
    Vmid(102): ("cores: 4", "sockets: 2", "numa: 1", HOOK),
    Vmid(103): ("cores: 3",),
    Vmid(104): ("cores: 16", "tags: cpu-affinity;cpu-pinned"),
}
EDITS = ("affinity: 0-1", "template: 1", "template: 0", "cores: 2", "cores: 5", "hotplug: cpu")
SERVICE = (
    "MANAGE hook",
    "MANAGE tag",
    "MANAGE all",
    "RESERVED_CPUS 0-3",
    "RESERVED_CPUS 0-7",
    "RESERVED_CPUS",
    "STRATEGY round-robin",
    "STRATEGY balanced",
    "WIDTH exact",
    "WIDTH domain",
    "WIDTH auto",
    "REBALANCE on",
    "DEDICATED_FALLBACK shared",
)


class Faulty(Story):
    """A service that may be stopped, and whose disk may be full."""

    def __init__(self) -> None:
        super().__init__(Scenario(HOST, {}, GUESTS, ()))
        self.full = self.frozen = False
        self.late: list[str] = []  # what comes when it goes on

    @property
    def sees(self) -> bool:
        """Whether a scan that begins now reads the truth and can mend it."""
        able = not self.frozen and self.world.mounted and not self.world.deaf
        return able and self._looked is None

    def _carry_out(self, action: Action, now: float) -> None:
        if not (self.full and isinstance(action, Save)):
            super()._carry_out(action, now)

    def _restart(self, how: str = "") -> None:
        self.frozen = False
        self.late.clear()
        # What was not written before a SIGKILL is not known after it.
        self.forgot |= self.saved != self._written()
        super()._restart(how)


def play(story: Faulty, history: History) -> None:
    """Play a history, checked at each step. AssertionError where the brain is wrong, and any other
    where it fails."""
    story.each_step = check_step
    now = 0.0
    for happening in history:
        now += happening.after
        sees = story.sees
        for words in _words(story, happening):
            story.play(f"{now} {words}")
        if not story.frozen:
            check_drop_ins(story)
        if happening.kind is Kind.SCAN and sees:
            check_node(story)
    _ends_well(story, now)


def fails(history: History) -> bool:
    try:
        play(Faulty(), history)
    except Exception:
        return True
    return False


def _ends_well(story: Faulty, now: float) -> None:
    """Whatever was wrong is over. Three scans: the first may have begun long ago, the second let go
    of somebody who has ended since."""
    over = (Kind.THAW, Kind.MOUNT, Kind.ROOM, Kind.HEARING)
    for kind in over:
        for words in _words(story, Happening(0, kind, 100, 0)):
            story.play(f"{now} {words}")
    for vmid in story.world.guests:
        story.play(f"{now} readable {vmid}")
    for wait in (200, 400, 500):
        story.play(f"{now + wait} scan")
    check_node(story)
    check_drop_ins(story)
    before = plain(unanswered(story.state))
    story.play(f"{now + 600} scan")
    assert plain(unanswered(story.state)) == before, "a further scan finds something to do"


# -- a happening in the scenarios' words -----------------------------------------------------------


def _words(story: Faulty, happening: Happening) -> list[str]:
    """The words for it, none where it cannot happen now."""
    vmid = Vmid(happening.vmid)
    kind, which = happening.kind, happening.which
    if kind in _GUEST:
        return _GUEST[kind](story, vmid, which)
    return _SERVICE[kind](story, which)


def _runs(story: Faulty, vmid: Vmid) -> bool:
    return story.world.process(vmid) is not None


def _heard(story: Faulty, *words: str) -> list[str]:
    """Words that reach the service now, or when it goes on."""
    if not story.frozen:
        return list(words)
    story.late += words
    return []


def _start(story: Faulty, vmid: Vmid, which: int) -> list[str]:
    # No start without a configuration: PVE cannot read it either.
    config = story.world.config(vmid)
    here = story.world.mounted and config is not None and config.node == NODE
    if _runs(story, vmid) or not here:
        return []
    if story.frozen:
        return [*_heard(story, f"pre-start {vmid}", f"post-start {vmid}"), f"run {vmid}"]
    return (
        [f"start {vmid}"],
        [f"boot {vmid}"],
        [f"run {vmid}"],
        [f"pre-start {vmid}"],  # and then it does not start
        [f"pre-start {vmid}", f"scope {vmid}"],
    )[which % 5]


def _stop(story: Faulty, vmid: Vmid, which: int) -> list[str]:
    if not _runs(story, vmid):
        return [f"scope-gone {vmid}"] if vmid in story.world.scopes and not story.frozen else []
    if story.frozen:
        return [*_heard(story, f"post-stop {vmid}"), f"vanish {vmid}"]
    return ([f"stop {vmid}"], [f"die {vmid}"])[which % 2]


def _crash(story: Faulty, vmid: Vmid, which: int) -> list[str]:
    unheard = which % 2 or story.frozen
    return [f"{'vanish' if unheard else 'die'} {vmid}"] if _runs(story, vmid) else []


def _reboot(story: Faulty, vmid: Vmid, which: int) -> list[str]:
    return [*_stop(story, vmid, which), f"run {vmid}"] if _runs(story, vmid) else []


def _away(story: Faulty, vmid: Vmid, _: int) -> list[str]:
    return [f"to {vmid} elsewhere", *([f"vanish {vmid}"] if _runs(story, vmid) else [])]


def _back(story: Faulty, vmid: Vmid, which: int) -> list[str]:
    config = story.world.config(vmid)
    if config is None or config.node == NODE or _runs(story, vmid):
        return [f"to {vmid} here"]
    if which % 2:
        return [f"to {vmid} here"]
    comes = [*_heard(story, f"pre-start {vmid}"), f"run {vmid}"]
    return [*comes, *_heard(story, f"post-start {vmid}"), f"to {vmid} here"]


def _edit(_: Faulty, vmid: Vmid, which: int) -> list[str]:
    return [f"set {vmid} {EDITS[which % len(EDITS)]}"]


def _unset(story: Faulty, vmid: Vmid, which: int) -> list[str]:
    keys = sorted(story.world.guests[vmid].keys)
    return [f"unset {vmid} {keys[which % len(keys)]}"] if keys else []


def _edited(story: Faulty, vmid: Vmid, which: int) -> list[str]:
    return (_unset if which % 4 == 0 else _edit)(story, vmid, which // 4)


def _tag(_: Faulty, vmid: Vmid, which: int) -> list[str]:
    return [f"set {vmid} tags: {TAGS[which % len(TAGS)]}"]


def _rollback(story: Faulty, vmid: Vmid, which: int) -> list[str]:
    """The file is what it was; a guest that ran is stopped first."""
    return [*_stop(story, vmid, which), f"create {vmid} {' | '.join(GUESTS[vmid])}"]


def _hint(story: Faulty, vmid: Vmid, which: int) -> list[str]:
    return _heard(story, f"{HOOKS[which % len(HOOKS)]} {vmid}")


def _drift(story: Faulty, vmid: Vmid, which: int) -> list[str]:
    """Of a guest of ours: what others do to theirs is theirs."""
    tracked, process = story.state.tracked.get(vmid), story.world.process(vmid)
    ours = process is not None and tracked is not None and tracked.process == process
    return [f"drift {vmid} {which % 8}"] if ours else []


def _thread(story: Faulty, vmid: Vmid, which: int) -> list[str]:
    words = f"refuse {vmid} call_rcu" if which % 3 == 0 else f"spawn {vmid} worker"
    return [words] if _runs(story, vmid) else []


def _asked(word: str) -> Callable[[Faulty, Vmid, int], list[str]]:
    return lambda story, vmid, _: _heard(story, f"{word} {vmid}")


def _unreadable(_: Faulty, vmid: Vmid, which: int) -> list[str]:
    return [f"{('unreadable', 'readable')[which % 2]} {vmid}"]


def _restart(how: str = "") -> Callable[[Faulty, int], list[str]]:
    return lambda _, __: [f"restart {how}".strip()]


def _freeze(story: Faulty, _: int) -> list[str]:
    story.frozen = True
    return []


def _thaw(story: Faulty, _: int) -> list[str]:
    story.frozen = False
    late, story.late = story.late, []
    return late


def _full(story: Faulty, _: int) -> list[str]:
    story.full = True
    return []


def _room(story: Faulty, _: int) -> list[str]:
    story.full = False
    return []


def _cpus(story: Faulty, which: int) -> list[str]:
    spec = OTHER_HOSTS[which % len(OTHER_HOSTS)]
    return [f"hardware {spec}", *_heard(story, f"host {spec}")]


def _plain(word: str) -> Callable[[Faulty, int], list[str]]:
    """What the service does by itself: not while it is stopped."""
    return lambda story, _: [] if story.frozen else [word]


def _bus(*, back: bool) -> Callable[[Faulty, int], list[str]]:
    word = "systemd" if back else "lose-systemd"
    return lambda story, _: [] if story.frozen or story.state.scopes is back else [word]


def _mount(story: Faulty, _: int) -> list[str]:
    story.world.mounted = True
    return []


_GUEST: dict[Kind, Callable[[Faulty, Vmid, int], list[str]]] = {
    Kind.START: _start,
    Kind.STOP: _stop,
    Kind.CRASH: _crash,
    Kind.REBOOT: _reboot,
    Kind.AWAY: _away,
    Kind.BACK: _back,
    Kind.EDIT: _edited,
    Kind.TAG: _tag,
    Kind.ROLLBACK: _rollback,
    Kind.HINT: _hint,
    Kind.DRIFT: _drift,
    Kind.THREAD: _thread,
    Kind.REASSIGN: _asked("reassign"),
    Kind.UNDO: _asked("undo"),
    Kind.UNREADABLE: _unreadable,
}
_SERVICE: dict[Kind, Callable[[Faulty, int], list[str]]] = {
    Kind.SCAN: _plain("scan"),
    Kind.LATE_SCAN: _plain("look"),
    Kind.KILL: _restart(),
    Kind.LOST: _restart("lost"),
    Kind.FREEZE: _freeze,
    Kind.THAW: _thaw,
    Kind.RELOAD: lambda s, which: _heard(s, f"set-service PCA_{SERVICE[which % len(SERVICE)]}"),
    Kind.MEASURED: _plain("measured"),
    Kind.FULL: _full,
    Kind.ROOM: _room,
    Kind.CPUS: _cpus,
    Kind.UNMOUNT: lambda _, __: ["unmount"],
    Kind.MOUNT: _mount,
    Kind.BUS_LOST: _bus(back=False),
    Kind.BUS_BACK: _bus(back=True),
    Kind.DEAF: lambda _, __: ["deaf"],
    Kind.HEARING: lambda _, __: ["hearing"],
}
