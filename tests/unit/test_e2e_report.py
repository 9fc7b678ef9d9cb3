"""What `make e2e` makes of what the guest tells, and how its figures reach the last line."""

import json
from pathlib import Path

import pytest

from tests.counts import leave, left
from tests.e2e.promises import PROMISES, promises_of, shows
from tests.e2e.report import Report, Result, table


def report() -> tuple[Report, list[tuple[str, int]]]:
    asked: list[tuple[str, int]] = []
    return Report("trixie", lambda action, cpu: asked.append((action, cpu))), asked


def test_checks_are_heard_and_their_failures_told(capsys: pytest.CaptureFixture[str]) -> None:
    heard, asked = report()
    for line in (
        {"checks": 2},
        {"host": "remove_cpu", "cpu": 7},
        {"check": "a.good", "shows": [1], "passed": True, "seconds": 1.5, "text": ""},
        {"check": "a.bad", "shows": [1, 4], "passed": False, "seconds": 2, "text": "why"},
    ):
        heard.hear(json.dumps(line))
    heard.hear("a warning of Python's")
    heard.hear("[1, 2]")
    assert heard.expected == 2
    assert asked == [("remove_cpu", 7)]
    assert heard.results == [
        Result("trixie", "a.good", passed=True, shows=(1,)),
        Result("trixie", "a.bad", passed=False, shows=(1, 4)),
    ]
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "passed  trixie: a.good (1.5 s)",
        "FAILED  trixie: a.bad (2 s)",
        "why",
        "  a warning of Python's",
        "  [1, 2]",
    ]


def test_table_has_every_promise_and_who_showed_it() -> None:
    lines = list(
        table(
            [
                Result("trixie", "a.good", passed=True, shows=(1,)),
                Result("bookworm", "a.good", passed=False, shows=(1,)),
                Result("trixie", "the runner ended", passed=False),
            ]
        )
    )
    assert [line[0] for line in lines if not line.startswith(" ")] == [str(n) for n in PROMISES]
    assert lines[1] == "     a.good: passed on trixie; FAILED on bookworm"
    assert lines.count("     no check of this run") == len(PROMISES) - 1


def test_check_that_does_not_say_what_it_shows_is_refused() -> None:
    def check() -> None: ...

    with pytest.raises(ValueError, match="does not say"):
        promises_of(check)
    assert promises_of(shows(2, 3)(check)) == (2, 3)
    with pytest.raises(ValueError, match="no promises"):
        shows(99)


@pytest.mark.parametrize(
    ("content", "figures"),
    [
        ('{"passed": 30, "failed": 2}', (30, 2)),
        ("", (0, 1)),
        ("7", (0, 1)),
        ('{"passed": 3}', (0, 1)),
        (None, (0, 1)),
    ],
)
def test_figures_that_are_missing_are_a_failure(
    content: str | None, figures: tuple[int, int], tmp_path: Path
) -> None:
    file = tmp_path / "e2e.count"
    if content is not None:
        file.write_text(content)
    assert list(left(str(file))) == [("e2e", *figures)]


def test_figures_of_several_suites_are_added(tmp_path: Path) -> None:
    leave("one", passed=3, failed=0, folder=tmp_path)
    leave("other", passed=5, failed=1, folder=tmp_path)
    names = f"{tmp_path}/one.count  {tmp_path}/other.count\n"
    assert list(left(names)) == [("one", 3, 0), ("other", 5, 1)]
    assert not list(left(""))
