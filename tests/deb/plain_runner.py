"""Runs the checks of a plain Debian, in the order they are written, in one Debian."""

import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

from tests.deb import contents_checks, plain_checks
from tests.deb.plain import Plain, plain
from tests.e2e.report import Result, say

MODULES = {"contents": contents_checks, "plain": plain_checks}

Check = Callable[[Plain], None]


def _checks(title: str, module: ModuleType) -> Iterator[tuple[str, Check]]:
    for key, value in vars(module).items():
        if key.startswith("check_"):
            yield f"{title}.{key.removeprefix('check_')}", value


def run(suite: str, deb: Path, word: str) -> Sequence[Result]:
    """Those whose names hold one of A,B, and the first one, which installs. PlainError."""
    results: list[Result] = []
    checks = dict(found for each in MODULES.items() for found in _checks(*each))
    with plain(suite) as debian:
        (debian.files / "root").mkdir()
        shutil.copy(deb, debian.files / "root/ours.deb")
        for name, check in checks.items():
            if not results or any(each in name for each in word.split(",")):
                results.append(_run(suite, name, check, debian))
    return results


def _run(suite: str, name: str, check: Check, debian: Plain) -> Result:
    began, text = time.monotonic(), ""
    try:
        check(debian)
    except Exception:
        text = traceback.format_exc()
    say(f"{'FAILED' if text else 'passed'}  {suite}: {name} ({time.monotonic() - began:.1f} s)")
    if text:
        say(text)
    return Result(suite, name, passed=not text)
