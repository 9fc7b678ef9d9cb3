"""The guests to plan: those that --guest names, or those of this node by their configurations.

Out of scope: where they go, and the host (cli.hosts).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from proxmox_cpu_affinity.cli import ui
from proxmox_cpu_affinity.formats import pveschema, wire_bodies
from proxmox_cpu_affinity.formats.settings import Settings
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import NotPveHostError, UsageError
from proxmox_cpu_affinity.model.guest import (
    TAG_OFF,
    TAG_ON,
    VCPUS_MOST,
    Policy,
    Request,
    described,
)
from proxmox_cpu_affinity.model.ids import VMID_MAX, VMID_MIN, Vmid, vmid_of
from proxmox_cpu_affinity.pve.guests import NodeGuests

FORM = "ID:VCPUS[:SOCKETS][:TAGS]"
_HINT = "write it like 100:4, 100:8:2 (2 sockets) or 100:4:cpu-pinned"
_TAGS = tuple(f"cpu-{policy}" for policy in Policy)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The guests to place, and those of this node that are not ours, with the reason."""

    requests: tuple[Request, ...]
    left_alone: tuple[tuple[Request, str], ...] = ()


def given(guests: Sequence[str]) -> Wanted:
    """The guests that --guest names. UsageError naming the part that is wrong."""
    requests: dict[Vmid, Request] = {}
    for text in guests:
        request = _guest(text)
        if request.vmid in requests:
            raise UsageError(
                f"--guest {text}: guest {request.vmid} is given twice",
                hint="each guest needs a VMID of its own",
            )
        requests[request.vmid] = request
    if len(requests) > wire_bodies.PLAN_MOST:
        raise UsageError(
            f"{len(requests)} guests are named, and a plan has {wire_bodies.PLAN_MOST} at most",
            hint="plan for fewer",
        )
    return Wanted(tuple(requests.values()))


def _guest(text: str) -> Request:
    """As the service would ask for a guest with this configuration."""
    from proxmox_cpu_affinity.reconcile.placing import request_for  # it imports numpy

    number, *rest = text.split(":")
    vmid = vmid_of(number)
    if vmid is None:
        hint = f"a VMID is a number from {VMID_MIN} to {VMID_MAX}; {_HINT}"
        raise _wrong(text, f"{number!r} is no VMID", hint)
    if len(rest) > 3:
        raise _wrong(text, f"{len(rest) + 1} parts, and it is {FORM}")
    vcpus = _count(text, rest[0] if rest else "", "vCPUs", VCPUS_MOST)
    named = rest[1:]
    if len(named) == 1 and named[0] and not named[0].isdigit():
        named = ["", *named]
    sockets = _count(text, named[0] or "1", "sockets", wire_bodies.SOCKETS_MOST) if named else 1
    if vcpus % sockets:
        below = vcpus - vcpus % sockets
        even = f"{below} or {below + sockets}" if below else f"{sockets}"
        raise _wrong(
            text,
            f"{vcpus} vCPUs are not even in {sockets} sockets",
            f"it could have {even} vCPUs, or other sockets",
        )
    tags = _tags(text, named[1]) if len(named) > 1 else ()
    return request_for(described(vmid, vcpus, sockets=sockets, numa=True, tags=tags), None)


def _count(text: str, word: str, what: str, most: int) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 9 and 1 <= int(word) <= most):
        raise _wrong(text, f"{word!r} is no number of {what} (1 to {most})")
    return int(word)


def _tags(text: str, words: str) -> tuple[str, ...]:
    tags = pveschema.split_list(words)
    known = f"known are {', '.join(_TAGS)}"
    if not tags:
        raise _wrong(text, "no tag stands behind the last colon", known)
    for tag in tags:
        if tag == TAG_OFF:
            raise _wrong(text, f"a guest tagged {TAG_OFF} is left alone", "leave the guest out")
        if tag not in (*_TAGS, TAG_ON):
            raise _wrong(text, f"{tag!r} is no tag that decides about CPUs", known)
    return tags


def _wrong(text: str, why: str, hint: str = _HINT) -> UsageError:
    return UsageError(f"--guest {text}: {why}", hint=hint)


def of_node(tree: Tree, configured: Settings) -> Wanted:
    """The guests of this node, the managed ones to be placed. UsageError where it has none."""
    from proxmox_cpu_affinity.reconcile.placing import request_for
    from proxmox_cpu_affinity.render.lines import excluded

    try:
        configs, unreadable = NodeGuests(tree).configs()
    except NotPveHostError as error:
        raise UsageError(
            "no guest is named, and this is no Proxmox VE node",
            hint="name guests: --guest 100:4 --guest 101:8",
        ) from error
    requests, left_alone = [], []
    for vmid in sorted(configs):
        request = request_for(configs[vmid], None)
        reason = configs[vmid].exclusion(configured.manage)
        if reason is None:
            requests.append(request)
        else:
            left_alone.append((request, f"left alone: {excluded(reason)}"))
    for vmid in sorted(unreadable):
        ui.warn(f"VM {vmid}: its configuration cannot be read")
    return Wanted(tuple(requests), tuple(left_alone))
