"""`status watch` on a terminal: the picture, drawn anew at each event until it is interrupted."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.cli.answers import read, read_list
from proxmox_cpu_affinity.cli.client import Client
from proxmox_cpu_affinity.cli.following import Told, follow
from proxmox_cpu_affinity.cli.watching import Picture, busy_of, line_of
from proxmox_cpu_affinity.formats import wire
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.linux.tree import Tree, capture_sysfs
from proxmox_cpu_affinity.model.errors import AffinityError
from proxmox_cpu_affinity.model.topology import Topology

PAUSE = 0.3  # seconds: what happens faster is asked for together, with the next load at the latest

Seen = tuple[Topology, wire.Status, Sequence[wire.GuestView]]


def show(client: Client, tree: Tree) -> None:
    """Until it is interrupted. ServiceDownError where nobody answers at first."""
    live = _Live(client, tree, Picture(*_seen(client, tree)))
    with ui.screen() as show_lines:

        def draw() -> None:
            show_lines(live.picture.lines(ui.width(), ui.height()))

        def lost(text: str) -> None:
            live.picture.trouble = text
            draw()

        draw()
        for told in follow(client, lost):
            live.hear(told)
            draw()


@dataclass(slots=True)
class _Live:
    """Keeps the picture up to date."""

    client: Client
    tree: Tree
    picture: Picture
    _old: bool = False  # something happened since it was asked
    _asked: float = field(default=0.0)

    def hear(self, told: Told) -> None:
        self.picture.trouble = ""
        if told.name == "load":
            self.picture.busy = busy_of(told)
        else:
            line = line_of(told)
            self.picture.happened.extend([] if line is None else [line])
            self._old = True
        now = time.monotonic()
        if self._old and now - self._asked >= PAUSE:
            self._asked = now
            self._look()

    def _look(self) -> None:
        """Ask for all that is shown; a service that just ends is met again by the stream."""
        try:
            seen = _seen(self.client, self.tree)
        except AffinityError:
            return
        self.picture.topology, self.picture.status, self.picture.guests = seen
        self._old = False


def _seen(client: Client, tree: Tree) -> Seen:
    return (
        topology(capture_sysfs(tree)),
        read(wire.Status, client.get("status")),
        read_list(wire.GuestView, client.get("guests")),
    )
