"""Who may ask what: loopback is no identity, and a browser is not its user.

Reads are open to local users over TCP. Writes need the token, or the Unix socket with a peer that
is root or the service's own user. Host and Origin keep pages of other sites out.
"""

import hmac
import ipaddress
import os
import secrets
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from proxmox_cpu_affinity.formats.wire import Endpoint
from proxmox_cpu_affinity.model.errors import ForbiddenError, UnauthorizedError

_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one service."""

    token: str
    bound: str  # the address that TCP is bound to
    remote: bool = False  # PCA_INSECURE_ALLOW_REMOTE
    node: str = ""

    def check_host(self, header: str | None) -> None:
        """ForbiddenError for a Host that is not this service: DNS rebinding."""
        if not self._ours(_host_name(header or "")):
            raise ForbiddenError(
                f"Host {header!r} is not this service", hint="use localhost or the bound address"
            )

    def check_origin(self, header: str | None) -> None:
        """ForbiddenError for a page of another site; programs send no Origin."""
        if header is not None and not self._ours(_host_name(urlsplit(header).netloc)):
            raise ForbiddenError(f"Origin {header!r} may not use this service")

    def check_write(
        self, endpoint: Endpoint, *, peer: socket.socket | None, authorization: str | None
    ) -> None:
        """UnauthorizedError where an endpoint acts and the caller has no right to."""
        if not endpoint.acts:
            return
        if peer is not None and peer.family == socket.AF_UNIX:
            if peer_uid(peer) in (0, os.geteuid()):
                return
            raise ForbiddenError("only root may do this over the socket")
        scheme, _, given = (authorization or "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), self.token.encode())
        if scheme.lower() != "bearer" or not right:
            raise UnauthorizedError(f"{endpoint.method} {endpoint.path} needs the token")

    def _ours(self, name: str) -> bool:
        if name in ("localhost", self.bound):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return self.remote and bool(self.node) and name == self.node
        return address.is_loopback or self.remote


def _host_name(header: str) -> str:
    """The name in a Host header, without its port and brackets; empty where it is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def peer_uid(peer: socket.socket) -> int:
    """The user at the other end of a Unix socket (unix(7), SO_PEERCRED)."""
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid: int = _UCRED.unpack(raw)[1]
    return uid


def keep_token(path: Path) -> str:
    """The token of this host: read, or made where there is none. It outlives restarts."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | flags), encoding="ascii") as file:
            token = file.read(256).strip()
        if len(token) >= 32:
            os.chmod(path, 0o600)
            return token
        path.unlink()
    except FileNotFoundError:
        pass
    token = secrets.token_urlsafe(32)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(token + "\n")
    return token
