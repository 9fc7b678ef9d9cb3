"""axe-core, which knows the rules of accessibility: fetched by npm into build/, at one version."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

VERSION = "4.14.1"
SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
FOLDER = Path(__file__).parents[2] / "build/axe"
FILE = FOLDER / "node_modules/axe-core/axe.min.js"

RUN = """async () => {
  const found = await axe.run(document, { resultTypes: ['violations'],
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] });
  return found.violations.map((each) =>
    `${each.id}: ${each.nodes.slice(0, 3).map((node) => node.target.join(' ')).join(', ')}: `
    + each.nodes[0].failureSummary);
}"""


def axe_script() -> str:
    """The library's text, the same byte by byte on every machine."""
    if not FILE.exists() or _sum() != SHA256:
        _fetch()
    assert _sum() == SHA256, f"axe-core {VERSION} is not what it was"
    return FILE.read_text(encoding="utf-8")


def _sum() -> str:
    return hashlib.sha256(FILE.read_bytes()).hexdigest()


def _fetch() -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    FOLDER.mkdir(parents=True, exist_ok=True)
    flags = ("--no-save", "--ignore-scripts", "--no-audit", "--no-fund")
    subprocess.run(
        [npm, "install", "--prefix", str(FOLDER), *flags, f"axe-core@{VERSION}"],
        check=True,
        timeout=240,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
