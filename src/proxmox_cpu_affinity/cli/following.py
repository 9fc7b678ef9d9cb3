"""Follows the service's events: goes on where it was when the connection is lost.

Out of scope: what is shown of them (watching).
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from proxmox_cpu_affinity.cli.answers import strange
from proxmox_cpu_affinity.cli.client import Client
from proxmox_cpu_affinity.model.errors import ServiceDownError

AGAIN = 2.0  # seconds until a lost service is asked again


@dataclass(frozen=True, slots=True)
class Told:
    """One event; `number` is empty where it has no id."""

    name: str
    data: Mapping[str, object]
    number: str = ""


def follow(client: Client, lost: Callable[[str], None]) -> Iterator[Told]:
    """Events for ever. ServiceDownError where nobody answers at first; later `lost` is told, once,
    and the service is asked again and again."""
    last, down = "", False
    while True:
        try:
            for told in events(client.lines("events", last=last)):
                last, down = told.number or last, False
                yield told
        except ServiceDownError as error:
            if not last:
                raise
            if not down:
                lost(error.text)
            down = True
        time.sleep(AGAIN)


def events(lines: Iterable[str]) -> Iterator[Told]:
    """The events that the lines of a stream spell; comments and unknown fields are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if line:
            fields[name] = value.removeprefix(" ")
        elif "event" in fields:
            yield Told(fields["event"], _data(fields.get("data", "")), fields.get("id", ""))
            fields = {}


def _data(text: str) -> Mapping[str, object]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise strange("an event is not JSON") from None
    if not isinstance(data, dict):
        raise strange("an event is no object")
    return data
