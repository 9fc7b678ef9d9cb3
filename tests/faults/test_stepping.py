"""strace as the one who lets a system call fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.run import main
from tests.faults.stepping import FAULTS, KILL, WRITING, Fault, Step, Tracer, faults_of
from tests.faults.steps import drawn, named

WRITES = "import os, sys\nos.mkdir(sys.argv[1] + '/one')\nos.mkdir(sys.argv[1] + '/two')\n"


def run(before: list[str], folder: Path, text: str = WRITES) -> subprocess.CompletedProcess[str]:
    words = [*before, sys.executable, "-I", "-S", "-c", text, str(folder)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture
def tracer(tmp_path: Path) -> Tracer:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    (tmp_path / "root").mkdir()
    return Tracer(tmp_path / "log", tuple(WRITING), tmp_path / "root")


def test_steps_are_the_calls_below_the_root(tracer: Tracer) -> None:
    assert tracer.root is not None
    assert run(tracer.watching(), tracer.root).returncode == 0
    assert tracer.steps() == [Step("mkdir", "one", 1), Step("mkdir", "two", 1)]


@pytest.mark.parametrize(("what", "says"), [("ENOSPC", "No space left"), (KILL, "")])
def test_fault_comes_at_its_step(tracer: Tracer, what: str, says: str) -> None:
    assert tracer.root is not None
    done = run(tracer.spoiling(Fault(Step("mkdir", "two", 1), what)), tracer.root)
    assert done.returncode
    assert says in done.stderr
    assert tracer.struck()
    assert [path.name for path in tracer.root.iterdir()] == ["one"]


def test_fault_at_a_step_that_never_comes_has_not_struck(tracer: Tracer) -> None:
    assert tracer.root is not None
    assert run(tracer.spoiling(Fault(Step("mkdir", "two", 2), KILL)), tracer.root).returncode == 0
    assert not tracer.struck()


def test_a_process_that_somebody_else_killed_was_not_struck(tracer: Tracer) -> None:
    assert tracer.root is not None
    child = "import subprocess as s\np = s.Popen(['sleep', '99'])\np.kill()\np.wait()\n"
    words = tracer.spoiling(Fault(Step("mkdir", "two", 2), KILL))
    assert run(words, tracer.root, child + WRITES).returncode == 0
    assert "killed by SIGKILL" in tracer.log.read_text()
    assert not tracer.struck()


def test_each_step_fails_and_what_changes_something_is_killed_too() -> None:
    """An error that took turns with another one came at every other step, and was met by chance."""
    steps = [Step("newfstatat", "a", 1), Step("bind", "", 1), Step("bind", "", 2)]
    found = [(fault.step, fault.what) for fault in faults_of(steps)]
    assert found == [
        *((steps[0], what) for what in FAULTS["newfstatat"]),
        *((steps[1], what) for what in (*FAULTS["bind"], KILL)),
        *((steps[2], what) for what in (*FAULTS["bind"], KILL)),
    ]


def test_whole_name_is_played_whether_it_was_found_this_time_or_not() -> None:
    fault = Fault(Step("write", "var/lib/state.json.new", 99), KILL)
    assert named(f"service: {fault}") == [[fault], [], [], []]
    socket = Fault(Step("sendto", "", 1), "EPIPE")
    assert named(f"hookscript install: {socket}") == [[], [], [socket], []]
    assert named("service: KILL at write") == []


def test_fault_that_nobody_has_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--fault", "hookscript enable: KILL at write - #1"]) == 1
    assert capsys.readouterr().out.startswith("no fault at a system call is named 'hookscript e")


def test_who_has_few_faults_leaves_the_rest_to_the_others() -> None:
    many = [Fault(Step("write", str(n), 1), KILL) for n in range(50)]
    parts = drawn([many, many[:3], many], 23, seed=1)
    assert [len(part) for part in parts] == [10, 3, 10]
    assert drawn([many, many[:3]], 0, seed=1) == [many, many[:3]]
    assert drawn([many], 5, seed=1) == drawn([many], 5, seed=1) != drawn([many], 5, seed=2)
