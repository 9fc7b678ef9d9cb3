"""Talks to the service: HTTP over its Unix socket, one request a connection.

Answers are JSON as they came (answers.py makes wire types of them); errors of the API become the
classes that they were in the service. Out of scope: TCP, which needs a token for what the socket
allows root.
"""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlencode

from proxmox_cpu_affinity.cli.answers import read, strange
from proxmox_cpu_affinity.cli.command import Session
from proxmox_cpu_affinity.cli.remedies import Remedies
from proxmox_cpu_affinity.formats import jsonvalue
from proxmox_cpu_affinity.formats.endpoints import ENDPOINTS, Endpoint
from proxmox_cpu_affinity.formats.wire import Problem
from proxmox_cpu_affinity.model.errors import (
    AffinityError,
    ForbiddenError,
    ServiceDownError,
    family,
)
from proxmox_cpu_affinity.service.paths import Paths

TIMEOUT = 15.0  # seconds without a byte
LONG = 120.0  # the same for what changes many guests
QUIET = 60.0  # the same for a stream, which is kept alive by a comment every 15 s
REAL = Remedies(Path("/"))


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True, slots=True)
class Client:
    """The service behind one socket, and what to do where it does not answer."""

    path: Path
    remedies: Remedies = REAL

    def get(
        self, name: str, *, vmid: int | None = None, query: Mapping[str, str] | None = None
    ) -> object:
        """What an endpoint that is read answers, as JSON.

        The AffinityError that the service names; ServiceDownError where nobody answers.
        """
        return _json(self._answer(_endpoint(name), vmid=vmid, query=query))

    def post(
        self, name: str, body: object, *, vmid: int | None = None, timeout: float = TIMEOUT
    ) -> object:
        """What an endpoint that takes a body answers, as JSON. Errors as of `get`."""
        return _json(self._answer(_endpoint(name), vmid=vmid, body=body, timeout=timeout))

    def text(self, name: str, *, query: Mapping[str, str]) -> str:
        """What an endpoint answers as text. Errors as of `get`."""
        return self._answer(_endpoint(name), query=query).decode(errors="replace")

    def lines(self, name: str, *, last: str = "") -> Iterator[str]:
        """The lines of an answer that goes on, as they come; behind the event `last` if given."""
        headers = {"Last-Event-ID": last} if last else {}
        endpoint = _endpoint(name)
        with self._asked(endpoint.method, endpoint.path, headers, QUIET) as response:
            while line := response.readline():
                yield line.decode(errors="replace").rstrip("\n")
        raise self._down("the service has ended")

    def _answer(
        self,
        endpoint: Endpoint,
        *,
        vmid: int | None = None,
        query: Mapping[str, str] | None = None,
        body: object = None,
        timeout: float = TIMEOUT,
    ) -> bytes:
        target = endpoint.path.format(vmid=vmid) + (f"?{urlencode(query)}" if query else "")
        sent = None if body is None else json.dumps(jsonvalue.plain(body))
        headers = {} if sent is None else {"Content-Type": "application/json"}
        with self._asked(endpoint.method, target, headers, timeout, body=sent) as response:
            return response.read()

    @contextmanager
    def _asked(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        timeout: float,
        *,
        body: str | None = None,
    ) -> Iterator[HTTPResponse]:
        """A good answer, to be read inside; whatever goes wrong there too becomes an error."""
        connection = _UnixConnection(self.path, timeout)
        try:
            # A server that refuses a body answers before it has read it all.
            with suppress(BrokenPipeError):
                connection.request(method, target, body, dict(headers))
            response = connection.getresponse()
            if response.status >= 400:
                raise _problem(response.read(), response.status)
            yield response
        except PermissionError:
            raise ForbiddenError(
                f"not permitted to talk to the service at {self._shown()}",
                hint="only root may, and who runs the service",
            ) from None
        except TimeoutError:
            raise ServiceDownError(
                f"the service is there, but does not answer within {timeout:g} s",
                hint=f"look at its log: {self.remedies.log}",
            ) from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise self._down("the service is not running") from None
        except (OSError, HTTPException) as error:
            raise self._down(
                f"the service does not answer: {str(error) or type(error).__name__}"
            ) from None
        finally:
            connection.close()

    def _down(self, text: str) -> ServiceDownError:
        return ServiceDownError(text, hint=f"start it with: {self.remedies.start}")

    def _shown(self) -> str:
        """The socket as the node sees it: messages print paths without the root."""
        root = self.remedies.root
        return (
            f"/{self.path.relative_to(root)}" if self.path.is_relative_to(root) else str(self.path)
        )


def client_of(session: Session, path: Path | None) -> Client:
    """The client for this root's service, or for the one at another socket."""
    return Client(path or Paths(session.root).socket, Remedies(session.root))


def _endpoint(name: str) -> Endpoint:
    return next(endpoint for endpoint in ENDPOINTS if endpoint.name == name)


def _json(data: bytes) -> object:
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError):
        raise strange("it is not JSON") from None
    return value


def _problem(data: bytes, status: int) -> AffinityError:
    """The error that an answer of RFC 9457 describes, as the class it was in the service."""
    try:
        told = read(Problem, json.loads(data))
    except (ValueError, RecursionError, AffinityError):
        return strange(f"it has status {status} and no error of the API")
    kinds = {kind.code: kind for kind in family()}
    return kinds.get(told.code, AffinityError)(told.detail, hint=told.hint)
