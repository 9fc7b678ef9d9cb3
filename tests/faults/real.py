"""Histories with real processes: a simulated node, stand-in guests, the service, its hook.

What happens may overlap: a third of what is done to guests is not waited for. What must hold at
every moment is looked at after each happening, the rest at quiet points and at the end.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from proxmox_cpu_affinity.sim.arrival import Completed
from tests.faults.history import REAL, VMIDS, History, Kind, history, shrunk
from tests.faults.observed import masks
from tests.faults.playground import (
    CPUS,
    PEER,
    TREE,
    Playground,
    Tormented,
    asked,
    playground,
    rows,
    within,
)
from tests.faults.promises import ALL, Known, begins, keys_of, meddled, never, settled
from tests.integration.running import PATIENCE

MOST = 14  # happenings
REPLAYS = 25  # to make a history that fails small
LOG_LINES = 40
EDITS = (
    ("--affinity", str(CPUS[-1])),
    ("--delete", "affinity"),
    ("--template", "1"),
    ("--cores", "2"),
    ("--vcpus", "1"),
    ("--delete", "vcpus"),
    ("--delete", "hookscript"),
    ("--name", "renamed"),
)
TAGS = ("cpu-affinity-off", "cpu-affinity", "none", "cpu-affinity;cpu-dedicated", "cpu-pinned")
SETTINGS = (
    "PCA_MANAGE=hook",
    "PCA_MANAGE=tag",
    "PCA_MANAGE=all",
    f"PCA_RESERVED_CPUS={CPUS[0]}",
    "PCA_WIDTH=domain",
    "PCA_WIDTH=auto",
    "PCA_STRATEGY=round-robin",
    "PCA_REBALANCE=on",
)
HOOKS = ("pre-start", "post-start", "pre-stop", "post-stop")
JUMPS = ("+3600", "-3600", "+400d", "-400d")
# What PVE itself may say to a start: not because of us.
REFUSALS = (
    "already running",
    "you can't start a vm if it's a template",
    "vcpus allowed per VM on this node",
    "does not exist",
    "VM is locked",
    "got timeout",
    "taskset",
)


def history_of(seed: int) -> History:
    return history(seed, kinds=REAL, most=MOST)


class Player:
    """One history on one node."""

    def __init__(self, ground: Playground, *, clock: bool) -> None:
        self.ground = ground
        self.node = ground.node
        self.known = Known()
        self.wrong: list[str] = []
        self._under_way: dict[int, threading.Thread] = {}
        self.unmounted = False
        self.frozen = False
        self.service: Tormented = ground.service(clock=clock)

    # -- one after the other -------------------------------------------------------------------

    def play(self, whole: History) -> None:
        """AssertionError where something is wrong."""
        for happening in whole:
            time.sleep(happening.after / 500)
            meddled(self.ground, self.known)
            _PLAYED[happening.kind](self, happening.vmid, happening.which)
            self._readable(lambda: meddled(self.ground, self.known))
            self._look(f"after {happening}")
        self._ends()

    def _ends(self) -> None:
        self.mount()
        self.serve()
        self.join()
        for vmid in tuple(self.known.unreadable):
            self.unreadable(vmid, 1)
        self.ground.room()
        self.ground.cpus(())
        self.known.full, self.known.offline = False, ()
        self.settle("at the end")
        assert self.service.end() == 0, "the service did not end well"

    def end(self) -> None:
        """Whatever is still there of it."""
        self.thaw(0, 0)
        self.join()
        if self.service.alive:
            self.service.kill()
        self.ground.quiet()

    def settle(self, when: str) -> None:
        """Wait until all is as it must be."""
        self.join()
        found: list[str] = []

        def holds() -> bool:
            found[:] = settled(self.ground, self.service, self.known)
            return not found

        assert within(PATIENCE, holds), f"{when}: {'; '.join(found)}"
        self.known.modes = {self.known.manage}
        self._look(when)

    def _look(self, when: str) -> None:
        self.wrong += self._readable(lambda: [*never(self.ground, self.service, self.known)]) or []
        assert not self.wrong, f"{when}: {'; '.join(self.wrong)}"

    def _readable(self, work: Callable[[], list[str] | None]) -> list[str] | None:
        return None if self.unmounted else work()

    # -- what is under way ---------------------------------------------------------------------

    def do(self, vmid: int, work: Callable[[], None], *, wait: bool = True) -> None:
        """Something that is done to a guest, after what is being done to it already."""
        self.join(vmid)

        def carefully() -> None:
            try:
                work()
            except Exception as error:
                self.wrong.append(f"guest {vmid}: {type(error).__name__}: {error}")

        thread = threading.Thread(target=carefully)
        thread.start()
        if wait:
            thread.join()
        else:
            self._under_way[vmid] = thread

    def join(self, *vmids: int) -> None:
        for vmid in vmids or tuple(self._under_way):
            thread = self._under_way.pop(vmid, None)
            if thread is not None:
                thread.join()

    def runs(self, vmid: int) -> int | None:
        self.join(vmid)
        return self.node.pid(vmid)

    def here(self, vmid: int) -> bool:
        """Whether PVE can do something to a guest of this node."""
        return (
            not self.unmounted
            and vmid not in self.known.unreadable
            and self.ground.file(vmid).exists()
        )

    def begins(self, vmid: int) -> None:
        begins(self.ground, self.known, vmid)

    def started(self, vmid: int, done: Completed) -> None:
        """A start may fail for PVE's reasons, never for ours."""
        said = done.stdout + done.stderr
        if "hookscript" in said or (done.returncode and not any(why in said for why in REFUSALS)):
            self.wrong.append(f"the start of {vmid} failed: {said.strip()}")

    # -- guests --------------------------------------------------------------------------------

    def start(self, vmid: int, which: int) -> None:
        if self.here(vmid) and not self.runs(vmid):
            self.begins(vmid)
            self.do(
                vmid, lambda: self.started(vmid, self.node.qm("start", vmid)), wait=which % 3 > 0
            )

    def stop(self, vmid: int, which: int) -> None:
        if self.runs(vmid) and self.here(vmid):
            word = ("stop", "shutdown", "off")[which % 3]
            if word == "off":
                self.do(vmid, lambda: self._off(vmid))
            else:
                self.do(vmid, lambda: self._qm(word, vmid), wait=which % 2 > 0)

    def _off(self, vmid: int) -> None:
        with suppress(Exception):  # what guests do is not what is played here
            self.node.guest_poweroff(vmid)

    def _qm(self, *words: object) -> None:
        self.node.qm(*words)

    def crash(self, vmid: int, _: int) -> None:
        pid = self.runs(vmid)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            assert within(PATIENCE, lambda: self.node.pid(vmid) is None)

    def reboot(self, vmid: int, which: int) -> None:
        pid = self.runs(vmid)
        if not (pid and self.here(vmid)):
            return
        if which % 2:
            with suppress(Exception):
                self.node.guest_reboot(vmid)
        else:
            self._qm("stop", vmid)
            self.start(vmid, which)

    def away_to(self, vmid: int, which: int) -> None:
        if self.here(vmid):
            online = ("--online",) if self.runs(vmid) else ()
            self.do(vmid, lambda: self._qm("migrate", vmid, PEER, *online), wait=which % 3 > 0)

    def back(self, vmid: int, which: int) -> None:
        self.join(vmid)
        if self.unmounted or not self.ground.away(vmid).exists():
            return
        self.begins(vmid)
        if which % 2 or "template" in keys_of(self.ground, vmid):
            self.do(vmid, lambda: self.node.move_in(vmid, source=PEER))
        else:
            self.do(
                vmid,
                lambda: self.started(vmid, self.node.migrate_in(vmid, source=PEER)),
                wait=which % 3 > 0,
            )

    def edit(self, vmid: int, which: int) -> None:
        if self.here(vmid):
            self.do(vmid, lambda: self._qm("set", vmid, *EDITS[which % len(EDITS)]))

    def tag(self, vmid: int, which: int) -> None:
        if self.here(vmid):
            self.do(vmid, lambda: self._qm("set", vmid, "--tags", TAGS[which % len(TAGS)]))

    def rollback(self, vmid: int, _: int) -> None:
        if self.here(vmid):
            self.do(vmid, lambda: self._qm("rollback", vmid, "base"))

    def hint(self, vmid: int, which: int) -> None:
        self.do(vmid, lambda: self._hook(vmid, HOOKS[which % 4]), wait=which % 3 > 0)

    def _hook(self, vmid: int, phase: str) -> None:
        done = subprocess.run(
            [self.ground.snippet, str(vmid), phase],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=3 * PATIENCE,
        )
        if done.returncode or len(done.stdout.splitlines()) > 1 or done.stderr:
            self.wrong.append(f"hook {phase} of {vmid}: {done}")

    def drift(self, vmid: int, which: int) -> None:
        """Somebody else changes the masks of a guest that is ours: theirs are their own."""
        pid = self.runs(vmid)
        if pid is None or vmid not in self.known.ours:
            return
        self.known.forgotten.add(vmid)
        with suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(task), {CPUS[which % len(CPUS)]})

    def reassign(self, vmid: int, _: int) -> None:
        self.join(vmid)
        if self.hears():
            answer = asked(self.service, f"/api/v1/guests/{vmid}/reassign")
            if answer is not None and answer.status == 200:
                self.known.released.pop(vmid, None)
            self._sound(answer)

    def undo(self, vmid: int, _: int) -> None:
        pid = self.runs(vmid)
        if self.hears() and pid is not None and self.here(vmid):
            answer = asked(self.service, f"/api/v1/guests/{vmid}/reassign", {"undo": True})
            self._sound(answer)
            with suppress(OSError, ValueError):
                if rows(self.service)[vmid]["reason_code"] == "released":
                    self.known.released[vmid] = pid

    def _sound(self, answer: object) -> None:
        status = getattr(answer, "status", 0)
        if status >= 500 and status != 503:
            self.wrong.append(f"the service answered {status}: {getattr(answer, 'body', b'')!r}")

    def unreadable(self, vmid: int, which: int) -> None:
        """Its file is a folder for a while."""
        self.join(vmid)
        file = self.ground.file(vmid)
        aside = file.with_suffix(".aside")
        if self.unmounted:
            return
        if which % 2 and vmid in self.known.unreadable:
            file.rmdir()
            aside.rename(file)
            self.known.unreadable.discard(vmid)
        elif which % 2 == 0 and self.here(vmid):
            self.known.unreadable.add(vmid)
            file.rename(aside)
            file.mkdir()

    # -- the service ---------------------------------------------------------------------------

    def hears(self) -> bool:
        return self.service.alive and not self.frozen

    def serve(self) -> None:
        """Whatever was done to it, it answers again."""
        self.thaw(0, 0)
        if not self.service.alive:
            self.service.start()

    def scan(self, _: int, __: int) -> None:
        """A quiet point, where there can be one."""
        if self.hears() and not self.unmounted:
            self.settle("at a quiet point")

    def kill(self, _: int, which: int) -> None:
        self.dead(0, which)
        self.serve()

    def dead(self, _: int, __: int) -> None:
        if self.known.full:
            self.forget()
        self.service.kill()
        self.frozen = False

    def forget(self) -> None:
        """What was not written before a SIGKILL is not known after it."""
        self.known.forgotten |= set(VMIDS)

    def lost(self, _: int, __: int) -> None:
        self.forget()
        self.service.kill()
        self.frozen = False
        (self.ground.lib / "state.json").unlink(missing_ok=True)
        self.serve()

    def restart(self, _: int, __: int) -> None:
        self.thaw(0, 0)
        if self.known.full:
            self.forget()
        if self.service.alive and self.service.end() != 0:
            self.wrong.append(f"the service ended with {self.service.process.returncode}")
        self.serve()

    def release(self, _: int, __: int) -> None:
        if self.unmounted or self.known.full:
            return
        self.join()
        self.restart(0, 0)
        self.settle("before the release")
        self.service.end()
        if self.service.released() != 0:
            self.wrong.append("--release failed")
        for vmid in VMIDS:
            pid = self.node.pid(vmid)
            if pid is not None and vmid not in self.known.forgotten:
                born = self.known.born.get(vmid, ALL)
                if set(masks(pid).values()) != {born}:
                    self.wrong.append(f"guest {vmid} is held after --release: {masks(pid)}")
            self.known.forgotten.add(vmid)
        self.serve()

    def freeze(self, _: int, __: int) -> None:
        if self.hears():
            self.service.send(signal.SIGSTOP)
            self.frozen = True

    def thaw(self, _: int, __: int) -> None:
        if self.frozen:
            self.service.send(signal.SIGCONT)
            self.frozen = False

    def reload(self, _: int, which: int) -> None:
        setting = SETTINGS[which % len(SETTINGS)]
        if setting.startswith("PCA_MANAGE"):
            self.known.manage = setting.partition("=")[2]
            self.known.modes.add(self.known.manage)
        file = self.node.path("/etc/default/proxmox-cpu-affinity")
        name = setting.partition("=")[0]
        others = [line for line in file.read_text().splitlines() if not line.startswith(name)]
        fresh = file.with_suffix(".fresh")
        fresh.write_text("\n".join([*others, setting]) + "\n")
        fresh.rename(file)
        self.service.send(signal.SIGHUP)

    def second(self, _: int, __: int) -> None:
        if not self.service.alive:
            return
        other = self.service.spawn()
        status = other.wait(3 * PATIENCE)
        if status == 0 or not self.service.alive:
            self.wrong.append(f"a second service ended with {status}")

    # -- the node ------------------------------------------------------------------------------

    def full(self, _: int, __: int) -> None:
        self.known.full = True
        self.ground.full()

    def room(self, _: int, __: int) -> None:
        self.ground.room()

    def cpus(self, _: int, which: int) -> None:
        self.join()
        choices = ((), *((cpu,) for cpu in CPUS)) if len(CPUS) > 1 else ((),)
        self.known.offline = choices[which % len(choices)]
        if self.known.offline:
            self.forget()
        self.ground.cpus(self.known.offline)

    def unmount(self, _: int, which: int) -> None:
        self.join()
        if not self.unmounted:
            self.unmounted = True
            self.ground.unmount(which)

    def mount(self, *_: int) -> None:
        self.ground.mount()
        self.unmounted = False

    def clock(self, _: int, which: int) -> None:
        if Tormented.clock is not None:
            Tormented.clock.write_text(JUMPS[which % len(JUMPS)])

    def power(self, _: int, __: int) -> None:
        """The node is switched off and on; nothing of it runs between."""
        if self.unmounted:
            return
        self.join()
        self.dead(0, 0)
        self.node.close()
        self.node.boot()
        self.serve()

    def qm(self, vmid: int, which: int) -> None:
        """The command line asks a qm that hangs, and is broken off; or one without quorum."""
        if not self.here(vmid):
            return
        self.join()
        before = self.ground.file(vmid).read_bytes()
        hangs = which % 2 == 0
        text = "exec sleep 600" if hangs else "echo 'cluster not ready - no quorum?' >&2; exit 255"
        with self.ground.other_qm(text):
            status = _enabling(self.node.root, vmid, broken_off=hangs)
        if before != self.ground.file(vmid).read_bytes() or status is None:
            self.wrong.append(f"hookscript enable {vmid} with a bad qm: {status}")


