"""Answers to "what if": a further guest (`try`), and placing everybody anew (`preview`).

Scores and gains are shares of a vCPU's time (0.05: 5 %). Nothing is changed by asking.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What a further guest does to one that is there."""

    vmid: int
    cpus: str
    before: float  # its score now
    after: float  # ... and beside the new guest


@dataclass(frozen=True, slots=True)
class HostScore:
    """The score of all placed guests, beside the bound."""

    slowdown: float
    bound: float


@dataclass(frozen=True, slots=True)
class Trial:
    """Where a further guest would go. `refused` says why it could not start on CPUs of its own."""

    vcpus: int
    policy: str
    cpus: str
    nodes: list[int]
    cache_groups: list[int]
    start: int | None
    reason: str
    refused: str
    warnings: list[str]
    score: float | None  # the new guest's
    bound: float | None
    others: list[Neighbour]  # those who would feel it
    cost: float  # what these lose together, in shares of one vCPU's time
    before: HostScore | None  # None: no guest is placed
    after: HostScore | None


@dataclass(frozen=True, slots=True)
class Move:
    """One guest that would move."""

    vmid: int
    before: str
    after: str
    gain: float  # what it and its neighbours save, in shares of one vCPU's time
    cost: float  # what moving costs: cold caches, memory on another node
    reason: str


@dataclass(frozen=True, slots=True)
class Preview:
    """The moves, in their order, and the host's score before and after all of them."""

    by: str  # reassign, rebalance
    moves: list[Move]
    staying: list[int]  # guests that keep their CPUs
    before: HostScore | None
    after: HostScore | None
