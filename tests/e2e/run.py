"""`make e2e`: the installed project on a booted Debian, checked from inside; ends with one line.

    python3 -m tests.e2e.run [--suite trixie|bookworm|both] [--shape 2x2x1x2] [-k WORD] [--capture]

Needs QEMU, and root with mmdebstrap the first time. Where something is missing it says so and is
content, but not under CI=true: there root installs it, and anybody else fails.
"""

import argparse
import json
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
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.e2e import image
from tests.e2e.guest import Guest, GuestError, booted, emulated
from tests.e2e.shape import Shape
from tests.e2e.stage import CHECKOUT, TESTS, StageError, make_stage

LIMIT = 600  # seconds for one Debian, the image's building included
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "make": "make",
    "cc": "gcc libc6-dev",
}
BUILDERS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "apt-get": "apt"}
IN_CI = os.environ.get("CI") == "true"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@dataclass(slots=True)
class Count:
    """What became of the checks of one guest."""

    suite: str
    guest: Guest
    expected: int = 0
    passed: int = 0
    failed: list[str] = field(default_factory=list)

    def hear(self, line: str) -> None:
        """One line of the runner in the guest; anything but JSON is told as it is."""
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            if line.strip():
                say(f"  {line}")
        elif "checks" in told:
            self.expected = told["checks"]
        elif told.get("host") == "remove_cpu":
            self.guest.remove_cpu(told["cpu"])
        else:
            name = f"{self.suite}: {told['check']}"
            say(f"{'passed' if told['passed'] else 'FAILED'}  {name} ({told['seconds']} s)")
            if told["passed"]:
                self.passed += 1
            else:
                self.failed.append(name)
                say(told["text"])


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


def written_checks(stage: Path) -> int:
    """How many checks the sources hold: a module that is no longer collected is a failure."""
    sources = (path.read_text() for path in (stage / TESTS).rglob("*_checks.py"))
    return sum(len(re.findall(r"^def check_", text, re.M)) for text in sources)


def run_suite(suite: str, shape: Shape, word: str, *, capture: bool) -> Count:
    """Boot one guest and run the checks in it. GuestError, ImageError, StageError."""
    began = time.monotonic()
    disk = image.image(suite)
    say(f"{suite}: image after {time.monotonic() - began:.0f} s")
    with tempfile.TemporaryDirectory(prefix="e2e-stage-") as folder:
        stage = make_stage(Path(folder), emulated=emulated())
        written = written_checks(stage)
        with booted(disk, shape) as guest:
            how = "emulated" if emulated() else "with KVM"
            say(f"{suite}: up after {time.monotonic() - began:.0f} s, {shape.cpus} CPUs, {how}")
            count = Count(suite, guest)
            guest.push(stage, "/")
            guest.must("systemctl daemon-reload", limit=60)
            if capture:
                keep_snapshot(guest)
            script = f"cd /{TESTS} && python3 -m tests.e2e.in_guest.runner {shape}"
            script += f" {shlex.quote(word)}"
            answer = guest.run(script, limit=LIMIT, on_line=count.hear)
    if answer.status != 0:
        count.failed.append(f"{suite}: the runner in the guest ended with {answer.status}")
    wanted = max(1, count.expected) if word else written
    if count.passed + len(count.failed) < wanted:
        count.failed.append(f"{suite}: not all of {wanted} checks were run")
    say(f"{suite}: done after {time.monotonic() - began:.0f} s")
    return count


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
    parser.add_argument("-k", dest="word", default="", help="only checks whose name holds this")
    parser.add_argument(
        "--limit", type=int, default=LIMIT, metavar="SECONDS", help="for one Debian"
    )
    parser.add_argument("--capture", action="store_true", help="write tests/hosts/captured-*.json")
    return parser.parse_args(words)


def skipped(suites: Sequence[str], remedy: str) -> int:
    say(f"e2e is skipped, something is missing: {remedy}")
    say(f"0 passed, {int(IN_CI)} failed, {len(suites)} skipped")
    return int(IN_CI)


def main(words: Sequence[str]) -> int:
    given = arguments(words)
    suites = image.SUITES if given.suite == "both" else (given.suite,)
    root, building = os.geteuid() == 0, not all(map(image.cached, suites))
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
    passed, failed = 0, []
    for suite in suites:
        signal.alarm(given.limit)
        try:
            count = run_suite(suite, given.shape, given.word, capture=given.capture)
        except (GuestError, image.ImageError, StageError) as error:
            say(f"{suite}: {error}")
            failed.append(f"{suite}: {type(error).__name__}")
            continue
        finally:
            signal.alarm(0)
        passed += count.passed
        failed += count.failed
    for name in failed:
        say(f"FAILED  {name}")
    say(f"{passed} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
