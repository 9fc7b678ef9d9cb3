"""What the hook adds to a guest's start: its wall time beside that of starting anything at all.

Runs the real hook against a small answering server in this program, in turn with /bin/true and an
interpreter that does nothing, so that whatever else the machine does meets all of them alike. Out
of scope: the time the service itself takes to decide.
"""

import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROUNDS: Final = 30
WARM_UP: Final = 5
PYTHON: Final = "/usr/bin/python3"
HOOK: Final = Path(__file__).parents[1] / "hook"
ANSWER: Final = b'HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n{"line": "guest 100: CPU 0"}'
NOTHING: Final = "python3 -I -S -c pass"
IMPORTS: Final = ("_socket, _json", "contextlib", "json", "http.client")


@contextmanager
def answering(path: Path) -> Iterator[None]:
    """A server that reads a request and gives a line."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def work() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(ANSWER)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def installed(folder: Path) -> str:
    """A copy of the hook that finds notify.py in this source tree."""
    text = (HOOK / "proxmox-cpu-affinity-hook").read_text()
    line = "notify=/usr/libexec/proxmox-cpu-affinity/notify.py\n"
    path = folder / "hook"
    path.write_text(text.replace(line, f"notify={HOOK / 'notify.py'}\n"))
    path.chmod(0o755)
    return str(path)


def wall_ms(command: Sequence[str], path: Path) -> float:
    """One run as PVE does it: both outputs are pipes, read until they close."""
    environment = {"LC_ALL": "C", "PATH": "/sbin:/bin:/usr/sbin:/usr/bin"}
    environment["PCA_SOCKET_FILE"] = str(path)
    begun = time.perf_counter()
    ran = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=True
    )
    took = (time.perf_counter() - begun) * 1000
    if ran.stderr or ran.stdout not in {b"", b"proxmox-cpu-affinity: guest 100: CPU 0\n"}:
        raise RuntimeError(f"{command}: {ran}")
    return took


def measure() -> Mapping[str, Sequence[float]]:
    with tempfile.TemporaryDirectory(prefix="pca-") as name:
        path = Path(name) / "api.sock"
        hook = [installed(Path(name)), "100", "pre-start"]
        bare = [PYTHON, "-I", "-S", "-c"]
        runs = {"/bin/true": ["/bin/true"], NOTHING: [*bare, "pass"], "the hook": hook}
        runs |= {f"python3, import {names}": [*bare, f"import {names}"] for names in IMPORTS}
        times: dict[str, list[float]] = {title: [] for title in runs}
        with answering(path):
            for turn in range(WARM_UP + ROUNDS):
                for title, command in runs.items():
                    took = wall_ms(command, path)
                    if turn >= WARM_UP:
                        times[title].append(took)
    return times


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    model = next(names, "unknown CPU")
    version = subprocess.run([PYTHON, "-V"], capture_output=True, text=True, check=True)
    return (
        f"{model}, {os.cpu_count()} CPUs, Linux {platform.release()}, {version.stdout.strip()}, "
        f"load {os.getloadavg()[0]:.2f}"
    )


def main() -> int:
    print(machine())
    print(f"{ROUNDS} rounds in turn after {WARM_UP} to warm up; wall time in ms\n")
    times = measure()
    base = statistics.median(times[NOTHING])
    print(f"{'':34}{'median':>8}{'10 %':>8}{'90 %':>8}{'x Python':>10}")
    for title, values in times.items():
        tenths = statistics.quantiles(values, n=10, method="inclusive")
        median = statistics.median(values)
        print(f"{title:34}{median:8.2f}{tenths[0]:8.2f}{tenths[-1]:8.2f}{median / base:10.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
