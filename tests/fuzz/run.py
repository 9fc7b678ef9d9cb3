"""`make fuzz`: every target under atheris, and the measuring program's input with its sanitizers.

The time (SECONDS of all, ten minutes if not given) is shared out evenly, as many targets at once as
there are CPUs. Found inputs go on from run to run in build/fuzz/NAME; tests/fuzz/corpus/NAME holds
the kept ones. A crash, an input of more than HANG seconds, or growth beyond RSS_MB ends a target
and is a failure; its input is named. Executions are libFuzzer's own count.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.counts import BUILD, leave
from tests.fuzz import pingpong
from tests.fuzz.targets import TARGETS

HERE = Path(__file__).resolve().parent
FOUND = BUILD / "fuzz"
HANG, RSS_MB, LENGTH = 10, 1024, 8192
KEPT_MOST, KEPT_LENGTH = 16, 400  # files of each target's kept corpus, and bytes of each
GRACE = 120  # seconds beyond its time in which a target must have ended


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one target."""

    name: str
    executions: int
    peak_mb: int
    failure: str  # empty: none


def fuzzed(name: str, seconds: int) -> Told:
    """One target for so long, in a process of its own."""
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (folder / f"seed-{number}").write_text(seed, encoding="utf-8", newline="")
    kept = [str(HERE / "corpus" / name)] if (HERE / "corpus" / name).is_dir() else []
    command = [sys.executable, "-m", "tests.fuzz.child", name, str(folder), *kept]
    command += [f"-max_total_time={seconds}", f"-timeout={HANG}", f"-rss_limit_mb={RSS_MB}"]
    command += [f"-max_len={LENGTH}", "-print_final_stats=1", f"-artifact_prefix={FOUND}/{name}-"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + GRACE,
            check=False,
            cwd=HERE.parents[1],
            env={**os.environ, "PYTHONPATH": "src"},
        )
    except subprocess.TimeoutExpired:
        return Told(name, 0, 0, "it did not end")
    return told(name, done.returncode, done.stderr + done.stdout)


def keep(name: str) -> int:
    """Put the shortest of what reached something new into the kept corpus; files it has then."""
    corpus = HERE / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    found = [file for file in (FOUND / name).iterdir() if not file.name.startswith("seed-")]
    had = len(list(corpus.iterdir()))
    for file in sorted(found, key=lambda file: (file.stat().st_size, file.name)):
        if file.stat().st_size <= KEPT_LENGTH and had < KEPT_MOST:
            had += not (corpus / file.name).exists()
            shutil.copyfile(file, corpus / file.name)
    return had


def told(name: str, status: int, text: str) -> Told:
    """What libFuzzer's last words say."""
    figures = {key: int(value) for key, value in re.findall(r"stat::(\w+):\s+(\d+)", text)}
    executions = figures.get("number_of_executed_units", 0)
    failure = ""
    if status or not executions:
        lines = [line for line in text.splitlines() if re.search(r"Error|ERROR|written to", line)]
        failure = "; ".join(lines[:4]) or f"exit status {status}: {text[-300:]}"
    return Told(name, executions, figures.get("peak_rss_mb", 0), failure)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--keep", action="store_true", help="add what was found to the corpus")
    parser.add_argument("names", nargs="*", metavar="NAME", help="these targets only")
    given = parser.parse_args()
    names = given.names or [*sorted(TARGETS), pingpong.NAME]
    workers = max(1, len(os.sched_getaffinity(0)))
    share = max(2, given.seconds * workers // len(names))

    def one(name: str) -> Told:
        if name != pingpong.NAME:
            return fuzzed(name, share)
        lines, failure = pingpong.fuzzed(FOUND, share)
        return Told(name, lines, 0, failure)

    with ThreadPoolExecutor(workers) as pool:
        results = []
        for result in pool.map(one, names):
            state = f"{result.peak_mb} MB: {result.failure or 'nothing found'}"
            print(f"{result.name:<12} {result.executions:>10} executions, {state}", flush=True)
            results.append(result)
    if given.keep:
        print(f"{sum(keep(name) for name in names if name in TARGETS)} files are kept")
    failed = sum(bool(result.failure) for result in results)
    executions = sum(result.executions for result in results)
    leave("fuzz", passed=len(results) - failed, failed=failed)
    print(f"fuzz: {executions} executions of {len(results)} targets, {share} s each")
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
