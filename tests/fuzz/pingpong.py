"""The measuring program's input: scripts of random lines, to a build with sanitizers.

Blind changes, not guided by coverage: that would take clang's libFuzzer. Each line counts as an
execution. Every script must end with exit status 0, nothing on stderr, and output that our own
reader of it understands.
"""

import random
import subprocess
import time
from pathlib import Path

from proxmox_cpu_affinity.latency import protocol
from proxmox_cpu_affinity.model.errors import SyntaxFault

NAME = "pingpong"
SOURCE = Path(__file__).resolve().parents[2] / "src" / "proxmox_cpu_affinity" / "latency"
LINES = 2000  # of one script
WORDS = (
    *(b"method", b"home", b"lines", b"batch", b"batches-min", b"batches-max", b"agree", b"pair"),
    *(b"cas", b"rw", b"msg", b"first", b"second", b"round", b"0", b"1", b"2", b"65535", b"65536"),
    *(b"-1", b"1e-3", b"nan", b"inf", b"0x10", b"99999999999999999999", b"+1", b"1 1", b"", b"\t"),
)
# Between runs the time is bounded: what is attacked is the reader, not the patience.
CALM = b"limit-us 200\nbatch 10\nbatches-min 1\nbatches-max 3\nrun\n"


def built(folder: Path) -> Path | None:
    """The program with sanitizers; None where this compiler or kernel has none."""
    program = folder / "pingpong-sanitized"
    flags = ("-std=c11", "-O1", "-g", "-pthread", "-fsanitize=address,undefined")
    sources = sorted(map(str, SOURCE.glob("*.c")))
    command = ["cc", *flags, "-fno-sanitize-recover=all", "-o", str(program), *sources]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        return None
    return program if not said(program, b"") else None


def said(program: Path, script: bytes) -> str:
    """What is wrong with how the program took a script; empty where nothing is."""
    try:
        done = subprocess.run(
            [program], input=script, capture_output=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return "it hangs"
    if done.returncode or done.stderr:
        return f"exit status {done.returncode}: {done.stderr[:400].decode(errors='replace')}"
    for line in done.stdout.decode("ascii", "replace").splitlines():
        try:
            protocol.parse(line)
        except SyntaxFault as fault:
            return fault.text
    return ""


def line(dice: random.Random) -> bytes:
    """A line of the protocol, a mixture of its words, or bytes."""
    kind = dice.random()
    if kind < 0.3:
        return b"pair %d %d" % (dice.randrange(4), dice.randrange(4))
    if kind < 0.85:
        return b" ".join(dice.choices(WORDS, k=dice.randrange(5)))
    return bytes(dice.randrange(256) for _ in range(dice.choice((1, 7, 255, 256, 257, 3000))))


def script(dice: random.Random) -> bytes:
    """Many lines; those that would have it wait for long are calmed before each run."""
    lines = []
    for _ in range(LINES):
        one = line(dice)
        calm = one.split() == [b"run"] or dice.random() < 0.01
        lines.append(CALM if calm else one + b"\n")
    return b"".join(lines)


def fuzzed(folder: Path, seconds: int) -> tuple[int, str]:
    """Lines that were sent, and the failure, if any: its script is kept in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    program = built(folder)
    if program is None:
        return 0, "this compiler has no sanitizers that run here"
    dice = random.Random()
    end, sent = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        attempt = script(dice)
        if wrong := said(program, attempt):
            (folder / "pingpong-crash").write_bytes(attempt)
            return sent, f"{wrong}; written to {folder / 'pingpong-crash'}"
        sent += LINES
    return sent, ""
