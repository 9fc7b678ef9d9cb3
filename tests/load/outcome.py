"""What one part of the load tests came to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """A line of figures, and what was wrong in words."""

    name: str
    line: str
    wrong: tuple[str, ...] = ()
