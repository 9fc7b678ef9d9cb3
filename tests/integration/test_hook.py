"""The hook keeps its promise in every case: status 0, at most one line, in time, no child left.

It is run as PVE runs it: argv SCRIPT VMID PHASE, PVE's environment, standard input at its end, both
outputs as pipes that are read until they close. The service's part is played by small real servers
on a Unix socket. Out of scope: what the service decides.
"""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).parents[2] / "hook"
PHASES: Final = ("pre-start", "post-start", "pre-stop", "post-stop")
# The promise itself is the one time bound that tests may have: 2 s. The rest is for a machine so
# loaded that starting and reaping the processes takes long; a hook that is held would take forever.
PROMISE_S: Final = 2.0
LIMIT_S: Final = PROMISE_S + 3.0

NAME: Final = "proxmox-cpu-affinity: "
WITHOUT: Final = "; guest 100 starts without it"
DOWN: Final = f"{NAME}the service does not run (systemctl start proxmox-cpu-affinity){WITHOUT}"
SLOW: Final = f"{NAME}the service was too slow (no answer within 1.5 s){WITHOUT}"
FORBIDDEN: Final = f"{NAME}not permitted to talk to the service (only root is){WITHOUT}"

Behaviour = Callable[[socket.socket], None]


def rubbish(why: str) -> str:
    return f"{NAME}the service answered rubbish ({why}){WITHOUT}"


def failed(status: int, does: str = "starts") -> str:
    return (
        f"{NAME}the hook failed (exit status {status}), the guest {does} without it; "
        "look at: journalctl -u proxmox-cpu-affinity"
    )


# --- a hook installed with paths of its own, and what came of running it


@dataclass(frozen=True, slots=True)
class Ran:
    status: int
    out: str
    err: str
    seconds: float
    left: tuple[int, ...]

    def kept_promise(self) -> str:
        """What it said, without the line's end; everything else is asserted here."""
        assert self.status == 0
        assert self.err == ""
        assert self.left == ()
        assert self.seconds < LIMIT_S
        assert self.out == "" or (self.out.endswith("\n") and self.out.count("\n") == 1)
        return self.out.removesuffix("\n")


def processes_with(mark: str) -> tuple[int, ...]:
    """Processes that have `mark` in their environment: everything a hook has started inherits."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return tuple(found)


def left_behind(mark: str) -> tuple[int, ...]:
    """Processes still there; killed ones get a moment in which the kernel takes them away."""
    end = time.monotonic() + 1.0
    while (left := processes_with(mark)) and time.monotonic() < end:
        time.sleep(0.01)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


@dataclass(frozen=True, slots=True)
class Installed:
    """Copies of the hook and of notify.py whose paths lie in one folder."""

    folder: Path
    python: str = sys.executable
    before: tuple[str, ...] = ()  # a program that runs the hook, with its arguments
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def notify(self) -> Path:
        return self.folder / "notify.py"

    @property
    def socket(self) -> Path:
        return self.folder / "api.sock"

    def environment(self) -> dict[str, str]:
        return {
            "LC_ALL": "C",
            "LVM_SUPPRESS_FD_WARNINGS": "1",
            "PATH": "/sbin:/bin:/usr/sbin:/usr/bin",
            "PCA_SOCKET_FILE": str(self.socket),
            "TEST_MARK": self.mark,
        }

    def install(self) -> "Installed":
        lines = (SOURCE / "proxmox-cpu-affinity-hook").read_text().splitlines()
        notify = lines.index("notify=/usr/libexec/proxmox-cpu-affinity/notify.py")
        python = lines.index("python=/usr/bin/python3")
        lines[notify] = f"notify={self.notify}"
        lines[python] = f"python={self.python}"
        hook = self.folder / "proxmox-cpu-affinity-hook"
        hook.write_text("\n".join([*lines, ""]))
        hook.chmod(0o755)
        self.notify.write_bytes((SOURCE / "notify.py").read_bytes())
        return self

    def start(
        self, *arguments: str, environment: Mapping[str, str] = {}
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.before, str(self.folder / "proxmox-cpu-affinity-hook"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self.environment(), **environment},
            cwd="/",
        )

    def result(self, process: subprocess.Popen[bytes], begun: float) -> Ran:
        out, err = process.communicate(timeout=60)
        seconds = time.monotonic() - begun
        left = left_behind(self.mark)
        return Ran(process.returncode, out.decode(), err.decode(), seconds, left)

    def run(self, *arguments: str, environment: Mapping[str, str] = {}) -> Ran:
        begun = time.monotonic()
        return self.result(self.start(*arguments, environment=environment), begun)

    def says(self, phase: str = "pre-start") -> str:
        return self.run("100", phase).kept_promise()


@pytest.fixture
def hook(tmp_path: Path) -> Installed:
    return Installed(tmp_path).install()


def interpreter(folder: Path, text: str) -> str:
    """A program in the interpreter's place."""
    path = folder / "interpreter"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# --- servers


