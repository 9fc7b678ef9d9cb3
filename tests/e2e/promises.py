"""What the project promises, and the marks by which checks say which promise they show."""

from collections.abc import Callable
from typing import TypeVar

PROMISES = {
    1: "a guest's start is never aborted and never held",
    2: "what it reports was read back from the kernel",
    3: "it touches only guests it was told to manage",
    4: "everything can be undone, and every guest still starts",
    5: "it decides the same from the same facts, and explains it",
    6: "a restart, a SIGKILL or a lost state file costs no placement",
    7: "it never makes a host worse than no pinning without saying so",
}

Check = TypeVar("Check", bound=Callable[[], None])


def shows(*promises: int) -> Callable[[Check], Check]:
    """Mark a check with the promises that it shows; none: what they stand on."""
    unknown = set(promises) - PROMISES.keys()
    if unknown:
        raise ValueError(f"there are no promises {unknown}")

    def mark(check: Check) -> Check:
        check.__dict__["promises"] = promises
        return check

    return mark


def by_hand(check: Check) -> Check:
    """Mark a check that takes too long for every run: `--full` runs it."""
    check.__dict__["by_hand"] = True
    return check


def promises_of(check: Callable[[], None]) -> tuple[int, ...]:
    """The promises that a check shows. ValueError where it was not marked."""
    found = getattr(check, "promises", None)
    if not isinstance(found, tuple):
        raise ValueError(f"{check.__qualname__} does not say which promises it shows")
    return found