def _enabling(root: Path, vmid: int, *, broken_off: bool) -> int | None:
    """The exit status of `hookscript enable`; none if it does not end."""
    words = ["-m", "proxmox_cpu_affinity", "hookscript", "enable", str(vmid), "local"]
    with subprocess.Popen(
        [sys.executable, *words],
        cwd=TREE,
        env={**os.environ, "PCA_ROOT": str(root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        if broken_off:
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.5)
            process.send_signal(signal.SIGINT)
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return None


_PLAYED: dict[Kind, Callable[[Player, int, int], None]] = {
    Kind.START: Player.start,
    Kind.STOP: Player.stop,
    Kind.CRASH: Player.crash,
    Kind.REBOOT: Player.reboot,
    Kind.AWAY: Player.away_to,
    Kind.BACK: Player.back,
    Kind.EDIT: Player.edit,
    Kind.TAG: Player.tag,
    Kind.ROLLBACK: Player.rollback,
    Kind.HINT: Player.hint,
    Kind.DRIFT: Player.drift,
    Kind.REASSIGN: Player.reassign,
    Kind.UNDO: Player.undo,
    Kind.UNREADABLE: Player.unreadable,
    Kind.SCAN: Player.scan,
    Kind.KILL: Player.kill,
    Kind.DEAD: Player.dead,
    Kind.LOST: Player.lost,
    Kind.RESTART: Player.restart,
    Kind.RELEASE: Player.release,
    Kind.FREEZE: Player.freeze,
    Kind.THAW: Player.thaw,
    Kind.RELOAD: Player.reload,
    Kind.SECOND: Player.second,
    Kind.FULL: Player.full,
    Kind.ROOM: Player.room,
    Kind.CPUS: Player.cpus,
    Kind.UNMOUNT: Player.unmount,
    Kind.MOUNT: Player.mount,
    Kind.CLOCK: Player.clock,
    Kind.POWER: Player.power,
    Kind.QM: Player.qm,
}


def wrong_in(ground: Playground, whole: History) -> str:
    """Play a history; what is wrong in it, empty if nothing is."""
    clock = any(happening.kind is Kind.CLOCK for happening in whole)
    player = Player(ground, clock=clock)
    try:
        player.play(whole)
    except Exception as error:
        log = player.service.log.splitlines()[-LOG_LINES:]
        return "\n".join((f"{type(error).__name__}: {error}", "the service's log:", *log))
    finally:
        player.end()
    return ""


def failing(seeds: Sequence[int]) -> list[int]:
    """Those of the seeds whose histories go wrong, all on one node."""
    with playground() as ground:
        return [seed for seed in seeds if wrong_in(ground, history_of(seed))]


def told(seed: int) -> str:
    """A failing history as small as a few replays make it, and what is wrong in it."""
    with playground() as ground:
        whole = history_of(seed)
        why = wrong_in(ground, whole)
        if not why:
            return f"seed {seed}, with processes: nothing is wrong when it is played again"

        def fails(part: History) -> bool:
            nonlocal why
            found = wrong_in(ground, part)
            why = found or why
            return bool(found)

        small = shrunk(whole, fails, tries=REPLAYS)
    return "\n".join((f"seed {seed}, with processes:", *(f"  {one}" for one in small), why))
