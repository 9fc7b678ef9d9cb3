"""Tells of what happens: to the readers of the stream, and to the figures.

Out of scope: the log, which the service writes itself; how readers are served (stream, sse).
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from proxmox_cpu_affinity.formats.settings import Settings
from proxmox_cpu_affinity.formats.wire_events import HostEvent, MeasureEvent, SettingsEvent
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.latency import LatencyMatrix
from proxmox_cpu_affinity.reconcile import State
from proxmox_cpu_affinity.reconcile.actions import Action
from proxmox_cpu_affinity.reconcile.events import Confirmed, Event
from proxmox_cpu_affinity.service.figures import Figures
from proxmox_cpu_affinity.service.happenings import happened
from proxmox_cpu_affinity.service.load import LoadWatch
from proxmox_cpu_affinity.service.log import log
from proxmox_cpu_affinity.service.stream import Stream


class Herald:
    """Of one service. `began`: seconds, monotonic."""

    def __init__(self, tree: Tree, began: float) -> None:
        self.stream = Stream()
        load = LoadWatch(tree, self.stream.load)
        self.stream.first_came, self.stream.last_left = load.begin, load.end
        self.figures = Figures(began)

    def step(self, before: State, after: State, event: Event, actions: Sequence[Action]) -> None:
        """A step of the brain was made. A defect here must not cost a guest its CPUs."""
        try:
            self._step(before, after, event, actions)
        except Exception:
            log.exception("what happened could not be told")

    def _step(self, before: State, after: State, event: Event, actions: Sequence[Action]) -> None:
        events = list(happened(before, after, actions, time=_now()))
        self.figures.told(events)
        for each in events:
            self.stream.publish(each)
        if isinstance(event, Confirmed):
            self.figures.confined(before, after, event.confined)

    def cpus(self, before: CpuSet, online: CpuSet, text: str) -> None:
        """CPUs came or went."""
        came, went = str(online - before), str(before - online)
        self.stream.publish(HostEvent(_now(), str(online), came, went, text))

    def measuring(self, matrix: LatencyMatrix) -> None:
        """A measurement has begun; `matrix` is what is in force meanwhile."""
        self._measure("started", matrix, "the latency is being measured")

    def measured(self, matrix: LatencyMatrix, *, changed: bool) -> None:
        """A measurement has ended; `matrix` is what is in force now."""
        kept = "the latencies stay as they were"
        share = 100 * matrix.share_measured()
        fresh = f"latency measured: {matrix.verdict}, {share:.0f} % of the pairs"
        self._measure("done", matrix, fresh if changed else kept)

    def settings(self, now: Settings) -> None:
        """Other settings are in force."""
        rules = (now.strategy, now.manage, now.width)
        self.stream.publish(SettingsEvent(_now(), *rules, "settings read again"))

    def _measure(self, what: str, matrix: LatencyMatrix, text: str) -> None:
        share = round(matrix.share_measured(), 4)
        self.stream.publish(MeasureEvent(_now(), what, matrix.verdict, share, text))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