@contextmanager
def serving(path: Path, behave: Behaviour) -> Iterator[socket.socket]:
    """A service at `path` that treats each connection with `behave`."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def work() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            with connection, suppress(OSError):
                behave(connection)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield listener
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        listener.close()
        path.unlink()
        assert not thread.is_alive()


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(4096)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += connection.recv(4096)
    return head + b"\r\n\r\n" + body


def sending(*parts: bytes, pause_s: float = 0.0) -> Behaviour:
    """Reads the request, sends the parts, closes."""

    def behave(connection: socket.socket) -> None:
        read_request(connection)
        for part in parts:
            connection.sendall(part)
            time.sleep(pause_s)

    return behave


def until_closed(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def holding(*parts: bytes) -> Behaviour:
    """Sends the parts and then neither says more nor closes."""

    def behave(connection: socket.socket) -> None:
        read_request(connection)
        for part in parts:
            connection.sendall(part)
        until_closed(connection)

    return behave


def close_at_once(connection: socket.socket) -> None:
    connection.close()


def endless(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-More: and more\r\n" * 100)


def http(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def line(text: str) -> bytes:
    return http(json.dumps({"outcome": "full", "line": text, "cpus": [0, 1.5e3, None]}).encode())


def chunked(*chunks: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"
    parts = (b"%X;name=value\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + b"".join(parts) + b"0\r\n\r\n"


def problem(status: str, body: object) -> bytes:
    return http(json.dumps(body).encode(), status, "application/problem+json")


# --- the service answers


@pytest.mark.parametrize("python", sorted({sys.executable, "/usr/bin/python3"}))
@pytest.mark.parametrize("phase", PHASES)
def test_the_answers_line_is_printed(tmp_path: Path, python: str, phase: str) -> None:
    hook = Installed(tmp_path, python).install()
    with serving(hook.socket, sending(line("guest 100 on CPUs 0-3"))):
        assert hook.says(phase) == "proxmox-cpu-affinity: guest 100 on CPUs 0-3"


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        pytest.param(
            sending(chunked(b'{"line": "guest 1', b'00 on CPU 7"}')),
            "guest 100 on CPU 7",
            id="chunked",
        ),
        pytest.param(holding(line("guest 100 on CPU 7")), "guest 100 on CPU 7", id="keeps it open"),
        pytest.param(
            sending(*(bytes([byte]) for byte in line("byte by byte"))),
            "byte by byte",
            id="bytes",
        ),
        pytest.param(sending(line("Gäste: CPUs 0–3 ✓")), "Gäste: CPUs 0–3 ✓", id="not ASCII"),
        pytest.param(
            sending(line("a\nb\r\n\x1b[31mc\u2028d\u202ee\ud800f")), "a b   [31mc d e f", id="signs"
        ),
        pytest.param(sending(line("x" * 1000)), "x" * (300 - len(NAME)), id="long"),
        pytest.param(
            sending(problem("409 Conflict", {"title": "Refused", "detail": "is a template"})),
            "is a template",
            id="problem",
        ),
        pytest.param(
            sending(problem("500 Internal Server Error", {"detail": "two\nlines"})),
            "two lines",
            id="error",
        ),
    ],
)
def test_one_line_of_the_answer(hook: Installed, behave: Behaviour, said: str) -> None:
    with serving(hook.socket, behave):
        assert hook.says() == NAME + said


def test_an_empty_line_is_not_printed(hook: Installed) -> None:
    with serving(hook.socket, sending(line(""))):
        assert hook.says("post-stop") == ""


@pytest.mark.parametrize(
    ("source", "body"),
    [
        (None, {}),
        ("", {}),
        ("pve2", {"migrated_from": "pve2"}),
        ('o"dd\\\n\tnö–\x7f', {"migrated_from": 'o"dd\\\n\tnö–\x7f'}),
        (b"b\xffd", {"migrated_from": "b\ufffdd"}),
    ],
)
def test_the_request(hook: Installed, source: str | bytes | None, body: object) -> None:
    requests: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        requests.append(read_request(connection))
        connection.sendall(line("ok"))

    environment = {} if source is None else {"PVE_MIGRATED_FROM": os.fsdecode(source)}
    with serving(hook.socket, behave):
        hook.run("4711", "post-start", environment=environment).kept_promise()
    (request,) = requests
    head, _, sent = request.partition(b"\r\n\r\n")
    first, *fields = head.decode("ascii").split("\r\n")
    assert first == "POST /api/v1/guests/4711/post-start HTTP/1.1"
    assert sorted(fields) == [
        "Connection: close",
        f"Content-Length: {len(sent)}",
        "Content-Type: application/json",
        "Host: localhost",
    ]
    assert json.loads(sent) == body


# --- the service does not answer as it should


def test_no_socket(hook: Installed) -> None:
    assert hook.says() == DOWN
    assert hook.says("post-stop") == DOWN.replace("starts", "stops")


def test_a_socket_left_behind(hook: Installed) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(hook.socket))
    assert hook.says() == DOWN


def test_a_file_in_the_sockets_place(hook: Installed) -> None:
    hook.socket.write_text("")
    assert hook.says() == DOWN


def test_a_path_too_long_for_a_socket(hook: Installed) -> None:
    said = hook.run("100", "pre-start", environment={"PCA_SOCKET_FILE": "/" + "x" * 200})
    expected = f"{NAME}the connection to the service broke (AF_UNIX path too long){WITHOUT}"
    assert said.kept_promise() == expected


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(holding(), id="never answers"),
        pytest.param(holding(line("almost")[:-1]), id="partial body"),
        pytest.param(
            sending(*(bytes([byte]) for byte in line("x" * 500)), pause_s=0.05), id="drip"
        ),
    ],
)
def test_too_slow(hook: Installed, behave: Behaviour) -> None:
    with serving(hook.socket, behave):
        assert hook.says() == SLOW


def fill_queue(path: Path) -> list[socket.socket]:
    """Connections until the listener takes no more."""
    waiting = []
    while True:
        waiting.append(client := socket.socket(socket.AF_UNIX))
        client.settimeout(0)
        try:
            client.connect(str(path))
        except BlockingIOError:
            return waiting


def test_never_accepts(hook: Installed) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(hook.socket))
        listener.listen(1)
        waiting = fill_queue(hook.socket)
        assert hook.says() == SLOW
        for client in waiting:
            client.close()


def test_a_full_queue_that_empties(hook: Installed) -> None:
    """Many guests that start at once may have to queue; none is sent away."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(hook.socket))
        listener.listen(1)
        listener.settimeout(10)
        waiting = fill_queue(hook.socket)
        begun = time.monotonic()
        process = hook.start("100", "pre-start")
        time.sleep(0.2)  # long enough to meet with the full queue; met or not, it must be served
        for client in waiting[:-1]:
            client.close()
            listener.accept()[0].close()
        with listener.accept()[0] as connection:
            read_request(connection)
            connection.sendall(line("served after all"))
        waiting[-1].close()
        assert hook.result(process, begun).kept_promise() == f"{NAME}served after all"


