"""The endpoints of the API, declared once: what each is asked for, takes and gives.

Server routes, the command line's client and /openapi.json are made from ENDPOINTS. What the types
mean is said where they are: wire, wire_bodies, wire_query, wire_trial, wire_events.
"""

from dataclasses import dataclass
from types import GenericAlias

from proxmox_cpu_affinity.formats import wire
from proxmox_cpu_affinity.formats.wire_bodies import SOCKETS_MOST, HookBody, PlanBody, ReassignBody
from proxmox_cpu_affinity.formats.wire_query import Parameter
from proxmox_cpu_affinity.formats.wire_trial import Preview, Trial
from proxmox_cpu_affinity.model.errors import BadRequestError
from proxmox_cpu_affinity.model.guest import VCPUS_MOST, Policy
from proxmox_cpu_affinity.model.ids import VMID_MAX, VMID_MIN, Vmid, vmid_of

SVG, EVENT_STREAM, PLAIN = "image/svg+xml", "text/event-stream", "text/plain"

Body = type[HookBody] | type[ReassignBody] | type[PlanBody]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation. `acts`: it changes something, so the caller needs the right to write."""

    name: str
    method: str
    path: str
    summary: str
    answer: type | GenericAlias
    body: Body | None = None
    acts: bool = False
    media: str = "application/json"
    query: tuple[Parameter, ...] = ()


def _read(
    name: str,
    path: str,
    summary: str,
    answer: type | GenericAlias,
    *query: Parameter,
    media: str = "application/json",
) -> Endpoint:
    """One that only tells something."""
    return Endpoint(name, "GET", path, summary, answer, media=media, query=query)


def _hook(phase: str, summary: str) -> Endpoint:
    """One that the hookscript calls, in a phase as PVE names it."""
    name, path = phase.replace("-", "_"), f"{_GUEST}/{phase}"
    return Endpoint(name, "POST", path, summary, wire.HookAnswer, HookBody, acts=True)


_V1 = "/api/v1"
_GUEST = f"{_V1}/guests/{{vmid}}"
_FLAG = ("0", "1", "false", "true")
_TRY = (
    Parameter("vcpus", "vCPUs of the new guest", low=1, high=VCPUS_MOST, required=True),
    Parameter("policy", "Its policy; shared if not given", choices=tuple(Policy)),
    Parameter("sockets", "Its virtual sockets; 1 if not given", low=1, high=SOCKETS_MOST),
    Parameter("numa", "Whether it has virtual NUMA: one host node a socket", choices=("0", "1")),
)

ENDPOINTS: tuple[Endpoint, ...] = (
    _read("ping", f"{_V1}/ping", "Answers that the service lives", wire.Ping),
    _read("status", f"{_V1}/status", "What the service knows and does", wire.Status),
    _read("topology", f"{_V1}/topology", "The host's topology", wire.TopologyView),
    _read(
        "core_ranking",
        f"{_V1}/core-ranking",
        "For each CPU the others, nearest first",
        list[wire.Ranking],
    ),
    _read(
        "core_ranking_summary",
        f"{_V1}/core-ranking/summary",
        "Figures of the latency matrix",
        wire.RankingSummary,
    ),
    _read(
        "core_vm_affinity",
        f"{_V1}/core-vm-affinity",
        "The CPUs of each placed guest",
        dict[str, list[int]],
    ),
    _read("guests", f"{_V1}/guests", "The guests of this node", list[wire.GuestView]),
    _read("guest", _GUEST, "One guest", wire.GuestView),
    _read(
        "decisions",
        f"{_V1}/decisions",
        "The decisions that hold, by guest, then earlier ones, newest first",
        list[wire.DecisionView],
        Parameter("vmid", "Of this guest alone", low=VMID_MIN, high=VMID_MAX),
    ),
    _read(
        "heatmap",
        f"{_V1}/heatmap.svg",
        "The matrix as a picture",
        str,
        Parameter("affinity", "Whether the guests' CPUs are marked", choices=_FLAG),
        Parameter("bare", "Without its style element, to stand in a page", choices=_FLAG),
        media=SVG,
    ),
    _read("matrix", f"{_V1}/matrix", "The matrix as numbers", wire.MatrixView),
    _read(
        "events",
        f"{_V1}/events",
        "What happens, as server-sent events; goes on behind Last-Event-ID",
        str,
        media=EVENT_STREAM,
    ),
    _read(
        "try_guest",
        f"{_V1}/try",
        "Where a further guest would go, and what it would cost the others; changes nothing",
        Trial,
        *_TRY,
    ),
    _read(
        "preview",
        f"{_V1}/preview",
        "Which guests would move if all were placed anew, or rebalanced; changes nothing",
        Preview,
        Parameter("by", "reassign if not given", choices=("reassign", "rebalance")),
    ),
    _read("metrics", "/metrics", "Figures for Prometheus", str, media=PLAIN),
    _hook("pre-start", "A start begins"),
    _hook("post-start", "It started"),
    _hook("pre-stop", "A stop begins"),
    _hook("post-stop", "It stopped"),
    Endpoint(
        "reassign_guest",
        "POST",
        f"{_GUEST}/reassign",
        "Place one guest anew, or let it go",
        wire.ReassignRow,
        ReassignBody,
        acts=True,
    ),
    Endpoint(
        "reassign_all",
        "POST",
        f"{_V1}/reassign",
        "Place all guests anew, or let them go",
        list[wire.ReassignRow],
        ReassignBody,
        acts=True,
    ),
    Endpoint(
        "plan",
        "POST",
        f"{_V1}/plan",
        "Where guests would go; changes nothing",
        wire.PlanAnswer,
        PlanBody,
    ),
    # The routes of the Go project until 0.0.5. The last is a GET that acts.
    _read("ping", "/api/ping", "As it was", wire.Ping),
    _read("core_ranking", "/api/ranking", "As it was", list[wire.Ranking]),
    Endpoint("vm_started", "GET", "/api/vmstarted/{vmid}", "As it was", dict[str, str], acts=True),
)


def is_old(path: str) -> bool:
    """Whether a path is one of the Go project's, whose errors have their own form."""
    return path.startswith("/api/") and not path.startswith(f"{_V1}/")


def read_vmid(number: str) -> Vmid:
    """The VMID in a path. BadRequestError for what PVE would not take as one."""
    vmid = vmid_of(number)
    if vmid is None:
        raise BadRequestError(
            f"{number[:20]!r} is no VMID", hint=f"a VMID is a number from {VMID_MIN} to {VMID_MAX}"
        )
    return vmid
