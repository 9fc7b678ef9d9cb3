"""The contract of the API, declared once: endpoints and what they take and give.

Server routes, the command line's client and /openapi.json are made from ENDPOINTS. Fields of the
inherited answers keep their names; new ones stand behind them. CPU sets are cpulists; times are
seconds; latencies ns, one way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import GenericAlias

from proxmox_cpu_affinity.formats import jsonvalue
from proxmox_cpu_affinity.formats.wire_query import Parameter
from proxmox_cpu_affinity.formats.wire_trial import Preview, Trial
from proxmox_cpu_affinity.model.errors import AffinityError, BadRequestError
from proxmox_cpu_affinity.model.guest import VCPUS_MOST, Policy
from proxmox_cpu_affinity.model.ids import VMID_MAX, VMID_MIN, Vmid, vmid_of

BODY_LIMIT = 64 * 1024
SOCKETS_MOST = 64
PLAN_MOST = 1000  # guests of one plan
RELEASED = "released"  # a guest that was let go by hand


@dataclass(frozen=True, slots=True)
class Ping:
    ping: str


@dataclass(frozen=True, slots=True)
class Problem:
    """An error, as RFC 9457 has it, with the family's code and hint."""

    title: str
    status: int
    detail: str
    code: str
    hint: str
    type: str = "about:blank"


@dataclass(frozen=True, slots=True)
class MatrixState:
    """What the latency matrix is worth, and whether it is being measured."""

    verdict: str  # trusted, unstable, predicted
    measured_share: float  # of the pairs, 0 to 1
    measuring: bool
    pairs_done: int
    pairs_all: int
    conditions: list[str]


@dataclass(frozen=True, slots=True)
class ScoreView:
    """What placed guests lose to one another and to distance, as shares of the average vCPU's
    time (0.05 = 5 %): as placed, at best, without any pinning, by round robin, and packed."""

    slowdown: float
    bound: float
    gap: float
    no_pinning: float
    round_robin: float
    packed: float


@dataclass(frozen=True, slots=True)
class Status:
    version: str
    uptime_s: float
    node: str
    model_name: str
    cpus: int
    usable: str
    packages: int
    nodes: int
    cache_groups: int
    strategy: str
    manage: str
    width: str
    confinement: str
    guests_running: int
    guests_confined: int
    overlap: str  # CPUs that more than one guest holds
    matrix: MatrixState
    warnings: list[str]
    confinement_reason: str = ""  # why it is not by their scopes
    score: ScoreView | None = None  # None: no guest is placed
    committed: int = 0  # vCPUs of the placed guests, in per cent of the usable CPUs


@dataclass(frozen=True, slots=True)
class CpuView:
    cpu: int
    core: int
    l2: int
    cache_group: int
    die: int
    package: int
    node: int
    kind: str


@dataclass(frozen=True, slots=True)
class NodeView:
    node: int
    cpus: str
    memory_mib: int | None
    distances: dict[str, int]


@dataclass(frozen=True, slots=True)
class TopologyView:
    model_name: str
    virtual: bool
    possible: str
    present: str
    online: str
    isolated: str
    cpus: list[CpuView]
    cores: list[str]
    cache_groups: list[str]
    packages: list[str]
    nodes: list[NodeView]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Neighbor:
    cpu: int
    socket: int
    core: int
    latency_ns: float


@dataclass(frozen=True, slots=True)
class Ranking:
    cpu: int
    ranking: list[Neighbor]


@dataclass(frozen=True, slots=True)
class MatrixView:
    """The matrix in force, short: of CPU cpus[i] the latencies to cpus[i + 1], cpus[i + 2] ..."""

    cpus: list[int]
    ns: list[list[float]]
    measured: list[str]  # the same with 1 for a measured pair, 0 for a predicted one
    method: str
    verdict: str


@dataclass(frozen=True, slots=True)
class RankingSummary:
    cpu_count: int
    socket_count: int
    min_latency_ns: float
    max_latency_ns: float
    median_latency_ns: float
    mean_latency_ns: float
    verdict: str


@dataclass(frozen=True, slots=True)
class GuestView:
    vmid: int
    name: str
    managed: bool
    reason: str  # why it is not managed
    policy: str
    vcpus: int
    running: bool
    pid: int | None
    cpus: str  # the CPUs chosen for it
    applied: str  # what its threads may use
    outcome: str  # full, part, failed, reserved, or empty
    confinement: str
    threads: int
    faults: list[str]
    warnings: list[str]
    reason_code: str = ""  # of `reason`: a value of model.guest.Exclusion, or RELEASED
    refused: str = ""  # why it could not be placed
    held_since: str = ""  # a value of model.placement.Held: from when on it was on its CPUs
    managed_by: str = ""  # what makes it ours: hook, tag or all
    nodes: list[int] = field(default_factory=list)  # that its CPUs lie on
    score: float | None = None  # what it loses to others and to distance, as a share of its time
    bound: float | None = None  # no placement of it alone loses less
    drift: int = 0  # how often threads were found elsewhere and put back
    confined_after_s: float | None = None  # from its start until it was held; None: not known
    width: str = ""  # a value of engine.report.Reach: how far its threads may go
    width_why: str = ""  # the same in words, with the reason


