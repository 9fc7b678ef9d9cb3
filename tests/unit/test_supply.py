"""What we develop with: one version of each, with hashes and a known licence; nothing vendored."""

import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints"
LOCKED = sorted((CONSTRAINTS / "locked").glob("*.txt"))
ASKED = {
    "run-3.11.txt": "debian-12.txt",
    "run-3.13.txt": "debian-13.txt",
    "develop.txt": "develop.txt",
    "attack.txt": "attack.txt",
}
OURS = frozenset(("src", "tests", "hook", "bench", "scripts", "debian", "docs", "constraints"))


def entries(text: str) -> Mapping[str, tuple[str, int]]:
    """Name to version and number of hashes."""
    joined = text.replace("\\\n", " ")
    found = {}
    for line in joined.splitlines():
        if line.strip() and not line.startswith("#"):
            match = re.fullmatch(
                r"([a-z0-9.-]+)==([^ ;]+)((?: +--hash=sha256:[0-9a-f]{64})*)", line
            )
            assert match, line
            assert match[1] not in found, line
            found[match[1]] = (match[2], match[3].count("--hash"))
    return found


def named(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("path", LOCKED, ids=lambda path: path.name)
def test_everything_is_of_one_version_with_hashes(path: Path) -> None:
    found = entries(path.read_text(encoding="utf-8"))
    assert found
    assert [name for name, (_, hashes) in found.items() if not hashes] == []


@pytest.mark.parametrize(("locked", "asked"), ASKED.items())
def test_what_is_asked_for_is_what_is_locked(locked: str, asked: str) -> None:
    found = entries((CONSTRAINTS / "locked" / locked).read_text(encoding="utf-8"))
    wanted = re.findall(
        r"^([\w.-]+)==(\S+)$", (CONSTRAINTS / asked).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert wanted
    for name, version in wanted:
        assert found[named(name)][0] == version, name


def test_no_lock_is_forgotten() -> None:
    assert {path.name for path in LOCKED} == set(ASKED)


def test_every_licence_is_listed() -> None:
    text = (CONSTRAINTS / "licences.txt").read_text(encoding="utf-8")
    listed = dict(line.split(": ", 1) for line in text.splitlines() if not line.startswith("#"))
    pinned = {name for path in LOCKED for name in entries(path.read_text(encoding="utf-8"))}
    assert pinned == listed.keys()
    assert [name for name, licence in listed.items() if licence in ("", "?")] == []
    installed = {named(package.metadata["Name"]) for package in distributions()}
    assert len(installed & listed.keys()) > 20


def test_nothing_of_others_lies_in_the_tree() -> None:
    """No wheel, archive, package or library that was made elsewhere."""
    kinds = (".whl", ".gz", ".zip", ".so", ".a", ".o", ".deb", ".jar", ".min.js", ".dll", ".exe")
    found = [
        path.relative_to(ROOT)
        for folder in OURS
        for path in (ROOT / folder).rglob("*")
        if path.name.endswith(kinds) or {"node_modules", "vendor", "third_party"} & set(path.parts)
    ]
    assert found == []


def audited(folder: Path, lines: str) -> subprocess.CompletedProcess[str]:
    """`make audit` with a program of these lines in place of pip-audit."""
    program = folder / "pip-audit"
    program.write_text(f"#!/bin/sh\n{lines}\n")
    program.chmod(0o755)
    words = [ROOT / "scripts/audit", program]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_an_audit_goes_through_every_lock(tmp_path: Path) -> None:
    done = audited(tmp_path, "echo No known vulnerabilities found")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        f"constraints/locked/{path.name}" for path in LOCKED
    ]


def test_a_vulnerability_is_told_in_pip_audits_words(tmp_path: Path) -> None:
    done = audited(tmp_path, "echo Found 1 known vulnerability; echo x 1.0 PYSEC-1; exit 1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[1].endswith(".txt: x 1.0 PYSEC-1")


def test_a_database_out_of_reach_is_one_line_and_no_clean_audit(tmp_path: Path) -> None:
    """pip-audit prints 70 lines of a traceback."""
    done = audited(
        tmp_path, 'echo "Traceback (most recent call last):"; echo "  File x"; echo E: off; exit 1'
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    told = f"the advisory database cannot be asked (E: off), of {len(LOCKED)} files\n"
    assert done.stderr == told


def test_an_index_that_is_no_advisory_database_is_told_after_all_files_were_asked_for(
    tmp_path: Path,
) -> None:
    """A mirror of packages answers 404 for the first package: that said nothing of the others."""
    unknown = "ERROR:pip_audit._cli:anyio: Dependency not found on PyPI and could not be audited"
    tip = "ERROR:pip_audit._cli:Tip: your network may be blocking this service."
    connect = "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed"
    words = {
        "attack.txt": f'echo "{unknown}"; exit 1',
        "develop.txt": "echo Found 1 known vulnerability; echo x 1.0 PYSEC-1; exit 1",
        "run-3.11.txt": f'echo "{connect}"; echo "{tip}"; exit 1',
        "run-3.13.txt": "echo No known vulnerabilities found",
    }
    cases = "".join(f"*{name}) {lines};;\n" for name, lines in words.items())
    done = audited(tmp_path, f'case "$*" in\n{cases}esac')
    assert done.returncode == 1
    assert done.stdout == "constraints/locked/run-3.13.txt: No known vulnerabilities found\n"
    assert done.stderr.splitlines() == [
        "constraints/locked/develop.txt: Found 1 known vulnerability",
        "constraints/locked/develop.txt: x 1.0 PYSEC-1",
        f"the advisory database cannot be asked ({connect}), of 2 files",
    ]
