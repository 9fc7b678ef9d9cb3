"""What became of the checks: the lines that are printed, and the table of promises at the end."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tests.e2e.promises import PROMISES


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Result:
    """One check that has ended."""

    suite: str
    name: str
    passed: bool
    shows: tuple[int, ...] = ()


@dataclass(slots=True)
class Report:
    """Hears the runner in the guest of one Debian; `act` does what a check asks of the host."""

    suite: str
    act: Callable[[str, int], None]
    expected: int = 0
    results: list[Result] = field(default_factory=list)

    def hear(self, line: str) -> None:
        """One line; anything but the runner's JSON is told as it is."""
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            if line.strip():
                say(f"  {line}")
        elif "checks" in told:
            self.expected = told["checks"]
        elif "host" in told:
            self.act(told["host"], told["cpu"])
        else:
            self._ended(told["check"], told["seconds"], tuple(told["shows"]), told["text"])

    def fail(self, what: str) -> None:
        """A failure that is not a check's own."""
        self.results.append(Result(self.suite, what, passed=False))

    def _ended(self, name: str, seconds: float, shows: tuple[int, ...], text: str) -> None:
        say(f"{'FAILED' if text else 'passed'}  {self.suite}: {name} ({seconds} s)")
        if text:
            say(text)
        self.results.append(Result(self.suite, name, passed=not text, shows=shows))


def table(results: Iterable[Result]) -> Iterator[str]:
    """Each promise with the checks that showed it, or failed to."""
    found: dict[str, dict[str, list[str]]] = {}
    promises: dict[str, tuple[int, ...]] = {}
    for result in results:
        outcomes = found.setdefault(result.name, {})
        outcomes.setdefault("passed" if result.passed else "FAILED", []).append(result.suite)
        promises.setdefault(result.name, result.shows)
    for number, text in PROMISES.items():
        yield f"{number}. {text}"
        names = [name for name, shows in promises.items() if number in shows]
        for name in names:
            how = "; ".join(f"{word} on {', '.join(on)}" for word, on in found[name].items())
            yield f"     {name}: {how}"
        if not names:
            yield "     no check of this run"
