"""How much guests wait for CPUs: cpu.pressure of their scopes, else schedstat of their vCPUs.

Differences between two readings. Where the kernel keeps no pressure (psi=0, no cgroup v2, no
scopes) the vCPU thread that waited longest stands for the guest: at least as long did some thread.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from proxmox_cpu_affinity.formats.pressure import run_delay, some_waited
from proxmox_cpu_affinity.linux.scopes import SLICE, unit_of
from proxmox_cpu_affinity.linux.threads import threads_of
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Tid, Vmid

_GROUP = Tid(0)  # in place of a thread: the whole scope


@dataclass(slots=True)
class WaitingMeter:
    """Reads below a root, and keeps the last reading of each guest."""

    tree: Tree
    by_threads: bool = False  # some guest's control group could not be asked
    _last: dict[GuestProcess, tuple[float, Mapping[Tid, float]]] = field(default_factory=dict)

    def waited(self, processes: Iterable[GuestProcess], now: float) -> Mapping[Vmid, float]:
        """For what share of the time since the last call some thread of each guest waited; without
        those that were not known then. `now`: seconds, monotonic."""
        found = {process: (now, self._totals(process)) for process in processes}
        before, self._last = self._last, found
        shares: dict[Vmid, float] = {}
        for process, (_, totals) in found.items():
            then, earlier = before.get(process, (now, {}))
            grown = [total - earlier[k] for k, total in totals.items() if k in earlier]
            if grown and now > then:
                shares[process.vmid] = min(1.0, max(0.0, *grown) / (now - then))
        return shares

    def _totals(self, process: GuestProcess) -> Mapping[Tid, float]:
        text = self.tree.text(f"sys/fs/cgroup/{SLICE}/{unit_of(process.vmid)}/cpu.pressure")
        try:
            if text is not None:
                return {_GROUP: some_waited(text)}
        except SyntaxFault:
            pass
        delays = self._delays(process)
        self.by_threads |= bool(delays)  # of a guest that has just ended nothing is read
        return delays

    def _delays(self, process: GuestProcess) -> Mapping[Tid, float]:
        found: dict[Tid, float] = {}
        for thread in threads_of(self.tree, process.pid):
            text = self.tree.text(f"proc/{process.pid}/task/{thread.tid}/schedstat")
            if thread.vcpu is None or text is None:
                continue
            try:
                found[thread.tid] = run_delay(text)
            except SyntaxFault:
                continue
        return found
