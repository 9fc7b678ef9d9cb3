"""What a check is: a name, and a function that looks at a patient and says one thing.

A check changes nothing. What it cannot know because something else is down, it says so; that other
thing has a check of its own. Out of scope: printing (commands.doctor).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from proxmox_cpu_affinity.cli.answers import read, read_list
from proxmox_cpu_affinity.cli.client import Client
from proxmox_cpu_affinity.cli.configured import settings_of
from proxmox_cpu_affinity.cli.words import listed
from proxmox_cpu_affinity.formats import pveconf, wire
from proxmox_cpu_affinity.formats.pveconf import GuestFile
from proxmox_cpu_affinity.formats.settings import Settings
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.linux.tree import Tree, capture_sysfs
from proxmox_cpu_affinity.model.errors import (
    AffinityError,
    ForbiddenError,
    NotPveHostError,
    ServiceDownError,
)
from proxmox_cpu_affinity.model.guest import GuestConfig
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.pve.guests import CONFIG_LIMIT, NodeGuests


class Verdict(StrEnum):
    """How a check ends."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """What was found, and what to do about it."""

    verdict: Verdict
    text: str
    advice: str = ""


def ok(text: str) -> Result:
    return Result(Verdict.OK, text)


def warning(text: str, advice: str) -> Result:
    return Result(Verdict.WARNING, text, advice)


def failed(text: str, advice: str) -> Result:
    return Result(Verdict.FAILED, text, advice)


class Patient:
    """What checks look at, each thing read once. Every property may raise an AffinityError."""

    def __init__(self, tree: Tree, client: Client) -> None:
        self.tree = tree
        self.client = client
        self.remedies = client.remedies

    @cached_property
    def node(self) -> str:
        return NodeGuests(self.tree).node

    @cached_property
    def _configs(self) -> tuple[Mapping[Vmid, GuestConfig], frozenset[Vmid]]:
        return NodeGuests(self.tree).configs()

    @property
    def configs(self) -> Mapping[Vmid, GuestConfig]:
        return dict(sorted(self._configs[0].items()))

    @property
    def unreadable(self) -> frozenset[Vmid]:
        return self._configs[1]

    def file(self, vmid: Vmid) -> GuestFile:
        """All of a guest's file; empty where it is gone by now."""
        path = f"etc/pve/nodes/{self.node}/qemu-server/{vmid}.conf"
        return pveconf.parse(self.tree.text(path, limit=CONFIG_LIMIT) or "")

    @cached_property
    def settings(self) -> tuple[Settings, tuple[str, ...]]:
        """As the service would read its file at its next start, and the warnings."""
        return settings_of(self.tree, {})

    @cached_property
    def topology(self) -> Topology:
        return topology(capture_sysfs(self.tree))

    @cached_property
    def status(self) -> wire.Status:
        return read(wire.Status, self.client.get("status"))

    @cached_property
    def guests(self) -> list[wire.GuestView]:
        return read_list(wire.GuestView, self.client.get("guests"))


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at."""

    name: str
    run: Callable[[Patient], Result]
    reads_guests: bool = False  # so it cannot tell of those whose configuration it may not read


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's line; the order of the fields is the order of its JSON."""

    check: str
    status: str
    text: str
    advice: str


def examined(patient: Patient, checks: Iterable[Check]) -> list[Finding]:
    """Run the checks in order; one that cannot go on keeps none of the others from it."""
    found = []
    for check in checks:
        try:
            result = check.run(patient)
            if check.reads_guests and result.verdict is Verdict.OK and patient.unreadable:
                named = listed("VM", sorted(patient.unreadable))
                result = warning(f"not known of {named}; else: {result.text}", "see the check: pve")
        except ServiceDownError as error:
            result = warning(f"not known: {error.text}", "see the check: service")
        except ForbiddenError as error:
            result = warning(f"not known: {error.text}", "run this as root")
        except NotPveHostError:
            result = warning("not known: this is no Proxmox VE node", "see the check: pve")
        except AffinityError as error:
            result = failed(error.text, error.hint)
        found.append(Finding(check.name, result.verdict, result.text, result.advice))
    return found