@pytest.mark.parametrize(
    ("behave", "why"),
    [
        pytest.param(sending(), "it is empty", id="closes"),
        pytest.param(sending(line("almost")[:-1]), "it ends early", id="ends early"),
        pytest.param(sending(b"SSH-2.0-OpenSSH\r\n\r\n"), "it is not HTTP", id="not HTTP"),
        pytest.param(
            sending(b"HTTP/1.1 yes\r\nContent-Length: 0\r\n\r\n"),
            "a number in its head is none",
            id="yes",
        ),
        pytest.param(sending(b"HTTP/1.1 200 OK\r\n\r\n{}"), "its length is not told", id="length"),
        pytest.param(
            sending(b"HTTP/1.1 200 OK\r\nContent-Length: -9\r\n\r\n{}"),
            "a number in its head is none",
            id="negative length",
        ),
        pytest.param(
            sending(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n" + b" " * 70000),
            "it is too long",
            id="too long",
        ),
        pytest.param(
            sending(chunked().replace(b"0\r\n", b"-1\r\n")), "a number in its head is none", id="-1"
        ),
        pytest.param(
            sending(chunked().replace(b"0\r\n", b"zz\r\n")), "a number in its head is none", id="zz"
        ),
        pytest.param(endless, "it is too long", id="endless"),
        pytest.param(sending(http(b"")), "it is not JSON", id="no body"),
        pytest.param(sending(http(b"<p>no</p>")), "it is not JSON", id="HTML"),
        pytest.param(sending(http(b'{"line": ')), "it is not JSON", id="half JSON"),
        pytest.param(sending(http(b"{'line': 1}")), "it is not JSON", id="quotes"),
        pytest.param(sending(http(b'{"line": "a"} x')), "it is not one JSON object", id="more"),
        pytest.param(sending(http(b'["line"]')), "it is not one JSON object", id="list"),
        pytest.param(sending(http(b"[" * 60000)), "it is not JSON", id="deep"),
        pytest.param(sending(http(b"\xff\xfe")), "it is not JSON", id="not UTF-8"),
        pytest.param(sending(http(b'{"line": 5}')), "status 200 without a text as 'line'", id="5"),
        pytest.param(sending(http(b"{}")), "status 200 without a text as 'line'", id="no line"),
        pytest.param(
            sending(problem("500 Oops", {"error": "no"})),
            "status 500 without a text as 'detail'",
            id="other error",
        ),
    ],
)
def test_rubbish(hook: Installed, behave: Behaviour, why: str) -> None:
    with serving(hook.socket, behave):
        assert hook.says() == rubbish(why)


def test_closes_at_once(hook: Installed) -> None:
    """Whether the hook meets this while it sends or while it receives is a matter of time."""
    broke = f"{NAME}the connection to the service broke ("
    with serving(hook.socket, close_at_once):
        said = hook.says()
    assert said == rubbish("it is empty") or said.startswith(broke)


def test_restarting(hook: Installed) -> None:
    with serving(hook.socket, sending(line("before"))):
        assert hook.says() == f"{NAME}before"
    assert hook.says() == DOWN
    with serving(hook.socket, sending()):
        assert hook.says() == rubbish("it is empty")
    with serving(hook.socket, sending(line("after"))):
        assert hook.says() == f"{NAME}after"


# --- not root


@pytest.fixture
def unprivileged() -> Iterator[Installed]:
    """The hook run as an ordinary user, in a folder that anybody may enter."""
    with tempfile.TemporaryDirectory(prefix="pca-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        change = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        hook = Installed(folder, "/usr/bin/python3", () if os.getuid() else change).install()
        hook.notify.chmod(0o644)
        yield hook


def test_not_root(unprivileged: Installed) -> None:
    with serving(unprivileged.socket, sending(line("never"))):
        # The owner is another where the test is root, else this same user, shut out as well.
        unprivileged.socket.chmod(0 if os.getuid() else stat.S_IRUSR | stat.S_IWUSR)
        assert unprivileged.says() == FORBIDDEN


def test_not_root_beside_a_service_of_its_own(unprivileged: Installed) -> None:
    with serving(unprivileged.socket, sending(line("a simulated node"))):
        unprivileged.socket.chmod(0o666)
        assert unprivileged.says() == f"{NAME}a simulated node"


# --- the interpreter, the package, the surroundings


@pytest.mark.parametrize(
    ("program", "said"),
    [
        pytest.param("exit 1", failed(1), id="fails"),
        pytest.param("echo junk; echo junk; echo junk >&2; exit 1", failed(1), id="junk, fails"),
        pytest.param("echo junk; echo junk >&2", "", id="junk, succeeds"),
        pytest.param("kill -SEGV $$", failed(139), id="crashes"),
        pytest.param("echo junk; exec sleep 60", failed(124), id="hangs"),
        pytest.param("trap '' TERM; while :; do sleep 1; done", failed(137), id="ignores TERM"),
    ],
)
def test_broken_interpreter(tmp_path: Path, program: str, said: str) -> None:
    hook = Installed(tmp_path, interpreter(tmp_path, program)).install()
    assert hook.says() == said


def test_interpreter_missing(tmp_path: Path) -> None:
    hook = Installed(tmp_path, str(tmp_path / "python3")).install()
    assert hook.says() == failed(127)
    assert hook.says("pre-stop") == failed(127, "stops")


def test_interpreter_not_executable(tmp_path: Path) -> None:
    assert Installed(tmp_path, "/etc/passwd").install().says() == failed(126)


def test_program_broken(hook: Installed) -> None:
    hook.notify.write_text("def broken(:\n")
    assert hook.says() == failed(1)


def test_program_prints_and_then_fails(hook: Installed) -> None:
    hook.notify.write_text("print('one line')\nraise SystemExit(3)\n")
    assert hook.says() == failed(3)


def test_package_removed(hook: Installed) -> None:
    hook.notify.unlink()
    assert hook.says() == ""


def test_no_timeout_program(hook: Installed) -> None:
    ran = hook.run("100", "pre-start", environment={"PATH": str(hook.folder)})
    assert ran.kept_promise() == failed(127)


def test_the_interpreters_environment_is_ignored(hook: Installed) -> None:
    (hook.folder / "_json.py").write_text("raise SystemExit('taken from the environment')\n")
    environment = {"PYTHONPATH": str(hook.folder), "PYTHONHOME": "/nowhere", "PYTHONINSPECT": "1"}
    with serving(hook.socket, sending(line("ignored"))):
        ran = hook.run("100", "pre-start", environment=environment)
    assert ran.kept_promise() == f"{NAME}ignored"


def test_run_through_a_shell(hook: Installed) -> None:
    """What the system does with a script that has lost its first line."""
    through = Installed(hook.folder, hook.python, ("/bin/sh",), hook.mark)
    with serving(hook.socket, sending(line("through sh"))):
        assert through.says() == f"{NAME}through sh"


@pytest.mark.parametrize(
    ("closing", "said"),
    [("<&-", f"{NAME}told"), ("2>&-", f"{NAME}told"), (">&-", ""), (">/dev/full", "")],
)
def test_closed_descriptors(hook: Installed, closing: str, said: str) -> None:
    shell = ("/bin/sh", "-c", f'exec "$@" {closing}', "sh")
    closed = Installed(hook.folder, hook.python, shell, hook.mark)
    with serving(hook.socket, sending(line("told"))):
        assert closed.says() == said


def test_nobody_reads_the_line(hook: Installed) -> None:
    with serving(hook.socket, sending(line("unread"))):
        process = hook.start("100", "pre-start")
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
        process.stderr.close()
    assert left_behind(hook.mark) == ()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "'' is no VMID"),
        (("100",), "nothing to do in the phase '' of guest 100"),
        (("100", "pre-migrate"), "nothing to do in the phase 'pre-migrate' of guest 100"),
        (("../x", "pre-start"), "'../x' is no VMID"),
        (("1" * 10, "pre-start"), f"'{'1' * 10}' is no VMID"),
        (("100", "a\nb"), "nothing to do in the phase 'a\\nb' of guest 100"),
    ],
)
def test_bad_arguments(hook: Installed, arguments: tuple[str, ...], said: str) -> None:
    assert hook.run(*arguments).kept_promise() == NAME + said


