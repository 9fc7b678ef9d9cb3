"""`make e2e`: the installed project on a booted Debian, checked from inside.

    python3 -m tests.e2e.run [--suite trixie|bookworm|both] [--shape 2x2x1x2] [-k WORD] [--full]

Ends with the promises and the checks that showed them, then one line with the figures.
Needs QEMU, and root with mmdebstrap the first time. Where something is missing it says so and is
content, but not under CI=true: there root installs it, and anybody else fails.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tests import counts
from tests.e2e import image
from tests.e2e.guest import PLUGGABLE, Guest, booted, emulated
from tests.e2e.pulse import GuestError
from tests.e2e.report import Report, Result, say, table
from tests.e2e.shape import Shape
from tests.e2e.stage import CHECKOUT, TESTS, StageError, make_stage

LIMIT = 900  # seconds for one Debian, the image included; ten minutes are meant to be enough
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "make": "make",
    "cc": "gcc libc6-dev",
}
BUILDERS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "apt-get": "apt"}
IN_CI = os.environ.get("CI") == "true"


def missing(*, building: bool) -> list[str]:
    """The Debian packages that a run needs and this machine lacks."""
    programs = PROGRAMS | (BUILDERS if building else {})
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [package for name, package in programs.items() if not shutil.which(name, path=path)]


def install(packages: Sequence[str]) -> None:
    names = " ".join(packages).split()
    say(f"installing {' '.join(names)}")
    for words in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *names],
    ):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environment)


def ended_early(number: int, frame: FrameType | None) -> None:
    """SIGALRM is one Debian's failure, SIGTERM the end of all; either way nothing is left."""
    if number == signal.SIGTERM:
        sys.exit(128 + number)
    raise GuestError("the time is over (--limit)")


def written_checks(stage: Path, *, full: bool) -> int:
    """How many checks the sources hold: a module that is no longer collected is a failure."""
    text = "".join(path.read_text() for path in (stage / TESTS).rglob("*_checks.py"))
    later = 0 if full else len(re.findall(r"^@by_hand$", text, re.M))
    return len(re.findall(r"^def check_", text, re.M)) - later


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be run in each guest."""

    shape: Shape
    word: str
    full: bool
    capture: bool
    limit: int  # seconds


def run_suite(suite: str, wanted: Wanted) -> Sequence[Result]:
    """Boot one guest and run the checks in it. GuestError, ImageError, StageError."""
    began = time.monotonic()
    disk = image.image(suite, nested=wanted.full)
    pluggable = suite in PLUGGABLE
    say(f"{suite}: image after {time.monotonic() - began:.0f} s")
    with tempfile.TemporaryDirectory(prefix="e2e-stage-") as folder:
        stage = make_stage(Path(folder), emulated=emulated(), pluggable=pluggable)
        written = written_checks(stage, full=wanted.full)
        plugged = wanted.shape.cpus - pluggable
        with booted(disk, wanted.shape, plugged=plugged) as guest:
            how = f"{wanted.shape.cpus} CPUs, {'emulated' if emulated() else 'with KVM'}"
            say(f"{suite}: up after {time.monotonic() - began:.0f} s, {how}")
            report = Report(suite, guest.act)
            guest.push(stage, "/")
            guest.must("systemctl daemon-reload", limit=60)
            if wanted.capture:
                keep_snapshot(guest)
            script = f"cd /{TESTS} && E2E_FULL={'1' if wanted.full else ''} "
            script += f"python3 -m tests.e2e.in_guest.runner {wanted.shape} "
            script += shlex.quote(wanted.word)
            answer = guest.run(script, limit=wanted.limit, on_line=report.hear)
    if answer.status != 0:
        report.fail(f"the runner in the guest ended with {answer.status}")
    least = max(1, report.expected) if wanted.word else written
    if len(report.results) < least:
        report.fail(f"not all of {least} checks were run")
    say(f"{suite}: done after {time.monotonic() - began:.0f} s")
    return report.results


def keep_snapshot(guest: Guest) -> None:
    """What this kernel says of its CPUs, for the tests of the parser."""
    what = f"Debian {guest.image.suite} in QEMU, {guest.shape}: packages, L3, cores, threads"
    text = guest.must(f"python3 /{TESTS}/capture-host '{what}'", limit=60).text
    file = CHECKOUT / f"tests/hosts/captured-{guest.image.suite}-{guest.shape}.json"
    file.write_text(text)
    say(f"wrote {file.relative_to(CHECKOUT)}")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make e2e", description=__doc__)
    parser.add_argument("--suite", default="trixie", choices=(*image.SUITES, "both"))
    parser.add_argument("--shape", default="2x2x1x2", type=Shape.parse, metavar="PxGxCxT")
    parser.add_argument(
        "-k",
        dest="word",
        default="",
        help="only checks whose names hold WORD, or one of several: A,B",
        metavar="WORD",
    )
    parser.add_argument("--full", action="store_true", help="the long ones too: half an hour")
    parser.add_argument("--limit", type=int, metavar="SECONDS", help="for one Debian")
    parser.add_argument("--capture", action="store_true", help="write tests/hosts/captured-*.json")
    return parser.parse_args(words)


def ended(passed: int, failed: int, *, more: str = "") -> int:
    """The last line, and the same figures for whoever sums them up; the exit status."""
    counts.leave("e2e", passed=passed, failed=failed)
    say(f"{passed} passed, {failed} failed{more}")
    return 1 if failed else 0


def skipped(suites: Sequence[str], remedy: str) -> int:
    say(f"e2e is skipped, something is missing: {remedy}")
    return ended(0, int(IN_CI), more=f", {len(suites)} skipped")


def main(words: Sequence[str]) -> int:
    given = arguments(words)
    suites = image.SUITES if given.suite == "both" else (given.suite,)
    root, building = os.geteuid() == 0, not all(image.cached(s, nested=given.full) for s in suites)
    lacking = missing(building=building)
    if lacking and IN_CI and root:
        install(lacking)
    elif lacking:
        return skipped(suites, f"apt install {' '.join(lacking)}")
    elif building and not root:
        return skipped(
            suites, "its image is built by root, once: sudo --preserve-env=HOME make e2e"
        )
    signal.signal(signal.SIGALRM, ended_early)
    signal.signal(signal.SIGTERM, ended_early)
    limit = given.limit or (10 * LIMIT if given.full else LIMIT)
    wanted = Wanted(given.shape, given.word, full=given.full, capture=given.capture, limit=limit)
    results: list[Result] = []
    for suite in suites:
        signal.alarm(limit)
        try:
            results += run_suite(suite, wanted)
        except (GuestError, image.ImageError, StageError) as error:
            say(f"{suite}: {error}")
            results.append(Result(suite, type(error).__name__, passed=False))
        finally:
            signal.alarm(0)
    for line in table(results):
        say(line)
    for result in results:
        if not result.passed:
            say(f"FAILED  {result.suite}: {result.name}")
    passed = sum(result.passed for result in results)
    return ended(passed, len(results) - passed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
