"""Figures for Prometheus, made when they are asked for: the state, and what was counted.

Names and units by Prometheus' conventions: seconds, ratios from 0 to 1, counters end in _total.
Labels are bounded: one series a guest of this node, one an endpoint, one an outcome. This module is
imported by the first who asks: who wants no figures shall not pay for the library.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from proxmox_cpu_affinity import __version__
from proxmox_cpu_affinity.engine.occupancy import overlapping
from proxmox_cpu_affinity.model.latency import Verdict
from proxmox_cpu_affinity.model.placement import Outcome
from proxmox_cpu_affinity.reconcile import State
from proxmox_cpu_affinity.service import views
from proxmox_cpu_affinity.service.app import Service
from proxmox_cpu_affinity.service.figures import HOOKS, Durations, Figures

PREFIX = "proxmox_cpu_affinity_"
Samples = Mapping[str, float | None]
"""A label's value to a number; None: not known, so there is no series of it."""


def exposition(service: Service) -> str:
    """The whole text, in Prometheus' text format."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Figures(service))
    return generate_latest(registry).decode()


class _Figures(Collector):
    """What prometheus_client asks for the families."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> Iterable[Metric]:
        """None: else all would be made once more, to look for a name that is given twice."""
        return ()

    def collect(self) -> Iterator[Metric]:
        service = self._service
        yield _labelled("build_info", "The service's version.", "version", {__version__: 1})
        yield from _of_guests(service.state)
        yield from _of_host(service.state)
        yield from _of_measuring(service)
        yield from _of_figures(service.herald.figures)
        stream = service.herald.stream
        yield _single("event_readers", "Who reads the stream of events.", stream.readers)
        dropped = {"": stream.dropped}
        yield _counter("event_readers_dropped", "Readers dropped for being slow.", "", dropped)


def _of_guests(state: State) -> Iterator[Metric]:
    scores = views.guest_scores(state)
    guests = {str(vmid): tracked for vmid, tracked in sorted(state.tracked.items())}
    nodes = state.host.topology.nodes_of

    def each(name: str, text: str, samples: Samples) -> Metric:
        return _labelled(f"guest_{name}", text, "vmid", samples)

    yield each(
        "cpus", "CPUs the guest holds.", {v: len(t.placement.home) for v, t in guests.items()}
    )
    yield each(
        "vcpus", "vCPUs the guest has.", {v: len(t.placement.order) for v, t in guests.items()}
    )
    on = {v: len(nodes(t.placement.home)) for v, t in guests.items()}
    yield each("nodes", "NUMA nodes the guest's CPUs lie on.", on)
    text = "What the guest's average vCPU loses, as a share of its time."
    yield each("slowdown_ratio", text, {str(v): one for v, (one, _) in scores.items()})
    text = "The least that the guest could lose, were it alone on the host."
    yield each("slowdown_bound_ratio", text, {str(v): bound for v, (_, bound) in scores.items()})
    full = {v: float(views.outcome(t) == Outcome.FULL) for v, t in guests.items()}
    yield each("confined", "Whether every thread was read back where it belongs.", full)
    text = "From the start of the guest's process until it was held on its CPUs."
    yield each(
        "start_to_confined_seconds", text, {v: views.confined_after(t) for v, t in guests.items()}
    )
    drift = {v: float(t.drift) for v, t in guests.items()}
    yield _counter("guest_drift", "How often threads were elsewhere and put back.", "vmid", drift)


def _of_host(state: State) -> Iterator[Metric]:
    running = sum(tracked.running for tracked in state.tracked.values())
    yield _single("guests_running", "Guests that run and have a placement.", running)
    yield _single("guests_refused", "Guests that run and were given no CPUs.", len(state.refused))
    yield _single("cpus_online", "CPUs that are online.", len(state.host.topology.online))
    yield _single("cpus_usable", "CPUs that guests may be given.", len(state.host.usable))
    shared = len(overlapping(state.occupancy()))
    yield _single("cpus_shared", "CPUs that more than one guest holds.", shared)
    found = views.scored(state)
    if found is None:
        return
    text = "What the average vCPU loses, as a share of its time."
    yield _single("slowdown_ratio", text, found.slowdown)
    text = "The least that any placement of these guests could lose."
    yield _single("slowdown_bound_ratio", text, found.bound)
    yield _single("slowdown_gap_ratio", "How far above the bound.", found.gap)
    text = "What the average vCPU would lose without any pinning."
    yield _single("slowdown_unpinned_ratio", text, found.no_pinning)


def _of_measuring(service: Service) -> Iterator[Metric]:
    matrix, now = service.host.matrix, service.host.measuring
    yield _single("measuring", "Whether the latency is being measured.", now.running)
    yield _single("measuring_pairs", "Pairs of CPUs to be measured.", now.total)
    yield _single("measuring_pairs_done", "Pairs of CPUs measured so far.", now.done)
    share = matrix.share_measured()
    yield _single("matrix_measured_ratio", "Share of the pairs that is measured.", share)
    is_it = {verdict.value: float(matrix.verdict is verdict) for verdict in Verdict}
    yield _labelled("matrix_verdict", "What the latencies are worth.", "verdict", is_it)


def _of_figures(figures: Figures) -> Iterator[Metric]:
    hooks = {name.replace("_", "-"): figures.answers[name] for name in HOOKS}
    rest = {name: one for name, one in figures.answers.items() if name not in HOOKS}
    yield _histogram("hook_duration_seconds", "How long hooks were held up.", "phase", hooks)
    text = "How long other requests took."
    yield _histogram("api_request_duration_seconds", text, "endpoint", rest)
    text = "From the start of guests' processes until they were held on their CPUs."
    yield _histogram("start_to_confined_seconds", text, "", {"": figures.started})
    text = "What happened to guests."
    yield _counter("guest_events", text, "what", dict(figures.events))
    text = "How often guests were read back, by how well they were held."
    yield _counter("confinements", text, "outcome", dict(figures.outcomes))


def _single(name: str, text: str, value: float) -> GaugeMetricFamily:
    return _labelled(name, text, "", {"": value})


def _labelled(name: str, text: str, label: str, samples: Samples) -> GaugeMetricFamily:
    family = GaugeMetricFamily(PREFIX + name, text, labels=_names(label))
    for value, number in samples.items():
        if number is not None:
            family.add_metric([value] if label else [], number)
    return family


def _counter(name: str, text: str, label: str, samples: Samples) -> CounterMetricFamily:
    family = CounterMetricFamily(PREFIX + name, text, labels=_names(label))
    for value, number in samples.items():
        if number is not None:
            family.add_metric([value] if label else [], number)
    return family


def _histogram(name: str, text: str, label: str, found: Mapping[str, Durations]) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, text, labels=_names(label))
    for value, durations in found.items():
        bounds = [*(f"{bound:g}" for bound in durations.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(durations.counts), strict=True))
        family.add_metric([value] if label else [], buckets, durations.total)
    return family


def _names(label: str) -> list[str]:
    return [label] if label else []
