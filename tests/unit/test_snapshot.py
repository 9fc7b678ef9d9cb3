"""Host snapshots: reading gives back what was written, bad texts are named, diffs stay small."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats.snapshot import Snapshot, parse, to_text
from proxmox_cpu_affinity.model.errors import SyntaxFault

CPU = "sys/devices/system/cpu/cpu"

_numbers = st.integers(0, 12000)
_suffixes = st.sampled_from(["/topology/core_id", "/cache/index3/level", "/online", "/a\nb", ""])
_paths = st.one_of(
    st.builds(lambda n, s: f"{CPU}{n}{s}", _numbers, _suffixes),
    st.builds(lambda n: f"sys/devices/system/node/node{n}/cpulist", _numbers),
    st.builds(lambda n: f"{CPU}0{n}/online", _numbers),
    st.text().filter(lambda text: "{" not in text and "}" not in text),
)
_files = st.dictionaries(_paths, st.one_of(st.sampled_from(["0", "1"]), st.text()), max_size=30)
_rows = st.integers(0, 4).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(0, 1e6), min_size=n, max_size=n).map(tuple), min_size=n, max_size=n
    ).map(tuple)
)


@given(st.builds(Snapshot, st.text(), st.text(), _files, st.none() | _rows))
def test_what_is_written_is_read_again(snapshot: Snapshot) -> None:
    text = to_text(snapshot)
    assert parse(text) == snapshot
    assert to_text(parse(text)) == text


@given(_files)
def test_text_does_not_depend_on_the_order(files: dict[str, str]) -> None:
    mixed = dict(reversed(files.items()))
    assert to_text(Snapshot("o", "w", mixed)) == to_text(Snapshot("o", "w", files))


def test_equal_files_are_one_line() -> None:
    files = {f"{CPU}{n}/topology/die_id": "0" for n in (*range(8), 16)}
    files[f"{CPU}8/topology/die_id"] = "1"
    lines = to_text(Snapshot("o", "w", files)).splitlines()
    assert f'  "{CPU}{{0-7,16}}/topology/die_id": "0",' in lines
    assert f'  "{CPU}{{8}}/topology/die_id": "1"' in lines


def test_one_changed_file_changes_few_lines() -> None:
    files = {f"{CPU}{n}/topology/core_id": str(n // 2) for n in range(64)}
    before = set(to_text(Snapshot("o", "w", files)).splitlines())
    files[f"{CPU}3/topology/core_id"] = "40"
    after = set(to_text(Snapshot("o", "w", files)).splitlines())
    assert len(before ^ after) == 3


def test_latencies_are_a_row_a_line() -> None:
    text = to_text(Snapshot("o", "w", {}, ((0.0, 25.5), (25.5, 0.0))))
    assert "  [0.0, 25.5],\n  [25.5, 0.0]\n]" in text
    assert parse(text).latency_ns == ((0.0, 25.5), (25.5, 0.0))


def bad(**changes: object) -> str:
    return json.dumps({"origin": "o", "what": "w", "files": {}} | changes)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no host snapshot"),
        ("[]", "is a JSON object"),
        ("{}", "it has no 'files'"),
        (bad(origin=None), "origin"),
        ("[" * 100_000, "nested too deeply"),
        (bad(origin=1), "origin"),
        (bad(what=None), "what"),
        (bad(files=[]), "files"),
        (bad(more="x"), "'more'"),
        (bad(files={"a": 1}), "files, a"),
        (bad(files={f"{CPU}{{0-}}/online": "1"}), "'0-'"),
        (bad(files={f"{CPU}{{}}/online": "1"}), "no file"),
        (bad(files={f"{CPU}{{0-1}}/x": "1", f"{CPU}1/x": "2"}), "cpu1/x is given twice"),
        (bad(files={"a{0}b": "1"}), "braces"),
        (bad(files={f"{CPU}{{0-65535}}/{n}": "" for n in range(16)}), "too many files"),
        ('{"origin": "o", "origin": "p", "what": "w", "files": {}}', "given twice"),
        (bad(latency_ns=1), "latency_ns"),
        (bad(latency_ns=[1]), "latency_ns"),
        (bad(latency_ns=[["a"]]), "'a' is no number"),
        (bad(latency_ns=[[True]]), "True is no number"),
        (bad(latency_ns=[[0, 1]]), "not square"),
        (bad(latency_ns=[[-1]]), "no latency"),
        (bad(latency_ns=[[10**400]]), "no host snapshot"),
        (bad(latency_ns=[[float("nan")]]), "NaN is no number"),
    ],
)
def test_bad_texts_are_located(text: str, part: str) -> None:
    with pytest.raises(SyntaxFault) as caught:
        parse(text, where="host.json")
    assert caught.value.text.startswith("host.json: ")
    assert part in caught.value.text


@given(st.text() | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(json.dumps))
def test_other_texts_are_a_syntax_fault(text: str) -> None:
    with pytest.raises(SyntaxFault):
        parse(text)


def test_braces_in_a_real_path_are_refused() -> None:
    with pytest.raises(ValueError, match="braces"):
        Snapshot("o", "w", {f"{CPU}{{0}}/online": "1"})
