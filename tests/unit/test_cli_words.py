"""Exit statuses for several guests, and what the commands put into plain words."""

import pytest

from proxmox_cpu_affinity.cli.command import exit_status
from proxmox_cpu_affinity.cli.commands.reassign import NOT_ENABLED, foreseen
from proxmox_cpu_affinity.cli.commands.status import duration
from proxmox_cpu_affinity.cli.words import matrix_words
from proxmox_cpu_affinity.formats.wire import GuestView, MatrixState
from proxmox_cpu_affinity.model.guest import Exclusion
from proxmox_cpu_affinity.pve.qm import last_line
from proxmox_cpu_affinity.render.lines import excluded


@pytest.mark.parametrize(
    ("good", "bad", "status"), [(0, 0, 0), (3, 0, 0), (0, 2, 1), (1, 2, 3), (2, 1, 3)]
)
def test_0_is_all_1_is_nothing_and_3_is_a_part(good: int, bad: int, status: int) -> None:
    assert exit_status(good=good, bad=bad) == status


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3661, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (86_400, "1 d 0 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def state(verdict: str, share: float = 1.0, *, measuring: bool = False) -> MatrixState:
    return MatrixState(verdict, share, measuring, 3, 9, ["host busy"])


def test_what_a_matrix_is_worth() -> None:
    assert matrix_words(state("trusted")) == "measured and trusted; host busy"
    part = matrix_words(state("unstable", 0.5))
    assert part == (
        "measured, but not to be relied on (50 % of the pairs); host busy; "
        "it is measured again by itself"
    )
    now = matrix_words(state("predicted", 0.0, measuring=True))
    assert now.startswith("predicted from the topology, not measured; measuring now, 3 of 9 pairs")


def guest(
    vmid: int,
    *,
    managed: bool,
    running: bool,
    reason: Exclusion | None = None,
    cpus: str = "",
) -> GuestView:
    why, code = ("", "") if reason is None else (excluded(reason), reason.value)
    return GuestView(
        *(vmid, "", managed, why, "shared", 1, running, None, cpus, "", "", "", 0, [], []),
        reason_code=code,
    )


def test_what_a_reassign_would_do() -> None:
    guests = [
        guest(100, managed=True, running=True, cpus="0-1"),
        guest(101, managed=True, running=False),
        guest(102, managed=False, running=True, reason=Exclusion.NOT_CHOSEN),
        guest(103, managed=False, running=True, reason=Exclusion.TEMPLATE),
        guest(104, managed=True, running=True),
    ]
    rows = foreseen(guests, undo=False)
    assert [(row.status, row.notes) for row in rows] == [
        ("dry-run", "would reassign"),
        ("skipped", "VM is not running"),
        ("skipped", NOT_ENABLED),
        ("skipped", "it is a template"),
        ("dry-run", "would reassign"),
    ]
    undone = [row.status for row in foreseen(guests, undo=True)]
    assert undone == ["dry-run", *["skipped"] * 4]


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        ("", ""),
        ("VM is locked (backup)\n", "VM is locked (backup)"),
        ("a\n\n  b  \n\n", "b"),
        (
            "400 Parameter verification failed.\nhookscript: none\n\nqm set <vmid> [OPTIONS]\n",
            "hookscript: none",
        ),
    ],
)
def test_the_reason_in_what_qm_says_is_not_its_usage(stderr: str, line: str) -> None:
    assert last_line(stderr) == line
