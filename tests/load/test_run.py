"""What `make load` is asked, and what it says."""

import pytest

from tests.load import run
from tests.load.outcome import Outcome


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "starts,stops"), "no part is named 'stops'"),
        (("--events", "0"), "0 is less than 1"),
        (("--guests", "-5"), "-5 is less than 1"),
    ],
)
def test_what_cannot_be_played_is_refused(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A part that nobody knows ran nothing, and said that nothing passed and nothing failed."""
    with pytest.raises(SystemExit) as ended:
        run.arguments(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_what_went_wrong_is_told_and_the_rest_is_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = tuple(f"guest {number} is astray" for number in range(12))
    done = list(run.play({"starts": lambda: Outcome("starts", "12 guests", wrong)}))
    assert [outcome.wrong for outcome in done] == [wrong]
    first, *failures = capsys.readouterr().out.splitlines()
    assert first == "12 guests"
    assert failures[0] == "FAILED  starts: guest 0 is astray"
    assert failures[10:] == ["FAILED  starts: 2 more"]
