"""schemathesis against /openapi.json with all its checks, over both listeners.

It speaks TCP only: the Unix socket is behind a relay, of this test's own user. There the peer is
the right to act, so what it is given says nothing of a token. The stream of events never ends;
integration/test_events.py reads it.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.running import Running

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parents[1] / ".venv-attack" / "bin" / "schemathesis"
EXAMPLES = os.environ.get("EXAMPLES", "50")  # of each operation
SEED = os.environ.get("SEED", "1")  # another one asks other questions
PATIENCE = 900  # seconds: no test is about its time, but none may wait for ever


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            sink.sendall(piece)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _serve(client: socket.socket, path: str) -> None:
    with client, socket.socket(socket.AF_UNIX) as there:
        there.connect(path)
        back = threading.Thread(target=_pass_on, args=(there, client), daemon=True)
        back.start()
        _pass_on(client, there)
        back.join(30)


@contextlib.contextmanager
def relayed(path: str) -> Iterator[int]:
    """A port of 127.0.0.1 that leads to a Unix socket."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    threading.Thread(target=_serve, args=(client, path), daemon=True).start()

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        acceptor.join(10)


@contextlib.contextmanager
def place(service: Running, *, tcp: bool) -> Iterator[int]:
    if tcp:
        yield service.port
        return
    with relayed(str(service.socket)) as port:
        yield port


def document(service: Running, *, tcp: bool) -> dict[str, object]:
    """/openapi.json; for the socket without what it says of the token."""
    whole = service.get("/openapi.json", tcp=tcp).json
    paths = whole["paths"]
    assert isinstance(paths, dict)
    for operation in (each for path in paths.values() for each in path.values()):
        if not tcp:
            operation.pop("security", None)
    return whole


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_every_check_of_schemathesis_holds(
    service: Running,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    tcp: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    if not PROGRAM.exists():
        pytest.skip("schemathesis is not set up: make api-test does it")
    shutil.copy(HERE / "schemathesis.toml", tmp_path)
    report = tmp_path / "report.json"
    with place(service, tcp=tcp) as port:
        file = tmp_path / "openapi.json"
        file.write_text(json.dumps(document(service, tcp=tcp)))
        words = [str(file), "--url", f"http://127.0.0.1:{port}", "--checks", "all"]
        if tcp:
            words += ["--header", f"Authorization: Bearer {service.token}"]
        words += ["--exclude-path", "/api/v1/events", "--max-examples", EXAMPLES, "--no-shrink"]
        words += ["--continue-on-failure", "--request-timeout", "60", "--seed", SEED]
        done = subprocess.run(
            [PROGRAM, "run", *words, "--report-json-path", str(report)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            cwd=tmp_path,
        )
    shown = "\n".join(line[:300] for line in done.stdout.splitlines())
    assert done.returncode == 0, shown[-9000:] + done.stderr[-2000:]
    told = json.loads(report.read_text())
    operations, cases = told["operations"]["tested"], told["test_cases"]["generated"]
    assert service.answers()  # with the right to act it may let the guest go: that is its right
    assert "Traceback" not in service.log
    assert operations >= 24, told["operations"]
    assert cases >= operations
    record_property(
        f"schemathesis, {'tcp' if tcp else 'unix'}", f"{cases} cases, {operations} operations"
    )