@dataclass(frozen=True, slots=True)
class CandidateView:
    cpus: str
    cost: float
    contention: float
    smt: float
    latency: float
    kind: float
    spread: float
    origin: str


@dataclass(frozen=True, slots=True)
class DecisionView:
    time: str  # ISO 8601, UTC; empty where it is not known any more
    vmid: int
    cpus: str
    start: int
    reason: str
    warnings: list[str]
    candidates: list[CandidateView]
    current: bool = False  # the guest has its CPUs by this decision
    told: str = ""  # as the log has it
    width: str = ""  # of a current one: what the guest's threads may use, and why
    recomputed: bool = False  # the candidates are of now, beside the guests of now


@dataclass(frozen=True, slots=True)
class HookAnswer:
    """What the hook prints: one line for the task log, or nothing."""

    vmid: int
    line: str
    cpus: str = ""
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class ReassignRow:
    vmid: int
    status: str  # success, failed, skipped
    notes: str
    cpus: str = ""  # those it has now
    before: str = ""  # those it had
    changed: bool = False  # whether these two differ
    told: str = ""  # what was read back, in words; empty where nothing was done


@dataclass(frozen=True, slots=True)
class PlanRow:
    vmid: int
    vcpus: int
    cpus: str
    start: int | None
    reason: str
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class PlanAnswer:
    guests: list[PlanRow]
    overlap: str


@dataclass(frozen=True, slots=True)
class HookBody:
    """Body of the four hook calls."""

    migrated_from: str = ""

    @staticmethod
    def read(body: Mapping[str, object]) -> "HookBody":
        jsonvalue.only(body, "migrated_from")
        return HookBody(jsonvalue.text(body, "migrated_from", ""))


@dataclass(frozen=True, slots=True)
class ReassignBody:
    undo: bool = False

    @staticmethod
    def read(body: Mapping[str, object]) -> "ReassignBody":
        jsonvalue.only(body, "undo")
        return ReassignBody(jsonvalue.boolean(body, "undo", default=False))


@dataclass(frozen=True, slots=True)
class PlanGuest:
    """As a guest's configuration would have it: `numa` with several sockets is one host node for
    each of these, `policy` what its tags say."""

    vmid: int = field(metadata={"minimum": VMID_MIN, "maximum": VMID_MAX})
    vcpus: int = field(metadata={"minimum": 1, "maximum": VCPUS_MOST})
    sockets: int = field(default=1, metadata={"minimum": 1, "maximum": SOCKETS_MOST})
    numa: bool = False
    policy: str = field(default=Policy.SHARED.value, metadata={"enum": [str(p) for p in Policy]})

    @staticmethod
    def read(entry: Mapping[str, object]) -> "PlanGuest":
        jsonvalue.only(entry, "vmid", "vcpus", "sockets", "numa", "policy")
        policy = jsonvalue.text(entry, "policy", Policy.SHARED)
        if policy not in tuple(Policy):
            raise BadRequestError(f"'policy' must be one of {', '.join(Policy)}")
        return PlanGuest(
            jsonvalue.whole(entry, "vmid", low=VMID_MIN, high=VMID_MAX),
            jsonvalue.whole(entry, "vcpus", low=1, high=VCPUS_MOST),
            jsonvalue.whole({"sockets": 1, **entry}, "sockets", low=1, high=SOCKETS_MOST),
            jsonvalue.boolean(entry, "numa", default=False),
            str(policy),
        )


@dataclass(frozen=True, slots=True)
class PlanBody:
    guests: list[PlanGuest] = field(metadata={"maxItems": PLAN_MOST})

    @staticmethod
    def read(body: Mapping[str, object]) -> "PlanBody":
        jsonvalue.only(body, "guests")
        guests = [
            PlanGuest.read(entry) for entry in jsonvalue.objects(body, "guests", most=PLAN_MOST)
        ]
        if len({guest.vmid for guest in guests}) < len(guests):
            raise BadRequestError("a guest stands twice in the plan")
        return PlanBody(guests)


