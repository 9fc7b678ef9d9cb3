"""PURE: the measuring program's lines as values, and what the batches of a pair are worth.

main.c documents the lines. Out of scope: starting the program (probe.py) and judging a whole run
(judge.py).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from proxmox_cpu_affinity.latency.schedule import Pair
from proxmox_cpu_affinity.model.cpuset import CPU_LIMIT
from proxmox_cpu_affinity.model.errors import MeasureError, SyntaxFault
from proxmox_cpu_affinity.model.ids import Cpu
from proxmox_cpu_affinity.model.latency import Method, PairSample, Verdict

VERSION = 1
BATCHES_LIMIT, TRIPS_LIMIT, PAIR_LIMIT_MS = 10_000, 100_000_000, 600_000  # as in pingpong.h

STEADY = 1.25
"""The median of a trusted pair is at most this multiple of its lowest batch: where half of the
batches are slower than that, the median says what the disturbance costs, not the line's way."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """How every pair is measured. Equal least and most batches are a fixed number of batches."""

    method: Method = Method.CAS
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

    @property
    def pair_limit_ms(self) -> int:
        """Time for one pair: the patience, and 10 us for each round trip it may take."""
        return min(self.patience_ms + self.trips * (self.batches_max + 1) // 100, PAIR_LIMIT_MS)

    @property
    def fixed(self) -> bool:
        return self.batches_min == self.batches_max

    def lines(self) -> str:
        """The program's input lines that say so."""
        return (
            f"method {self.method}\nbatch {self.trips}\nbatches-min {self.batches_min}\n"
            f"batches-max {self.batches_max}\nagree {self.agree}\nlimit-ms {self.pair_limit_ms}\n"
        )


ADAPTIVE = Parameters()


def fixed_or_adaptive(rounds: int | None, iterations: int | None) -> Parameters:
    """What PCA_ROUNDS and PCA_ITERATIONS ask for; None: unset. ValueError out of range.

    Rounds alone are that many batches of 100 round trips; iterations alone are the round trips of
    each batch, as many batches as it takes.
    """
    return Parameters(
        trips=ADAPTIVE.trips if iterations is None else iterations,
        batches_min=ADAPTIVE.batches_min if rounds is None else rounds,
        batches_max=ADAPTIVE.batches_max if rounds is None else rounds,
    )


@dataclass(frozen=True, slots=True)
class Greeting:
    version: int


@dataclass(frozen=True, slots=True)
class Batch:
    pair: Pair
    ns: float  # one way
    switches: int  # involuntary context switches of both threads


@dataclass(frozen=True, slots=True)
class Done:
    pair: Pair
    batches: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A pair that could not be measured; `reason` is the name of an errno."""

    pair: Pair
    reason: str


@dataclass(frozen=True, slots=True)
class Ran:
    pairs: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The program did not understand one of our lines."""

    line: int


Reply = Greeting | Batch | Done | Failed | Ran | Refused


def parse(line: str) -> Reply:
    """One line of the program. SyntaxFault for any other."""
    word, *rest = line.split() or [""]
    form = _FORMS.get(word)
    if form is None or len(rest) != form[0]:
        raise SyntaxFault(f"the measuring program said {line.strip()[:80]!r}")
    try:
        return form[1](rest)
    except ValueError:
        raise SyntaxFault(f"the measuring program said {line.strip()[:80]!r}") from None


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError
    return int(text)


def _pair(words: Sequence[str]) -> Pair:
    first, second = (_whole(word) for word in words[:2])
    if first >= CPU_LIMIT or second >= CPU_LIMIT:
        raise ValueError
    return Cpu(first), Cpu(second)


def _nanoseconds(text: str) -> float:
    ns = float(text)
    if not (math.isfinite(ns) and ns >= 0):
        raise ValueError
    return ns


_FORMS: dict[str, tuple[int, Callable[[Sequence[str]], Reply]]] = {
    "pingpong": (1, lambda words: Greeting(_whole(words[0]))),
    "batch": (4, lambda words: Batch(_pair(words), _nanoseconds(words[2]), _whole(words[3]))),
    "done": (3, lambda words: Done(_pair(words), _whole(words[2]))),
    "error": (3, lambda words: Failed(_pair(words), words[2])),
    "ran": (1, lambda words: Ran(_whole(words[0]))),
    "bad": (1, lambda words: Refused(_whole(words[0]))),
}
"""First word: the number of words after it, and what they make."""


def outcome(pair: Pair, replies: Sequence[Reply], *, agree: float) -> PairSample | Failed:
    """What the replies up to `ran` say of the one pair that was asked for.

    MeasureError where they speak of another pair, refuse a line, or lost some.
    """
    for reply in replies:
        if isinstance(reply, Refused):
            raise MeasureError(f"the measuring program does not understand line {reply.line}")
    match replies:
        case [Failed(named, _) as failed] if named == pair:
            return failed
        case [*others, Done(named, count)] if named == pair and count == len(others) > 0:
            batches = [reply for reply in others if isinstance(reply, Batch) and reply.pair == pair]
            if len(batches) == count:
                return sample(pair, batches, agree=agree)
    raise MeasureError(f"the measuring program's answer for CPUs {pair[0]} and {pair[1]} is broken")


def sample(pair: Pair, batches: Sequence[Batch], *, agree: float) -> PairSample:
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
    return PairSample(*pair, tuple(kept), Verdict.TRUSTED if trusted else Verdict.UNSTABLE)
