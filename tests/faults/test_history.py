"""Histories, and their becoming small."""

import pytest

from tests.faults import memory
from tests.faults.history import IN_MEMORY, Happening, Kind, history, shrunk
from tests.faults.run import told


def test_a_seed_is_a_history() -> None:
    assert history(7) == history(7)
    assert history(7) != history(8)
    assert {h.kind for seed in range(200) for h in history(seed)} == set(IN_MEMORY)


def test_what_matters_is_left() -> None:
    """Three happenings, in this order, anywhere in a long history."""
    needed = [Happening(1.0, Kind.FULL, 999, n) for n in range(3)]
    noise = history(1, most=60)
    whole = (*noise, needed[0], *noise, needed[1], needed[2], *noise)

    def fails(part: tuple[Happening, ...]) -> bool:
        left = iter(part)
        return all(one in left for one in needed)

    assert shrunk(whole, fails) == tuple(needed)


def test_shrinking_ends_when_its_tries_do() -> None:
    whole = history(1, most=60)
    assert shrunk(whole, lambda part: len(part) > 1, tries=0) == whole


def test_a_history_that_fails_is_told_in_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a check that never holds."""
    monkeypatch.setattr(memory, "check_node", _nobody_runs)
    seed = next(s for s in range(100) if memory.fails(history(s)))
    text = told(seed)
    assert text.startswith(f"seed {seed}:\n")
    assert "somebody runs" in text
    assert text.split("which is")[0].count("\n") <= 3


def _nobody_runs(story: memory.Faulty) -> None:
    assert not story.world.tasks, "somebody runs"


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_nothing_goes_wrong(first: int) -> None:
    wrong = [seed for seed in range(first, first + 100) if memory.fails(history(seed))]
    assert not wrong, "\n".join(map(told, wrong[:1]))


def test_with_a_full_disk_nothing_is_saved() -> None:
    story = memory.Faulty()
    before, story.full = story.saved, True
    story.play("1 start 100")
    assert story.saved == before
    story.full = False
    story.play("2 stop 100")
    assert story.saved != before
