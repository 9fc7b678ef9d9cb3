"""What happens to guests in a history with real processes."""

import os
import signal
import subprocess
from contextlib import suppress

from tests.faults.history import HOOKS, TAGS
from tests.faults.player import Player
from tests.faults.playground import CPUS, PEER, asked, rows, within
from tests.faults.promises import keys_of
from tests.integration.running import PATIENCE, Answer

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


class Guestlife(Player):
    """A method for each kind: whom it happens to, and which of its variants."""

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

    def _sound(self, answer: Answer | None) -> None:
        if answer is not None and answer.status >= 500 and answer.status != 503:
            self.wrong.append(f"the service answered {answer.status}: {answer.body!r}")

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
