"""PURE: the measuring program's lines as values, and what the batches of a pair are worth.

main.c documents the lines. Out of scope: starting the program (probe.py) and judging a whole run
(judge.py).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from proxmox_cpu_affinity.latency.schedule import Pair
from proxmox_cpu_affinity.model.cpuset import CPU_LIMIT
from proxmox_cpu_affinity.model.errors import MeasureError, SyntaxFault
from proxmox_cpu_affinity.model.ids import Cpu, NodeId
from proxmox_cpu_affinity.model.latency import Method, PairSample, Verdict

VERSION = 2
# As in pingpong.h.
BATCHES_LIMIT, TRIPS_LIMIT, LINES_LIMIT = 10_000, 100_000_000, 16
PAIR_LIMIT_US = 600_000_000

STEADY = 1.25
"""The median of a trusted pair is at most this multiple of its lowest batch: where half of the
batches are slower than that, the median says what the disturbance costs, not the line's way."""

BURST_US = 800
"""Time of a pair of CPUs that guests use: with what it takes to notice the time, below 1 ms."""


class Home(StrEnum):
    """The CPU of a pair on whose NUMA node the lines are."""

    FIRST = "first"
    SECOND = "second"


@dataclass(frozen=True, slots=True)
class Parameters:
    """How every pair is measured. Equal least and most batches are a fixed number of batches."""

    method: Method = Method.CAS
    home: Home = Home.FIRST
    lines: int = 4  # cache lines taken in turn, so that one in a far slice does not decide
    trips: int = 100  # round trips of a batch
    batches_min: int = 5
    batches_max: int = 30
    agree: float = 0.05  # share by which the two lowest batches may differ
    patience_ms: int = 500  # beyond what its round trips may take, for one pair
    time_limit: float = 120.0  # seconds for the whole run

    def __post_init__(self) -> None:
        if not 1 <= self.trips <= TRIPS_LIMIT:
            raise ValueError(f"a batch has 1 to {TRIPS_LIMIT} round trips")
        if not 1 <= self.batches_min <= self.batches_max <= BATCHES_LIMIT:
            raise ValueError(f"a pair has 1 to {BATCHES_LIMIT} batches")
        if not 1 <= self.lines <= LINES_LIMIT:
            raise ValueError(f"a pair has 1 to {LINES_LIMIT} lines")

    @property
    def pair_limit_us(self) -> int:
        """Time for one pair: the patience, and 10 us for each round trip it may take."""
        trips = self.trips * (self.batches_max + 1)
        return min(1000 * self.patience_ms + 10 * trips, PAIR_LIMIT_US)

    @property
    def fixed(self) -> bool:
        return self.batches_min == self.batches_max

    def text(self) -> str:
        """The program's input lines that say so."""
        return (
            f"method {self.method}\nhome {self.home}\nlines {self.lines}\nbatch {self.trips}\n"
            f"batches-min {self.batches_min}\nbatches-max {self.batches_max}\n"
            f"agree {self.agree}\n"
        )

    def order(self, rounds: Iterable[Sequence[Pair]], *, burst: bool = False) -> str:
        """The input lines that have these rounds measured, in bursts of BURST_US if so wished."""
        limit = min(BURST_US, self.pair_limit_us) if burst else self.pair_limit_us
        lines = [f"limit-us {limit}"]
        for pairs in rounds:
            lines += (f"pair {first} {second}" for first, second in pairs)
            lines.append("round")
        return "\n".join((*lines, "run\n"))


ADAPTIVE = Parameters()


