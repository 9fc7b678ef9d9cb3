"""What the API answers: a type for each answer, and for errors.

Fields of the inherited answers keep their names; new ones stand behind them. CPU sets are cpulists;
times are seconds; latencies ns, one way. Out of scope: what it takes (wire_bodies, wire_query), and
where it is asked (endpoints).
"""

from dataclasses import dataclass, field

from proxmox_cpu_affinity.model.errors import AffinityError

RELEASED = "released"  # a guest that was let go by hand


@dataclass(frozen=True, slots=True)
class Ping:
    ping: str


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
class Problem:
    """An error, as RFC 9457 has it, with the family's code and hint."""

    title: str
    status: int
    detail: str
    code: str
    hint: str
    type: str = "about:blank"


@dataclass(frozen=True, slots=True)
class OldProblem:
    """An error on the routes of the Go project."""

    error: str


def problem(error: AffinityError) -> Problem:
    """What an error says over the API."""
    title = error.code.replace("-", " ")
    return Problem(title, error.http_status, error.text, error.code, error.hint)
