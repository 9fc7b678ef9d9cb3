"""The state file on a real file system: replaced whole or not at all, damaged ones set aside."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxmox_cpu_affinity.model.errors import StoreError
from proxmox_cpu_affinity.ports import Loaded
from proxmox_cpu_affinity.store import JsonFile

CONTENT: Mapping[str, object] = {"guests": {"100": "0-3"}, "turn": [1, None, 0.25], "ü": True}


@pytest.fixture
def file(tmp_path: Path) -> JsonFile:
    return JsonFile(tmp_path / "state.json")


def names(file: JsonFile) -> set[str]:
    return {path.name for path in file.path.parent.iterdir()}


def test_what_was_saved_is_loaded(file: JsonFile) -> None:
    file.save(CONTENT)
    assert file.load() == Loaded(CONTENT)
    assert names(file) == {"state.json"}


def test_no_file_is_no_problem(file: JsonFile) -> None:
    assert file.load() == Loaded(None, "")


def test_nobody_else_may_read_it(file: JsonFile) -> None:
    old = os.umask(0)
    try:
        file.save(CONTENT)
    finally:
        os.umask(old)
    assert file.path.stat().st_mode & 0o777 == 0o600


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(st.text(), json_values, max_size=4))
def test_any_json_comes_back(tmp_path: Path, content: dict[str, object]) -> None:
    try:
        json.dumps(content).encode()
    except UnicodeEncodeError:
        return
    file = JsonFile(tmp_path / "any.json")
    file.save(content)
    assert file.load() == Loaded(content)


def test_a_file_is_replaced_by_another_one_not_written_over(file: JsonFile) -> None:
    """Who has the old one open reads it to its end."""
    file.save({"version": "old"})
    with file.path.open() as old:
        file.save({"version": "new"})
        assert '"old"' in old.read()
    assert file.load().content == {"version": "new"}


def test_a_writer_killed_half_way_leaves_the_file_as_it_was(file: JsonFile) -> None:
    file.save(CONTENT)
    half = file.path.read_bytes()[:20]
    file.path.with_name("state.json.new").write_bytes(half)
    assert file.load() == Loaded(CONTENT)
    file.save({"later": 1})
    assert file.load() == Loaded({"later": 1})
    assert names(file) == {"state.json"}


def test_writers_killed_at_any_moment_leave_a_whole_file(file: JsonFile) -> None:
    """kill -9, again and again, of a program that does nothing but save."""
    program = (
        "import sys; from pathlib import Path; from proxmox_cpu_affinity.store import JsonFile\n"
        "file = JsonFile(Path(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "for i in range(10**9): file.save({'i': i, 'filling': 'x' * 100_000})"
    )
    seen: set[object] = set()
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(file.path)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            while not file.path.exists():
                assert child.poll() is None
            for _ in range(20):
                file.load()
            child.send_signal(signal.SIGKILL)
        loaded = file.load()
        assert loaded.problem == ""
        assert loaded.content is not None
        seen.add(loaded.content["i"])
    assert seen
    assert names(file) <= {"state.json", "state.json.new"}


def whole(file: JsonFile) -> dict[str, object]:
    found: dict[str, object] = json.loads(file.path.read_text())
    return found


def damaged(file: JsonFile, kind: str) -> bytes:
    """What a file of this kind of damage holds."""
    file.save(CONTENT)
    good, fields = file.path.read_bytes(), whole(file)
    changes: Mapping[str, bytes] = {
        "empty": b"",
        "cut": good[: len(good) // 2],
        "zeroes": bytes(len(good)),
        "no JSON": b"state\n",
        "no object": b"[1, 2]\n",
        "no UTF-8": good.replace("ü".encode(), b"\xff") if b"\xc3" in good else b'{"\xff": 1}',
        "nested": b"[" * 200_000,
        "content of another kind": json.dumps({**fields, "content": []}).encode(),
        "no content": json.dumps({"version": 1, "sha256": "0"}).encode(),
        "another version": json.dumps({**fields, "version": 2}).encode(),
        "no version": json.dumps({"content": {}}).encode(),
        "wrong checksum": json.dumps({**fields, "sha256": "0" * 64}).encode(),
        "a bit turned over": good.replace(b'"0-3"', b'"0-7"'),
    }
    assert changes[kind] != good
    return changes[kind]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("empty", "is damaged"),
        ("cut", "is damaged"),
        ("zeroes", "is damaged"),
        ("no JSON", "is damaged"),
        ("no object", "is of another version"),
        ("no UTF-8", "is damaged"),
        ("nested", "is damaged"),
        ("content of another kind", "is damaged"),
        ("no content", "is damaged"),
        ("another version", "is of another version"),
        ("no version", "is of another version"),
        ("wrong checksum", "has a wrong checksum"),
        ("a bit turned over", "has a wrong checksum"),
    ],
)
def test_a_file_that_is_not_ours_is_set_aside(file: JsonFile, kind: str, said: str) -> None:
    data = damaged(file, kind)
    file.path.write_bytes(data)
    assert file.load() == Loaded(None, f"{said}; set aside as state.json.bad")
    assert names(file) == {"state.json.bad"}
    assert file.path.with_name("state.json.bad").read_bytes() == data
    assert file.load() == Loaded(None, "")
    file.save(CONTENT)
    assert file.load() == Loaded(CONTENT)


def test_the_file_set_aside_last_is_the_one_that_is_kept(file: JsonFile) -> None:
    for text in ("first", "second"):
        file.path.write_text(text)
        assert file.load().content is None
    assert file.path.with_name("state.json.bad").read_text() == "second"


def test_a_file_that_cannot_be_read_is_said_to_be_so(file: JsonFile) -> None:
    file.path.mkdir()
    assert file.load() == Loaded(None, "cannot be read: Is a directory")


def _limited(file: JsonFile, *, limit: int) -> subprocess.CompletedProcess[str]:
    """Save more than the limit in a child that may not write files larger than it."""
    program = (
        "import sys; from pathlib import Path; from proxmox_cpu_affinity.store import JsonFile\n"
        "from proxmox_cpu_affinity.model.errors import StoreError\n"
        "try: JsonFile(Path(sys.argv[1])).save({'filling': 'x' * 100_000})\n"
        "except StoreError as error: print(error.text, '|', error.hint)"
    )

    def restrict() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-B", "-c", program, str(file.path)],
        preexec_fn=restrict,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_full_disk_leaves_the_file_as_it_was(file: JsonFile) -> None:
    file.save(CONTENT)
    done = _limited(file, limit=5000)
    assert done.returncode == 0, done.stderr
    assert "state.json cannot be written: File too large" in done.stdout
    assert "look at the space" in done.stdout
    assert file.load() == Loaded(CONTENT)
    assert names(file) == {"state.json"}


def test_a_folder_that_is_missing_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory"):
        JsonFile(tmp_path / "missing" / "state.json").save(CONTENT)


def test_a_folder_that_is_none_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(StoreError, match="Not a directory"):
        JsonFile(tmp_path / "folder" / "state.json").save(CONTENT)


def test_a_target_that_cannot_be_replaced_leaves_nothing_behind(file: JsonFile) -> None:
    file.path.mkdir()
    with pytest.raises(StoreError):
        file.save(CONTENT)
    assert names(file) == {"state.json"}
