"""Colours for latencies: from ns to a level, from a level to a colour that everybody can tell.

The ramp is viridis (matplotlib, CC0) from its light end, so that near is light and far is dark:
it is perceptually even, also in grey and with every kind of colour blindness.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import log

LEVELS = 64
_VIRIDIS = (
    (0xFD, 0xE7, 0x25),
    (0xAD, 0xDC, 0x30),
    (0x5E, 0xC9, 0x62),
    (0x28, 0xAE, 0x80),
    (0x21, 0x91, 0x8C),
    (0x2C, 0x72, 0x8E),
    (0x3B, 0x52, 0x8B),
    (0x47, 0x2C, 0x7A),
    (0x44, 0x01, 0x54),
)
_LOWEST_NS = 0.1  # a logarithm needs something above zero
_OUTLIERS = 0.005  # share of the highest values that may lie beyond the scale's end
_STEPS = 100


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale over latencies: half of a colour's place is the logarithm, half is the rank.

    SMT siblings are ten times nearer than any other pair: by the logarithm alone they would take
    half of the colours, and cache groups and packages would look alike.
    """

    shares: tuple[float, ...]  # 0 to 1, ascending
    ns: tuple[float, ...]  # the latency at each of these shares
    clipped: bool = False  # values beyond the end exist and get its colour

    @staticmethod
    def over(values: Sequence[float]) -> "Scale":
        """The scale for these latencies; a few wild ones must not take all the contrast."""
        ordered = sorted(max(value, _LOWEST_NS) for value in values) or [_LOWEST_NS]
        last = len(ordered) - 1
        most = ordered[int(last * (1 - _OUTLIERS))]
        clipped = ordered[-1] >= 2 * most
        last = bisect_right(ordered, most) - 1 if clipped else last
        ns = tuple(ordered[last * i // _STEPS] for i in range(_STEPS + 1))
        length = log(ns[-1] / ns[0]) or 1.0
        shares = tuple((log(x / ns[0]) / length + i / _STEPS) / 2 for i, x in enumerate(ns))
        return Scale(shares, ns, clipped)

    @property
    def low(self) -> float:
        return self.ns[0]

    @property
    def high(self) -> float:
        return self.ns[-1]

    def at(self, share: float) -> float:
        """The latency in ns at a share (0 to 1) of the scale's length."""
        after = min(max(bisect_right(self.shares, share), 1), len(self.shares) - 1)
        left, right = self.shares[after - 1], self.shares[after]
        if share >= right:
            return self.ns[after]
        near, far = self.ns[after - 1], self.ns[after]
        return min(far, near + (far - near) * (share - left) / (right - left))

    def edges(self) -> list[float]:
        """The LEVELS - 1 latencies at which a next level begins."""
        return [self.at(i / LEVELS) for i in range(1, LEVELS)]

    def levels(self, values: Sequence[float], edges: Sequence[float]) -> list[int]:
        """The level of each value, 0 the nearest. O(n log LEVELS)."""
        if self.low == self.high:
            return [0] * len(values)
        return [bisect_right(edges, value) for value in values]


def colour(level: int) -> str:
    """The colour of a level, #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*_rgb(level))


def stops() -> tuple[str, ...]:
    """The colours that a gradient over the whole scale runs through, evenly apart."""
    return tuple("#{:02x}{:02x}{:02x}".format(*rgb) for rgb in _VIRIDIS)


def is_dark(level: int) -> bool:
    """Whether white text stands out better from this level's colour than black (WCAG contrast)."""
    red, green, blue = (
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
        for c in (part / 255 for part in _rgb(level))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.179


def _rgb(level: int) -> tuple[int, int, int]:
    place = level / (LEVELS - 1) * (len(_VIRIDIS) - 1)
    index = min(int(place), len(_VIRIDIS) - 2)
    share = place - index
    red, green, blue = (
        round(a + (b - a) * share)
        for a, b in zip(_VIRIDIS[index], _VIRIDIS[index + 1], strict=True)
    )
    return red, green, blue