def fixed_or_adaptive(
    rounds: int | None, iterations: int | None, method: Method = Method.CAS
) -> Parameters:
    """What PCA_ROUNDS and PCA_ITERATIONS ask for; None: unset. ValueError out of range.

    Rounds alone are that many batches of 100 round trips; iterations alone are the round trips of
    each batch, as many batches as it takes.
    """
    return Parameters(
        method=method,
        trips=ADAPTIVE.trips if iterations is None else iterations,
        batches_min=ADAPTIVE.batches_min if rounds is None else rounds,
        batches_max=ADAPTIVE.batches_max if rounds is None else rounds,
    )


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the program says first."""

    version: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One timed batch of round trips."""

    ns: float  # one way
    switches: int  # involuntary context switches of both threads


@dataclass(frozen=True, slots=True)
class Sampled:
    """A pair's batches in the order taken, and the node its lines were on (None: not known)."""

    pair: Pair
    node: NodeId | None
    batches: tuple[Batch, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A pair that could not be measured; `reason` is the name of an errno."""

    pair: Pair
    reason: str


@dataclass(frozen=True, slots=True)
class Ran:
    """The end of an answer: so many pairs were dealt with."""

    pairs: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The program did not understand one of our lines."""

    line: int


Reply = Greeting | Sampled | Failed | Ran | Refused


def parse(line: str) -> Reply:
    """One line of the program. SyntaxFault for any other."""
    word, *rest = line.split() or [""]
    form = _FORMS.get(word)
    try:
        if form is None:
            raise ValueError
        return form(rest)
    except ValueError:
        raise SyntaxFault(f"the measuring program said {line.strip()[:80]!r}") from None


def answered(pair: Pair, reply: Reply, *, agree: float) -> PairSample | Failed:
    """What the reply for this pair says of it. MeasureError for a reply to something else."""
    match reply:
        case Failed() if reply.pair == pair:
            return reply
        case Sampled() if reply.pair == pair:
            return sample(pair, reply.batches, agree=agree, node=reply.node)
    raise MeasureError(f"the measuring program's answer for CPUs {pair[0]} and {pair[1]} is broken")


def sample(
    pair: Pair, batches: Sequence[Batch], *, agree: float, node: NodeId | None = None
) -> PairSample:
    """The pair's sample: batches without an involuntary switch where there are two, else all.

    Trusted: most batches were free of switches, the two lowest of them agree, and the median is
    not far above them.
    """
    free = [batch.ns for batch in batches if batch.switches == 0]
    kept = sorted(free if len(free) >= 2 else [batch.ns for batch in batches])
    trusted = (
        len(free) >= 2
        and 2 * len(free) > len(batches)
        and kept[0] > 0
        and kept[1] <= kept[0] * (1 + agree)
        and median(kept) <= kept[0] * STEADY
    )
    return PairSample(*pair, tuple(kept), Verdict.TRUSTED if trusted else Verdict.UNSTABLE, node)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError
    return int(text)


def _one(words: Sequence[str]) -> int:
    (word,) = words
    return _whole(word)


def _pair(first: str, second: str) -> Pair:
    cpus = _whole(first), _whole(second)
    if max(cpus) >= CPU_LIMIT:
        raise ValueError
    return Cpu(cpus[0]), Cpu(cpus[1])


def _batch(word: str) -> Batch:
    ns, _, switches = word.partition(":")
    value = float(ns)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError
    return Batch(value, _whole(switches))


def _sampled(words: Sequence[str]) -> Sampled:
    first, second, node, *batches = words
    if not 1 <= len(batches) <= BATCHES_LIMIT:
        raise ValueError
    place = None if node == "-1" else NodeId(_whole(node))
    return Sampled(_pair(first, second), place, tuple(map(_batch, batches)))


def _failed(words: Sequence[str]) -> Failed:
    first, second, reason = words
    return Failed(_pair(first, second), reason)


_FORMS: dict[str, Callable[[Sequence[str]], Reply]] = {
    "pingpong": lambda words: Greeting(_one(words)),
    "sample": _sampled,
    "error": _failed,
    "ran": lambda words: Ran(_one(words)),
    "bad": lambda words: Refused(_one(words)),
}
"""First word, and what the others make; ValueError for what they cannot be."""
