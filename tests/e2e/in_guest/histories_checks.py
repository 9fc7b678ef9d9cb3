"""Histories of guests, of the service and of systemd, drawn from a seed; what must hold after each.

One seed in every run, twenty with FULL=1. One of them again:

    .venv/bin/python -m tests.e2e.run --full -k seed_07

What needs no systemd is played by tests/faults, in memory and with real processes.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.e2e.in_guest import kernel, node
from tests.e2e.in_guest.by_hand_checks import tell
from tests.e2e.promises import by_hand, shows

SEEDS = range(20)
LENGTH = 12
BUDGET = 1200 if node.FULL else 60  # seconds: what is left of a history then is not played
RESTART = 150.0  # seconds: Python starts 20 times slower under emulation
TAGGED = {"hookscript": "", "tags": "cpu-affinity"}
NOBODYS = 103  # nobody told us to manage it
GUESTS: Mapping[int, Mapping[str, str]] = {
    100: {"cores": "2"},
    101: {"cores": "1", **TAGGED},
    102: {"cores": "2", "tags": "cpu-pinned"},
    NOBODYS: {"cores": "1", "hookscript": ""},
}
EDITS: tuple[Mapping[str, str], ...] = (
    {"affinity": "0"},
    {"tags": "cpu-affinity-off"},
    {"cores": "1"},
    {"cores": "3"},
    {},
)


@dataclass(slots=True)
class History:
    """A node in the middle of its history: what was told so far, and what that makes true."""

    chance: random.Random
    keys: dict[int, Mapping[str, str]] = field(default_factory=dict)
    announced: set[int] = field(default_factory=set)  # starts that went no further than a hook
    told: list[str] = field(default_factory=list)

    @property
    def running(self) -> list[int]:
        return [vmid for vmid in GUESTS if (kernel.GUESTS / f"{vmid}.pid").exists()]

    @property
    def up(self) -> bool:
        return node.unit("ActiveState") == "active"

    def ours(self, vmid: int) -> bool:
        """Whether its configuration has it managed."""
        keys = self.keys[vmid]
        return vmid != NOBODYS and "affinity" not in keys and "off" not in keys.get("tags", "")

    def configure(self, vmid: int, edit: Mapping[str, str]) -> None:
        self.keys[vmid] = {**GUESTS[vmid], **edit} if vmid != NOBODYS else GUESTS[vmid]
        node.configure(vmid, keys=self.keys[vmid])

    def any_of(self, vmids: list[int]) -> int | None:
        return self.chance.choice(vmids) if vmids else None

    def off(self) -> int | None:
        """One that does not run."""
        return self.any_of([vmid for vmid in GUESTS if vmid not in self.running])

    def on(self) -> int | None:
        return self.any_of(self.running)


# -- what happens to guests ------------------------------------------------------------------------


def start(now: History) -> str:
    """Every start succeeds, whatever was before: `node.start` asserts it."""
    vmid = now.off()
    if vmid is None:
        return ""
    now.announced.discard(vmid)
    node.start(vmid)
    return f"{vmid} starts"


def stop(now: History) -> str:
    vmid = now.on()
    if vmid is None:
        return ""
    node.stop(vmid)
    return f"{vmid} is stopped"


def end(now: History) -> str:
    vmid = now.on()
    if vmid is None:
        return ""
    node.power_off(vmid)
    return f"{vmid} ends by itself"


def crash(now: History) -> str:
    """SIGKILL; qmeventd removes what it left."""
    vmid = now.on()
    if vmid is None:
        return ""
    folder = kernel.folder(vmid)
    os.kill(kernel.pid(vmid), signal.SIGKILL)
    node.wait_for("its scope is gone", lambda: not folder.exists())
    (kernel.GUESTS / f"{vmid}.pid").unlink(missing_ok=True)
    return f"{vmid} crashes"


def reboot(now: History) -> str:
    """As `qm reboot` does it: another process, in another scope of the same name."""
    vmid = now.on()
    if vmid is None:
        return ""
    node.stop(vmid)
    node.start(vmid)
    return f"{vmid} reboots"


def fail(now: History) -> str:
    """QEMU ends before it is up."""
    vmid = now.off()
    if vmid is None:
        return ""
    node.configure(vmid, keys={**now.keys[vmid], "args": "-fail"})
    node.run("guest", "start", str(vmid), check=False)
    node.configure(vmid, keys=now.keys[vmid])
    return f"{vmid} fails to start"


def announce(now: History) -> str:
    """A start that goes no further than its first hook."""
    vmid = now.off()
    if vmid is None or not now.up or not now.ours(vmid):
        return ""
    node.hook(vmid, "pre-start")
    now.announced.add(vmid)
    return f"{vmid} is announced"


def edit(now: History) -> str:
    vmid = now.any_of([vmid for vmid in GUESTS if vmid != NOBODYS])
    assert vmid is not None
    change = now.chance.choice(EDITS)
    now.configure(vmid, change)
    return f"{vmid} is edited: {change}"


def drift(now: History) -> str:
    """Somebody else sets the scope's CPUs."""
    vmid = now.any_of([vmid for vmid in now.running if now.ours(vmid)])
    if vmid is None:
        return ""
    scope = f"{vmid}.scope"
    node.run("systemctl", "set-property", "--runtime", scope, "AllowedCPUs=0")
    return f"somebody sets {scope}"


