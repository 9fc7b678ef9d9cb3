"""What the engine says of a decision: the candidates, what each would have cost, and why.

The same record feeds the log line, the decisions of the API, and the goldens of the scenarios.
"""

from dataclasses import dataclass

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.placement import Placement


@dataclass(frozen=True, slots=True)
class Terms:
    """The cost of a set, in shares of one vCPU's time; the sum decides, lower is better."""

    contention: float = 0.0  # other guests on the same CPUs
    smt: float = 0.0  # other guests on the siblings, now or to be expected; own vCPUs there
    latency: float = 0.0
    kind: float = 0.0  # efficiency cores
    spread: float = 0.0  # load of the cache groups used, or free CPUs there: settles near-ties

    @property
    def total(self) -> float:
        return self.contention + self.smt + self.latency + self.kind + self.spread


@dataclass(frozen=True, slots=True)
class Candidate:
    """A set that was considered."""

    home: CpuSet
    terms: Terms
    origin: str  # plain words: how it was found


@dataclass(frozen=True, slots=True)
class Decision:
    """A placement with its reasons. `candidates` are cheapest first; the first is not always the
    one chosen: a guest's old place is kept while nothing is clearly better."""

    placement: Placement
    candidates: tuple[Candidate, ...]
    reason: str