def test_program_alone_prints_to_its_standard_output(hook: Installed) -> None:
    command = [sys.executable, "-I", "-S", str(hook.notify)]
    environment = hook.environment()
    ran = subprocess.run(
        [*command, "100", "pre-stop"], env=environment, capture_output=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.decode() == DOWN.replace("starts", "stops") + "\n"
    ran = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.decode() == f"{NAME}needs a VMID and a phase\n"


# --- the task is given up


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_without_a_word(hook: Installed, number: signal.Signals) -> None:
    """Silence shows that the signal ended it: after its budget it would have said so."""
    asked = threading.Event()

    def behave(connection: socket.socket) -> None:
        read_request(connection)
        asked.set()
        until_closed(connection)

    with serving(hook.socket, behave):
        begun = time.monotonic()
        process = hook.start("100", "pre-start")
        assert asked.wait(10)
        process.send_signal(number)
        assert hook.result(process, begun).kept_promise() == ""


def test_a_signal_that_the_interpreter_ignores(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    program = f"trap '' TERM; : >{ready}; while :; do sleep 1; done"
    hook = Installed(tmp_path, interpreter(tmp_path, program)).install()
    begun = time.monotonic()
    process = hook.start("100", "pre-start")
    while not ready.exists() and time.monotonic() < begun + 10:
        time.sleep(0.005)
    process.terminate()
    assert hook.result(process, begun).kept_promise() == ""