SVG, EVENT_STREAM, PLAIN = "image/svg+xml", "text/event-stream", "text/plain"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation. `acts`: it changes something, so the caller needs the right to write."""

    name: str
    method: str
    path: str
    summary: str
    answer: type | GenericAlias
    body: type[HookBody] | type[ReassignBody] | type[PlanBody] | None = None
    acts: bool = False
    media: str = "application/json"
    query: tuple[Parameter, ...] = ()


_TRY = (
    Parameter("vcpus", "vCPUs of the new guest", low=1, high=VCPUS_MOST, required=True),
    Parameter("policy", "Its policy; shared if not given", choices=tuple(Policy)),
    Parameter("sockets", "Its virtual sockets; 1 if not given", low=1, high=SOCKETS_MOST),
    Parameter("numa", "Whether it has virtual NUMA: one host node a socket", choices=("0", "1")),
)
_FLAG = ("0", "1", "false", "true")

_GUEST = "/api/v1/guests/{vmid}"

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("ping", "GET", "/api/v1/ping", "Answers that the service lives", Ping),
    Endpoint("status", "GET", "/api/v1/status", "What the service knows and does", Status),
    Endpoint("topology", "GET", "/api/v1/topology", "The host's topology", TopologyView),
    Endpoint(
        "core_ranking",
        "GET",
        "/api/v1/core-ranking",
        "For each CPU the others, nearest first",
        list[Ranking],
    ),
    Endpoint(
        "core_ranking_summary",
        "GET",
        "/api/v1/core-ranking/summary",
        "Figures of the latency matrix",
        RankingSummary,
    ),
    Endpoint(
        "core_vm_affinity",
        "GET",
        "/api/v1/core-vm-affinity",
        "The CPUs of each placed guest",
        dict[str, list[int]],
    ),
    Endpoint("guests", "GET", "/api/v1/guests", "The guests of this node", list[GuestView]),
    Endpoint("guest", "GET", _GUEST, "One guest", GuestView),
    Endpoint(
        "decisions",
        "GET",
        "/api/v1/decisions",
        "The decisions that hold, by guest, then earlier ones, newest first",
        list[DecisionView],
        query=(Parameter("vmid", "Of this guest alone", low=VMID_MIN, high=VMID_MAX),),
    ),
    Endpoint(
        "heatmap",
        "GET",
        "/api/v1/heatmap.svg",
        "The matrix as a picture",
        str,
        media=SVG,
        query=(
            Parameter("affinity", "Whether the guests' CPUs are marked", choices=_FLAG),
            Parameter("bare", "Without its style element, to stand in a page", choices=_FLAG),
        ),
    ),
    Endpoint("matrix", "GET", "/api/v1/matrix", "The matrix as numbers", MatrixView),
    Endpoint(
        "events",
        "GET",
        "/api/v1/events",
        "What happens, as server-sent events; goes on behind Last-Event-ID",
        str,
        media=EVENT_STREAM,
    ),
    Endpoint(
        "try_guest",
        "GET",
        "/api/v1/try",
        "Where a further guest would go, and what it would cost the others; changes nothing",
        Trial,
        query=_TRY,
    ),
    Endpoint(
        "preview",
        "GET",
        "/api/v1/preview",
        "Which guests would move if all were placed anew, or rebalanced; changes nothing",
        Preview,
        query=(Parameter("by", "reassign if not given", choices=("reassign", "rebalance")),),
    ),
    Endpoint("metrics", "GET", "/metrics", "Figures for Prometheus", str, media=PLAIN),
    Endpoint(
        "pre_start",
        "POST",
        f"{_GUEST}/pre-start",
        "A start begins",
        HookAnswer,
        HookBody,
        acts=True,
    ),
    Endpoint(
        "post_start", "POST", f"{_GUEST}/post-start", "It started", HookAnswer, HookBody, acts=True
    ),
    Endpoint(
        "pre_stop", "POST", f"{_GUEST}/pre-stop", "A stop begins", HookAnswer, HookBody, acts=True
    ),
    Endpoint(
        "post_stop", "POST", f"{_GUEST}/post-stop", "It stopped", HookAnswer, HookBody, acts=True
    ),
    Endpoint(
        "reassign_guest",
        "POST",
        f"{_GUEST}/reassign",
        "Place one guest anew, or let it go",
        ReassignRow,
        ReassignBody,
        acts=True,
    ),
    Endpoint(
        "reassign_all",
        "POST",
        "/api/v1/reassign",
        "Place all guests anew, or let them go",
        list[ReassignRow],
        ReassignBody,
        acts=True,
    ),
    Endpoint(
        "plan",
        "POST",
        "/api/v1/plan",
        "Where guests would go; changes nothing",
        PlanAnswer,
        PlanBody,
    ),
    # The routes of the Go project until 0.0.5. The last is a GET that acts.
    Endpoint("ping", "GET", "/api/ping", "As it was", Ping),
    Endpoint("core_ranking", "GET", "/api/ranking", "As it was", list[Ranking]),
    Endpoint("vm_started", "GET", "/api/vmstarted/{vmid}", "As it was", dict[str, str], acts=True),
)


@dataclass(frozen=True, slots=True)
class OldProblem:
    """An error on the routes of the Go project."""

    error: str


def is_old(path: str) -> bool:
    """Whether a path is one of the Go project's, whose errors have their own form."""
    return path.startswith("/api/") and not path.startswith("/api/v1/")


def problem(error: AffinityError) -> Problem:
    """What an error says over the API."""
    title = error.code.replace("-", " ")
    return Problem(title, error.http_status, error.text, error.code, error.hint)


def read_vmid(number: str) -> Vmid:
    """The VMID in a path. BadRequestError for what PVE would not take as one."""
    vmid = vmid_of(number)
    if vmid is None:
        raise BadRequestError(
            f"{number[:20]!r} is no VMID", hint=f"a VMID is a number from {VMID_MIN} to {VMID_MAX}"
        )
    return vmid
