"""What `status watch` shows: a line for each event, or the whole host as a picture of lines. Pure.

Out of scope: where events come from (following), how a picture gets to a terminal (ui).
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from proxmox_cpu_affinity.cli.following import Told
from proxmox_cpu_affinity.cli.hostmap import host_map, level_lines
from proxmox_cpu_affinity.cli.ui import plain_table
from proxmox_cpu_affinity.formats import wire
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.topology import Topology

BARS = "▁▂▃▄▅▆▇█"
KEPT = 8  # events that the picture shows
KEPT_LOW = 4  # ... on a terminal that is too low for all
COLUMNS = ("VMID", "Name", "Policy", "CPUs", "Nodes", "Held", "Busy", "Loses", "At best")

SPARED = ("Nodes", "Policy", "At best")  # columns that a narrow terminal has not, the first first


def line_of(told: Told) -> str | None:
    """An event as one line; None for the load, which would only fill the screen, and for the
    greeting of a new reader."""
    words = told.data
    match told.name:
        case "load":
            return None
        case "reset":
            reason = words.get("reason")
            return None if reason == "new" else f"some events were missed ({reason})"
        case "guest":
            said = f"guest {words.get('vmid')} {words.get('what')}: {words.get('text')}"
        case _:
            said = f"{told.name}: {words.get('text', '')}"
    return f"{_clock(words.get('time'))} {said}"


def _clock(stamp: object) -> str:
    """A time of the stream as the log writes it: here, to the second."""
    try:
        here = datetime.fromisoformat(str(stamp)).astimezone()
    except ValueError:
        return str(stamp)
    return here.strftime("%Y-%m-%d %H:%M:%S")


@dataclass(slots=True)
class Picture:
    """What is known, and its drawing."""

    topology: Topology
    status: wire.Status
    guests: Sequence[wire.GuestView]
    busy: Mapping[int, float] = field(default_factory=dict)
    happened: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))
    trouble: str = ""

    def lines(self, width: int, height: int | None = None) -> list[str]:
        """The picture from the top. Where `height` is too low for it, the load of each CPU goes
        first, for the table has each guest's; then the table's end, never what happened last."""
        held = {Vmid(g.vmid): CpuSet.parse(g.cpus) for g in self.guests if g.cpus}
        head = [*([f"connection lost: {self.trouble}"] if self.trouble else []), self._headline()]
        host = ["", *host_map(self.topology, held, _cpus(self.status.usable), width=width), ""]
        load = list(self._load(width)) if self.busy else []
        table = _table(list(self._rows()), width)
        tail = ["", *self.happened]
        if height is None or sum(map(len, (head, host, load, table, tail))) <= height:
            return [*head, *host, *load, *table, *tail]
        tail = tail[:1] + tail[1:][-KEPT_LOW:]
        return [*head, *_cut([*host, *table], height - len(head) - len(tail)), *tail]

    def _headline(self) -> str:
        now, score = self.status, self.status.score
        words = f"{now.guests_running} placed and running, {now.guests_confined} on their CPUs"
        if score is not None:
            words += f"; they lose {_percent(score.slowdown)}, at best {_percent(score.bound)}"
        measuring = "; the latency is being measured" if now.matrix.measuring else ""
        return f"{now.node or 'this host'}: {words}{measuring}"

    def _load(self, width: int) -> Iterator[str]:
        def drawn(cpus: CpuSet) -> str:
            return "".join(_bar(self.busy.get(cpu, 0.0)) for cpu in cpus)

        yield from level_lines(self.topology, drawn, width=width, align=False)
        yield ""

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for guest in self.guests:
            if guest.cpus:
                yield (
                    str(guest.vmid),
                    guest.name,
                    guest.policy,
                    guest.cpus,
                    ",".join(map(str, guest.nodes)),
                    guest.outcome,
                    self._busy(guest),
                    "" if guest.score is None else _percent(guest.score),
                    "" if guest.bound is None else _percent(guest.bound),
                )

    def _busy(self, guest: wire.GuestView) -> str:
        """How busy the guest's CPUs are on average, whoever uses them."""
        shares = [self.busy[cpu] for cpu in _cpus(guest.cpus) if cpu in self.busy]
        return f"{100 * sum(shares) / len(shares):.0f} %" if shares else ""


def _table(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The guests, without the columns that matter least where `width` has no room for all."""
    lines: list[str] = []
    for count in range(len(SPARED) + 1):
        kept = [i for i, name in enumerate(COLUMNS) if name not in SPARED[:count]]
        shown = [[row[i] for i in kept] for row in (COLUMNS, *rows)]
        lines = list(plain_table(shown[0], shown[1:]))
        if max(map(len, lines)) <= width:
            break
    return lines


def _cut(lines: Sequence[str], room: int) -> list[str]:
    """As many lines as there is room for, the last of them saying how many are missing."""
    if len(lines) <= room:
        return list(lines)
    shown = max(0, room - 1)
    return [*lines[:shown], f"({len(lines) - shown} more lines on a higher terminal)"]


def busy_of(told: Told) -> Mapping[int, float]:
    """The load that an event tells of; empty for what is none."""
    cpus, busy = told.data.get("cpus"), told.data.get("busy")
    if not isinstance(cpus, list) or not isinstance(busy, list):
        return {}
    return dict(zip(cpus, busy, strict=False))


def _bar(share: float) -> str:
    return BARS[min(len(BARS) - 1, int(share * len(BARS)))]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _cpus(text: str) -> CpuSet:
    try:
        return CpuSet.parse(text) if text else EMPTY
    except SyntaxFault:
        return EMPTY
