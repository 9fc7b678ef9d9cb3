"""What happens to the service in a history with real processes."""

import signal

from tests.faults.guestlife import Guestlife
from tests.faults.history import VMIDS
from tests.faults.observed import masks
from tests.faults.playground import CPUS, within
from tests.faults.promises import ALL
from tests.integration.running import PATIENCE

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


class Servicelife(Guestlife):
    """A method for each kind, as with guests; whom it would happen to does not matter."""

    def scan(self, _: int, which: int) -> None:
        """A quiet point, where there can be one; a SIGKILL there moves nobody."""
        if not self.hears() or self.unmounted:
            return
        self.settle("at a quiet point")
        if which % 2 or self.known.full:
            return
        before = self._where()
        self.kill(0, 0)
        self.settle("after a SIGKILL at a quiet point")
        now = self._where()
        self.wrong += [
            f"a SIGKILL at a quiet point moved guest {vmid}: {before[vmid]}, now {now[vmid]}"
            for vmid in before.keys() & now.keys()
            if before[vmid] != now[vmid]
        ]

    def _where(self) -> dict[int, dict[int, frozenset[int]]]:
        """Where the guests' threads may run, by the kernel's word."""
        pids = {vmid: self.node.pid(vmid) for vmid in VMIDS}
        return {
            vmid: masks(pid)
            for vmid, pid in pids.items()
            if pid is not None and vmid not in self.known.unreadable
        }

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
        ended = within(3 * PATIENCE, lambda: other.poll() is not None)
        other.kill()
        status = other.wait()
        if not ended or status == 0 or not self.service.alive:
            self.wrong.append(f"a second service ended with {status}")
