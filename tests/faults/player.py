"""One history on one node: what is known of it, what is under way, what is looked at.

Out of scope: what may happen (guestlife, servicelife, real), and what must hold (promises).
"""

import signal
import threading
from collections.abc import Callable

from proxmox_cpu_affinity.sim.arrival import Completed
from tests.faults.playground import Playground, Tormented, within
from tests.faults.promises import Known, begins, never, settled
from tests.integration.running import PATIENCE

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


class Player:
    """The means of those who play."""

    def __init__(self, ground: Playground, *, clock: bool) -> None:
        self.ground = ground
        self.node = ground.node
        self.known = Known()
        self.wrong: list[str] = []
        self._under_way: dict[int, threading.Thread] = {}
        self.unmounted = False
        self.frozen = False
        self.service: Tormented = ground.service(clock=clock)

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

    def hears(self) -> bool:
        return self.service.alive and not self.frozen

    def serve(self) -> None:
        """Whatever was done to it, it answers again."""
        self.thaw(0, 0)
        if not self.service.alive:
            self.service.start()

    def thaw(self, _: int, __: int) -> None:
        if self.frozen:
            self.service.send(signal.SIGCONT)
            self.frozen = False
