"""Histories with real processes: a simulated node, stand-in guests, the service, its hook.

What happens may overlap: a third of what is done to guests is not waited for. What must hold at
every moment is looked at after each happening, the rest at quiet points and at the end.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.faults.history import REAL, History, Kind, history, shrunk
from tests.faults.observed import HOOK
from tests.faults.playground import CPUS, TREE, Playground, playground
from tests.faults.promises import keys_of, meddled
from tests.faults.servicelife import Servicelife
from tests.integration.running import PATIENCE

MOST = 14  # happenings
REPLAYS = 25  # to make a history that fails small
LOG_LINES = 40
JUMPS = ("+3600", "-3600", "+400d", "-400d")


def history_of(seed: int) -> History:
    return history(seed, kinds=REAL, most=MOST)


class Whole(Servicelife):
    """What happens to the node, and a whole history."""

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
        if self.service.clock is not None:
            self.service.clock.write_text(JUMPS[which % len(JUMPS)])

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
        hooked = HOOK in keys_of(self.ground, vmid).get("hookscript", "")
        hangs = which % 2 == 0
        text = "exec sleep 600" if hangs else "echo 'cluster not ready - no quorum?' >&2; exit 255"
        with self.ground.other_qm(text):
            status = _enabling(self.node.root, vmid, broken_off=hangs)
        same = before == self.ground.file(vmid).read_bytes()
        if not same or status is None or (status == 0 and not hooked):
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


_PLAYED: dict[Kind, Callable[[Whole, int, int], None]] = {
    Kind.START: Whole.start,
    Kind.STOP: Whole.stop,
    Kind.CRASH: Whole.crash,
    Kind.REBOOT: Whole.reboot,
    Kind.AWAY: Whole.away_to,
    Kind.BACK: Whole.back,
    Kind.EDIT: Whole.edit,
    Kind.TAG: Whole.tag,
    Kind.ROLLBACK: Whole.rollback,
    Kind.HINT: Whole.hint,
    Kind.DRIFT: Whole.drift,
    Kind.REASSIGN: Whole.reassign,
    Kind.UNDO: Whole.undo,
    Kind.UNREADABLE: Whole.unreadable,
    Kind.SCAN: Whole.scan,
    Kind.KILL: Whole.kill,
    Kind.DEAD: Whole.dead,
    Kind.LOST: Whole.lost,
    Kind.RESTART: Whole.restart,
    Kind.RELEASE: Whole.release,
    Kind.FREEZE: Whole.freeze,
    Kind.THAW: Whole.thaw,
    Kind.RELOAD: Whole.reload,
    Kind.SECOND: Whole.second,
    Kind.FULL: Whole.full,
    Kind.ROOM: Whole.room,
    Kind.CPUS: Whole.cpus,
    Kind.UNMOUNT: Whole.unmount,
    Kind.MOUNT: Whole.mount,
    Kind.CLOCK: Whole.clock,
    Kind.POWER: Whole.power,
    Kind.QM: Whole.qm,
}


def wrong_in(ground: Playground, whole: History) -> str:
    """Play a history; what is wrong in it, empty if nothing is."""
    clock = any(happening.kind is Kind.CLOCK for happening in whole)
    player = Whole(ground, clock=clock)
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
