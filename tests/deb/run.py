"""`make deb-test`: the package built, installed, upgraded, removed; ends with one line of figures.

    python3 -m tests.deb.run [--suite trixie|bookworm|both] [--plain] [--arm64] [-k WORD]

In a plain Debian of each release first, then, without --plain, in a booted one. Needs root and
mmdebstrap, for the booted one QEMU. --arm64: the package for that processor too, its programs
translated by qemu-aarch64.
"""

import argparse
import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from tests import counts
from tests.deb import arm64, plain_runner
from tests.deb.plain import PlainError
from tests.e2e import image
from tests.e2e.guest import booted, emulated
from tests.e2e.pulse import GuestError
from tests.e2e.report import Report, Result, say
from tests.e2e.run import IN_CI, ended_early, install, missing
from tests.e2e.shape import Shape
from tests.e2e.stage import CHECKOUT, SLOWER, TESTS, StageError, make_stage

LIMIT = 3000  # seconds for one Debian
SHAPE = Shape.parse("2x2x1x2")
# What the tests need of the stage: the package brings the rest.
KEPT = (TESTS, "usr/bin/kvm", "usr/sbin/guest", "etc/systemd/system")


class BuildError(Exception):
    """There is no package; the text is for the person at the keyboard."""


def build(*arch: str) -> Path:
    """The package, made by make-deb, whose words are told. BuildError."""
    done = subprocess.run(
        [str(CHECKOUT / "scripts/make-deb"), *arch], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"{done.stdout}make-deb ended with {done.returncode}")
    say(done.stdout.strip())
    return CHECKOUT / done.stdout.partition(":")[0]


def built_twice() -> tuple[Path, Result]:
    """The package, and whether a second build has the same bytes. BuildError."""
    first = sha256(build().read_bytes()).hexdigest()
    deb = build()
    second = sha256(deb.read_bytes()).hexdigest()
    say(f"sha256 {first}, then {second}")
    return deb, Result("build", "the same bytes twice", passed=first == second)


def stage(deb: Path, folder: Path) -> Path:
    """What the guest gets: the package and the tests. StageError."""
    whole, target = make_stage(folder, emulated=emulated(), pluggable=False), folder / "deb"
    for name in KEPT:
        source = whole / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target / name)
    ignore = shutil.ignore_patterns("__pycache__")
    ours = target / TESTS / "tests/deb/in_guest"
    shutil.copytree(CHECKOUT / "tests/deb/in_guest", ours, ignore=ignore)
    shutil.copy(deb, target / TESTS)
    (target / TESTS / "slower.json").write_text(json.dumps(SLOWER if emulated() else {}))
    return target


def run_guest(suite: str, deb: Path, word: str) -> Sequence[Result]:
    """Boot one guest and run the checks in it. GuestError, ImageError, StageError."""
    began = time.monotonic()
    disk = image.image(suite)
    report = Report(suite, lambda action, cpu: None)
    with (
        tempfile.TemporaryDirectory(prefix="deb-stage-") as folder,
        booted(disk, SHAPE) as guest,
    ):
        guest.push(stage(deb, Path(folder)), "/")
        guest.must("systemctl daemon-reload", limit=60)
        say(f"{suite}: up after {time.monotonic() - began:.0f} s")
        script = f"cd /{TESTS} && python3 -m tests.deb.in_guest.runner {shlex.quote(word)}"
        answer = guest.run(script, limit=LIMIT, on_line=report.hear)
    if answer.status != 0 or len(report.results) != report.expected:
        report.fail(f"the runner in the guest ended with {answer.status}")
    say(f"{suite}: done after {time.monotonic() - began:.0f} s")
    return report.results


def run_suites(suites: Sequence[str], given: argparse.Namespace) -> list[Result]:
    """All of it. BuildError, PlainError."""
    deb, same = built_twice()
    results, word = [same], given.word
    if given.arm64:
        results += arm64.run(build("arm64"))
    for suite in suites:
        began = time.monotonic()
        results += plain_runner.run(suite, deb, word)
        say(f"{suite}: plain after {time.monotonic() - began:.0f} s")
    for suite in () if given.plain else suites:
        signal.alarm(LIMIT)
        try:
            results += run_guest(suite, deb, word)
        except (GuestError, image.ImageError, StageError) as error:
            say(f"{suite}: {error}")
            results.append(Result(suite, type(error).__name__, passed=False))
        finally:
            signal.alarm(0)
    return results


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make deb-test", description=__doc__)
    parser.add_argument("--suite", default="both", choices=(*image.SUITES, "both"))
    parser.add_argument(
        "-k", dest="word", default="", help="only checks whose names hold one of A,B"
    )
    parser.add_argument("--plain", action="store_true", help="without booted Debians")
    parser.add_argument("--arm64", action="store_true", help="the package for that processor too")
    given = parser.parse_args(words)
    suites = image.SUITES if given.suite == "both" else (given.suite,)
    lacking = missing(building=True)
    if given.arm64 and shutil.which("qemu-aarch64") is None:
        lacking.append("qemu-user")
    if lacking and IN_CI:
        install(lacking)
    elif lacking:
        say(f"something is missing: apt install {' '.join(lacking)}")
        return ended([Result("build", "what it needs", passed=False)])
    signal.signal(signal.SIGALRM, ended_early)
    signal.signal(signal.SIGTERM, ended_early)
    try:
        results = run_suites(suites, given)
    except (BuildError, PlainError) as error:
        say(f"{error}")
        results = [Result("build", type(error).__name__, passed=False)]
    return ended(results)


def ended(results: Sequence[Result]) -> int:
    """The last lines, and the figures for whoever sums them up; the exit status."""
    failed = [result for result in results if not result.passed]
    for result in failed:
        say(f"FAILED  {result.suite}: {result.name}")
    counts.leave("deb", passed=len(results) - len(failed), failed=len(failed))
    say(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