# -- what happens to the service and to systemd ----------------------------------------------------


def restart(now: History) -> str:
    return unmoved(
        now, "the service is restarted", lambda: node.run("systemctl", "restart", node.UNIT)
    )


def killed(now: History) -> str:
    if not now.up:
        return ""
    before = node.unit("MainPID")

    def kill() -> None:
        node.run("systemctl", "kill", "-s", "KILL", node.UNIT)
        node.wait_for(
            "systemd has started it again",
            lambda: node.unit("ActiveState") == "active" and node.unit("MainPID") != before,
            patience=RESTART,
        )

    return unmoved(now, "the service is killed", kill)


def lost(now: History) -> str:
    def lose() -> None:
        node.service_down()
        node.STATE.unlink(missing_ok=True)
        node.service_up()

    return unmoved(now, "its state is lost", lose)


def down(now: History) -> str:
    node.service_down()
    now.announced.clear()  # no drop-in outlives the service
    return "the service is stopped"


def reload_units(now: History) -> str:
    return unmoved(now, "systemctl daemon-reload", lambda: node.run("systemctl", "daemon-reload"))


def unmoved(now: History, what: str, happen: Callable[[], object]) -> str:
    """What costs no placement: guests that were held are held there afterwards."""
    if not now.up:
        return ""
    settle(now)
    before = {vmid: kernel.limit(vmid) for vmid in now.running if now.ours(vmid)}
    happen()
    if what != "systemctl daemon-reload":
        now.announced.clear()
        reset_start_limit()
    settle(now)
    after = {vmid: kernel.limit(vmid) for vmid in before}
    assert after == before, f"{what}: {before} became {after}"
    return what


def reset_start_limit() -> None:
    """Ten starts in a minute are the unit's limit, not a history's."""
    node.run("systemctl", "reset-failed", node.UNIT, check=False)


HAPPENINGS: Mapping[Callable[[History], str], int] = {
    start: 8,
    stop: 3,
    end: 2,
    crash: 2,
    reboot: 2,
    fail: 1,
    announce: 2,
    edit: 3,
    drift: 2,
    restart: 1,
    killed: 2,
    lost: 1,
    down: 1,
    reload_units: 2,
}


# -- what must hold --------------------------------------------------------------------------------


def settle(now: History) -> None:
    """The service has read everything, and what is to be held is."""
    node.scan()
    held = [vmid for vmid in now.running if now.ours(vmid)]
    node.wait_for(
        f"{held} are confined",
        lambda: all(node.guest(vmid)["outcome"] == "full" for vmid in held),
    )


def look(now: History) -> None:
    """Every invariant, from the kernel's words."""
    assert node.drop_ins() <= now.announced, f"drop-ins {node.drop_ins()}, {now.announced}"
    if not now.up:
        assert not node.drop_ins()
        return
    settle(now)
    assert not node.drop_ins() & set(now.running)
    for vmid in now.running:
        limit, shown = kernel.limit(vmid), node.guest(vmid)
        if now.ours(vmid):
            said = kernel.cpus_of(str(shown["applied"]))
            masks = kernel.masks(vmid)
            assert limit == said, f"{vmid}: limit {limit}, said {said}"
            assert all(mask <= said for mask in masks.values()), f"{vmid}: {masks}, said {said}"
        else:
            assert kernel.unlimited(vmid), f"{vmid} is not ours and limited to {limit}"
            assert shown["managed"] is False, shown
    if NOBODYS in now.running:
        assert kernel.held(NOBODYS) == kernel.online()


def play(seed: int) -> None:
    """A whole history; in the end all are let go."""
    node.ready()
    now = History(random.Random(seed))
    for vmid in GUESTS:
        now.configure(vmid, {})
    for vmid in (100, NOBODYS):
        node.start(vmid)
    began = time.monotonic()
    try:
        for _ in range(LENGTH):
            (happening,) = now.chance.choices(list(HAPPENINGS), list(HAPPENINGS.values()))
            if time.monotonic() - began > BUDGET:
                break
            now.told.append(f"{time.monotonic() - began:6.1f} {happening.__name__}")
            said = happening(now)
            now.told[-1] += f": {said or 'nothing to do'}"
            if said:
                look(now)
            if not now.up and now.chance.random() < 0.5:
                node.service_up()
                now.told.append("the service is started")
                look(now)
        ends_well(now)
        tell(f"seed {seed}: {len(now.told)} happenings played")
    except AssertionError as error:
        story = "\n".join(now.told)
        raise AssertionError(f"seed {seed}:\n{story}\n{error}") from error


def ends_well(now: History) -> None:
    """All is undone by one command, and nothing of ours is left."""
    node.service_down()
    node.run("/usr/sbin/proxmox-cpu-affinity-service", "--release", "--stdout")
    assert not node.drop_ins()
    for vmid in now.running:
        assert kernel.unlimited(vmid), f"{vmid} is still held: {kernel.limit(vmid)}"


@shows(1, 2, 3, 4, 6)
def check_seed_03() -> None:
    play(3)


def seeded(seed: int) -> Callable[[], None]:
    """The check of a seed that is played by hand only."""

    @by_hand
    @shows(1, 2, 3, 4, 6)
    def check() -> None:
        play(seed)

    return check


for number in {*SEEDS} - {3}:
    globals()[f"check_seed_{number:02}"] = seeded(number)
