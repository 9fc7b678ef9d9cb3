"""Figures that are counted as things happen: durations by bucket, events by outcome.

Plain numbers of bounded sets of names, so that counting costs nothing that needs a library; what
Prometheus is told is made of them when it asks (metrics).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from proxmox_cpu_affinity.formats.endpoints import ENDPOINTS
from proxmox_cpu_affinity.formats.wire_events import GuestEvent, What
from proxmox_cpu_affinity.model.placement import Confined, Outcome
from proxmox_cpu_affinity.reconcile import State
from proxmox_cpu_affinity.service.views import confined_after

# Seconds. The hook gives up after 1.8 s; 0 is a guest that was held from its first instruction.
QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SLOW = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
HOOKS = ("pre_start", "post_start", "pre_stop", "post_stop")
_STREAMS = ("events",)


@dataclass(slots=True)
class Durations:
    """How many took at most so long; `counts` has one more for those beyond the last bound."""

    bounds: Sequence[float] = QUICK
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        place = sum(seconds > bound for bound in self.bounds)
        self.counts[place] += 1
        self.total += seconds


@dataclass(slots=True)
class Figures:
    """What one service has counted since it began (`began`: seconds, monotonic)."""

    began: float
    answers: dict[str, Durations] = field(
        default_factory=lambda: {e.name: Durations() for e in ENDPOINTS if e.name not in _STREAMS}
    )
    started: Durations = field(default_factory=lambda: Durations(SLOW))
    events: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(What, 0)))
    outcomes: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(Outcome, 0)))

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time what an endpoint does, also where it fails."""
        began = perf_counter()
        try:
            yield
        finally:
            if name in self.answers:
                self.answers[name].add(perf_counter() - began)

    def told(self, events: Iterable[GuestEvent]) -> None:
        self.events.update(event.what for event in events)

    def confined(self, before: State, after: State, confined: Confined) -> None:
        """A guest was read back: how well, and how long after its start if that is news."""
        self.outcomes[confined.outcome] += 1
        vmid = confined.process.vmid
        old, new = before.tracked.get(vmid), after.tracked.get(vmid)
        if old is None or new is None or new.confined_at is None:
            return
        first = old.found is None and new.found is not None
        seconds = confined_after(new) if first or old.confined_at is None else None
        if seconds is not None and new.confined_at - seconds >= self.began:
            self.started.add(seconds)  # what ran before the service did says nothing of it
