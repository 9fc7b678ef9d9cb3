"""The page as it is without scripts: host and guests as plain tables, put into index.html.

Names of guests are not ours: every text is escaped. Out of scope: what scripts make of the page
(service/page/*.js), and serving it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from proxmox_cpu_affinity.formats.wire import GuestView, ScoreView, Status, TopologyView
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.render.words import counted

_PLACE = re.compile(r"\{\{([a-z]+)\}\}")


@dataclass(frozen=True, slots=True)
class Sight:
    """What the page shows."""

    time: str
    status: Status
    topology: TopologyView
    guests: Sequence[GuestView]


def page_html(template: str, sight: Sight) -> str:
    """The template with its {{words}} filled in. KeyError for a word that nobody knows."""
    status = sight.status
    words = {
        "time": escape(sight.time),
        "node": escape(status.node),
        "version": escape(status.version),
        "model": escape(_model(status)),
        "warnings": "".join(f'<li class="warn">{escape(text)}</li>' for text in status.warnings),
        "score": _score(status.score),
        "facts": "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(status)
        ),
        "groups": _groups(sight.topology, sight.guests),
        "guests": "".join(map(_guest, sorted(sight.guests, key=lambda g: (not g.running, g.vmid))))
        or '<tr><td colspan="7" class="quiet">No guest of this node is known.</td></tr>',
    }
    return _PLACE.sub(lambda found: words[found[1]], template)


def _model(status: Status) -> str:
    parts = (
        status.model_name,
        counted(status.packages, "package"),
        counted(status.nodes, "node"),
        counted(status.cache_groups, "L3 group"),
        counted(status.cpus, "CPU"),
    )
    return " · ".join(part for part in parts if part)


def _facts(status: Status) -> Iterable[tuple[str, str]]:
    usable = len(CpuSet.parse(status.usable))
    share = f"{round(100 * status.matrix.measured_share)} % measured"
    yield "Guests", f"{status.guests_running} running, {status.guests_confined} confined"
    yield "CPUs", f"{usable} of {status.cpus} for guests"
    yield "Shared CPUs", status.overlap or "none"
    yield "Latencies", f"{status.matrix.verdict}, {share}"
    yield "Placing", f"{status.strategy}, width {status.width}, guests by {status.manage}"
    why = f" ({status.confinement_reason})" if status.confinement_reason else ""
    yield "Confining", f"{status.confinement}{why}"


def _score(score: ScoreView | None) -> str:
    if score is None:
        return '<p class="quiet">No guest is placed.</p>'
    rows = (
        ("As placed", score.slowdown),
        ("Least possible", score.bound),
        ("Without pinning", score.no_pinning),
        ("Round robin", score.round_robin),
        ("Packed", score.packed),
    )
    said = "".join(f"<dt>{name}</dt><dd>{_percent(share)}</dd>" for name, share in rows)
    note = "Estimated slowdown of the average vCPU; less is better."
    return f'<dl class="bars">{said}</dl><p class="quiet">{note}</p>'


def _groups(topology: TopologyView, guests: Iterable[GuestView]) -> str:
    """One row for each cache group, with the guests that hold CPUs of it."""
    held = {guest.vmid: CpuSet.parse(guest.cpus) for guest in guests if guest.cpus}
    places = {place.cpu: place for place in topology.cpus}
    rows = []
    for number, text in enumerate(topology.cache_groups):
        cpus = CpuSet.parse(text)
        place = places[next(iter(cpus))]
        here = [f"{vmid} ({cpus & own})" for vmid, own in sorted(held.items()) if cpus & own]
        cells = (place.package, place.node, number, text, ", ".join(here) or "none")
        rows.append("<tr>" + "".join(f"<td>{escape(str(c))}</td>" for c in cells) + "</tr>")
    return "".join(rows)


def _guest(guest: GuestView) -> str:
    score = "" if guest.score is None else f"{_percent(guest.score)} / {_percent(guest.bound)}"
    name = f'<span class="vmid">{guest.vmid}</span> <span class="name">{escape(guest.name)}</span>'
    cells: Mapping[str, str] = {
        "Policy": guest.policy,
        "vCPUs": str(guest.vcpus),
        "CPUs": guest.cpus,
        "Nodes": ", ".join(map(str, guest.nodes)),
        "Loss / least": score,
        "Held": _held(guest)
        + (f" · put back {counted(guest.drift, 'time')}" if guest.drift else ""),
    }
    row = "".join(_cell(label, text) for label, text in cells.items())
    idle = "" if guest.running else " idle"
    return f'<tr class="guest{idle}"><th scope="row">{name}</th>{row}</tr>'


def _cell(label: str, text: str) -> str:
    number = "n" if label in ("vCPUs", "Loss / least") else ""
    names = " ".join(filter(None, (number, "" if text else "blank")))
    marked = f' class="{names}"' if names else ""
    return f'<td data-label="{label}"{marked}>{escape(text)}</td>'


def _held(guest: GuestView) -> str:
    if guest.refused:
        return f"not placed: {guest.refused}"
    if guest.outcome:
        means = "" if guest.confinement == "none" else f" · {guest.confinement}"
        return f"{guest.outcome}{means}"
    if guest.managed:
        return "not placed yet" if guest.running else "stopped"
    return guest.reason


def _percent(share: float | None) -> str:
    if share is None:
        return "–"
    return f"{100 * share:.{2 if 0 < abs(share) < 0.001 else 1}f} %"
