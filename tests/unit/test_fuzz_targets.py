"""Every reader of what others write takes or refuses any text; `make fuzz` goes on from here."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, attempt

TESTS = Path(__file__).parents[1]
FORMATS = TESTS.parent / "src" / "proxmox_cpu_affinity" / "formats"
CORPUS = TESTS / "fuzz" / "corpus"
NO_READERS = frozenset(
    ("by_hand", "openapi", "wire", "wire_events", "wire_trial", "listed", "guestnuma", "pveschema")
)
"""Modules without one of their own: values, writers, and parts of the readers that are fuzzed."""
THROUGH = {
    "hosttext": ("lscpu_summary", "lscpu_table", "numactl"),
    "saved": ("ranking_json",),
}

names = pytest.mark.parametrize("name", sorted(TARGETS))
_BITS = st.sampled_from([b"9" * 5000, b"1e999", b"-1", b"NaN", b"\0", b"\xff", b"\n", b"\xc2\x85"])


@st.composite
def mutants(draw: st.DrawFn, seeds: tuple[str, ...]) -> bytes:
    """A seed with parts cut, doubled, replaced or swapped with another's."""
    data = draw(st.sampled_from(seeds)).encode("utf-8", "surrogateescape")
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        other = draw(st.sampled_from(seeds)).encode("utf-8", "surrogateescape")
        piece = draw(
            st.binary(max_size=8)
            | _BITS
            | st.sampled_from([b"", data[start:end] * 2, other[start:end]])
        )
        data = data[:start] + piece + data[end:]
    return data


@names
def test_seeds_are_understood(name: str) -> None:
    taken = [attempt(TARGETS[name], seed.encode()) for seed in TARGETS[name].seeds]
    assert any(taken), "no seed is of this syntax"


@names
def test_the_corpus_finds_nothing_any_more(name: str) -> None:
    """Each file was worth keeping: it reached something new, or was a finding once."""
    files = sorted((CORPUS / name).glob("*"))
    assert files, f"none is kept: make fuzz KEEP=1, or python -m tests.fuzz.run {name} --keep"
    for file in files:
        attempt(TARGETS[name], file.read_bytes())


@names
@given(data=st.data())
def test_any_change_of_a_seed_is_taken_or_refused(name: str, data: st.DataObject) -> None:
    attempt(TARGETS[name], data.draw(mutants(TARGETS[name].seeds)))


@names
@given(data=st.binary(max_size=80) | st.text(max_size=60).map(lambda text: text.encode()))
def test_any_bytes_are_taken_or_refused(name: str, data: bytes) -> None:
    attempt(TARGETS[name], data)


def test_no_reader_is_forgotten() -> None:
    tree = ast.parse((TESTS / "fuzz" / "targets.py").read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith(".formats")
        for alias in node.names
    }
    imported |= {
        (node.module or "").rpartition(".")[2]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and ".formats." in (node.module or "")
    }
    through = {part for name in imported for part in THROUGH.get(name, ())}
    modules = {path.stem for path in FORMATS.glob("*.py")} - {"__init__"}
    assert modules - imported - through == NO_READERS
