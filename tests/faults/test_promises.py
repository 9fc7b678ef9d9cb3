"""Each check of the histories with processes finds what it is there to find."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.faults import promises
from tests.faults.history import Happening, Kind
from tests.faults.observed import masks
from tests.faults.playground import (
    CPUS,
    FAKETIME,
    Playground,
    Tormented,
    clock_files,
    playground,
    rows,
)
from tests.faults.promises import ALL, Known, begins, never, settled
from tests.faults.real import wrong_in
from tests.faults.servicelife import Servicelife

HOOKED, STOPPED, UNMANAGED = 100, 101, 103
few = pytest.mark.skipif(len(CPUS) < 2, reason="with one CPU nobody can be elsewhere")


@pytest.fixture(scope="module")
def ground() -> Iterator[Playground]:
    with playground(mounts=False) as made:
        yield made


@pytest.fixture
def service(ground: Playground) -> Iterator[Tormented]:
    made = ground.service()
    try:
        yield made
    finally:
        made.send(signal.SIGCONT)
        if made.alive:
            made.kill()
        ground.quiet()


def started(ground: Playground, known: Known, vmid: int) -> int:
    begins(ground, known, vmid)
    ground.node.do("start", vmid)
    pid = ground.node.pid(vmid)
    assert pid is not None
    return pid


def quiet(ground: Playground, service: Tormented, known: Known) -> None:
    service.wait_for(lambda: not settled(ground, service, known))
    assert not list(never(ground, service, known))


@few
def test_guest_that_is_elsewhere_is_found(ground: Playground, service: Tormented) -> None:
    known = Known()
    pid = started(ground, known, HOOKED)
    quiet(ground, service, known)
    own = os.sched_getaffinity(pid)

    def found() -> bool:  # before the next scan puts it back
        os.sched_setaffinity(pid, set(ALL) - own)
        return any("is recorded on" in one for one in settled(ground, service, known))

    service.wait_for(found)
    service.wait_for(lambda: os.sched_getaffinity(pid) == own)
    quiet(ground, service, known)


@few
def test_guest_that_is_not_ours_and_was_touched_is_found(
    ground: Playground, service: Tormented
) -> None:
    known = Known()
    pid = started(ground, known, UNMANAGED)
    quiet(ground, service, known)
    os.sched_setaffinity(pid, {CPUS[0]})
    assert any("103 is not ours and was touched" in one for one in never(ground, service, known))
    assert any("103 is not ours, and held" in one for one in settled(ground, service, known))


@few
def test_bystander_that_was_touched_is_found(ground: Playground, service: Tormented) -> None:
    pid = ground.bystanders[0].pid
    os.sched_setaffinity(pid, ALL)
    found = list(never(ground, service, Known()))
    os.sched_setaffinity(pid, ground.born[pid])
    assert any("nobody's was touched" in one for one in found)
    assert not list(never(ground, service, Known()))


def test_file_that_is_left_over_or_damaged_is_found(ground: Playground, service: Tormented) -> None:
    known = Known()
    started(ground, known, HOOKED)
    quiet(ground, service, known)
    (ground.lib / "state.json.new").write_text("{")
    assert any("left over" in one for one in settled(ground, service, known))
    (ground.lib / "state.json.new").unlink()
    service.kill()
    state = ground.lib / "state.json"
    state.write_text(state.read_text().replace(f'"{HOOKED}"', '"109"'))
    assert any("damaged" in one for one in never(ground, service, known))


def test_hook_that_fails_or_is_slow_is_found(ground: Playground, service: Tormented) -> None:
    known = Known()
    ground.hooks.write_text("100 pre-start 10.00 700.00 0\n100 post-start 10.00 10.10 1\n")
    found = list(never(ground, service, known))
    assert any("took 690.00 s" in one for one in found)
    assert any("failed with 1" in one for one in found)


SAID = (
    (HOOKED, {"outcome": "part"}, "and is not held"),
    (HOOKED, {"pid": 1}, "and is not held"),
    (HOOKED, {"applied": ""}, "guest 100 is recorded on []"),
    (HOOKED, {"applied": ""}, f"guest {HOOKED}: on disk"),
    (HOOKED, {"reason_code": "released"}, "let go by hand: False, said to be: True"),
    (STOPPED, {"cpus": [0]}, "does not run, and there is of it {'cpus': [0]}"),
    (UNMANAGED, {"outcome": "full"}, "103 is not ours, and there is of it"),
    (UNMANAGED, {"outcome": "full"}, "103 is held and not recorded"),
)


def test_what_is_said_and_is_not_so_is_found(
    ground: Playground, service: Tormented, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Known()
    for vmid in (HOOKED, UNMANAGED):
        started(ground, known, vmid)
    quiet(ground, service, known)
    true = rows(service)
    for vmid, other, words in SAID:
        said = {**true, vmid: {**true[vmid], **other}}
        monkeypatch.setattr(promises, "rows", lambda _, said=said: said)
        found = settled(ground, service, known)
        assert any(words in one for one in found), (words, found)


def test_service_that_ended_or_met_with_what_it_did_not_foresee_is_found(
    ground: Playground, service: Tormented
) -> None:
    assert not list(never(ground, service, Known()))
    traceback = "Traceback (most recent call last):\n  File ...\nOSError: [Errno 5] no\n"
    service.output.write_text(f"<function BaseEventLoop.__del__ at 0x7f01>\n{traceback}")
    assert not list(never(ground, service, Known()))
    service.output.write_text(f"a line\n{traceback}another\n")
    told = "the service met with what it did not foresee: OSError: [Errno 5] no"
    assert list(never(ground, service, Known())) == [told]
    service.kill()
    assert settled(ground, service, Known()) == ["the service ended with -9"]


@pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed")
def test_killed_service_leaves_nothing_of_its_clock_in_shared_memory(ground: Playground) -> None:
    """libfaketime takes away what it keeps there when a process ends by itself, and only then."""
    with ground.service(clock=True) as service:
        kept = clock_files(service.process.pid)
        assert [file.exists() for file in kept] == [True, True]
        service.kill()
    assert [file.exists() for file in kept] == [False, False]


def test_history_with_faults_goes_well(ground: Playground) -> None:
    kinds = (
        (Kind.START, HOOKED, 1),
        (Kind.KILL, 0, 0),
        (Kind.START, 101, 0),
        (Kind.FREEZE, 0, 0),
        (Kind.CRASH, HOOKED, 0),
        (Kind.THAW, 0, 0),
        (Kind.UNMOUNT, 0, 0),
        (Kind.RESTART, 0, 0),
        (Kind.MOUNT, 0, 0),
        (Kind.SECOND, 0, 0),
        (Kind.SCAN, 0, 0),
    )
    whole = tuple(Happening(0.5, kind, vmid, which) for kind, vmid, which in kinds)
    assert not wrong_in(ground, whole)


@few
def test_guest_that_a_sigkill_moved_is_found(
    ground: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(self: Servicelife, _: int, __: int) -> None:
        """The state is lost, and somebody put the guest elsewhere: adopted there."""
        self.forget()
        self.service.kill()
        (ground.lib / "state.json").unlink()
        for tid, mask in masks(self.node.pid(HOOKED) or 0).items():
            os.sched_setaffinity(tid, {min(ALL - mask)})
        self.serve()

    whole = (Happening(0.5, Kind.START, HOOKED, 1), Happening(0.5, Kind.SCAN, 0, 0))
    assert not wrong_in(ground, whole)
    monkeypatch.setattr(Servicelife, "kill", kill)
    assert f"a SIGKILL at a quiet point moved guest {HOOKED}" in wrong_in(ground, whole)
