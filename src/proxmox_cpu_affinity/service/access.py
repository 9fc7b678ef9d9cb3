"""Who may ask what: loopback is no identity, and a browser is not its user.

Reads are open to local users over TCP. Writes need the token, or the Unix socket with a peer that
is root or the service's own user. Host and Origin keep pages of other sites out.
"""

import errno
import hmac
import ipaddress
import os
import re
import secrets
import socket
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proxmox_cpu_affinity.formats.endpoints import Endpoint
from proxmox_cpu_affinity.model.errors import ForbiddenError, UnauthorizedError

_UCRED = struct.Struct("3i")
_TOKEN = re.compile(rb"[!-~]{32,}")
_PLACE = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9A-Za-z._-]{1,253}))(?::[0-9]{0,5})?")


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one service."""

    token: str
    bound: str  # the address that TCP is bound to
    remote: bool = False  # PCA_INSECURE_ALLOW_REMOTE
    node: str = ""

    def check_host(self, headers: Sequence[str]) -> None:
        """ForbiddenError for a Host that is not this service (DNS rebinding), none, or several."""
        if len(headers) != 1 or not self._ours(_host_name(headers[0])):
            shown = headers[0] if len(headers) == 1 else None
            raise ForbiddenError(
                f"Host {shown!r} is not this service", hint="use localhost or the bound address"
            )

    def check_origin(self, headers: Sequence[str]) -> None:
        """ForbiddenError for a page of another site; programs send no Origin."""
        for header in headers:
            _, _, place = header.partition("://")
            if not self._ours(_host_name(place)):
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
        # aiohttp's form for bytes that are not UTF-8 (PEP 383) must be no error here.
        told = given.strip().encode("utf-8", "surrogateescape")
        right = hmac.compare_digest(told, self.token.encode())
        if scheme.lower() != "bearer" or not right:
            raise UnauthorizedError(f"{endpoint.method} {endpoint.path} needs the token")

    def _ours(self, name: str) -> bool:
        if name in ("localhost", self.bound.lower()):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return self.remote and bool(self.node) and name == self.node.lower()
        return address.is_loopback or self.remote


def _host_name(text: str) -> str:
    """The name in NAME[:PORT], without brackets; empty where the text is anything else."""
    match = _PLACE.fullmatch(text)
    return (match[1] or match[2]).rstrip(".").lower() if match else ""


def peer_uid(peer: socket.socket) -> int | None:
    """The user at the other end of a Unix socket (unix(7), SO_PEERCRED); None: it is not known."""
    try:
        raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError:
        return None
    uid: int = _UCRED.unpack(raw)[1]
    return uid


def keep_token(path: Path) -> str:
    """The token of this host: read, or made where there is none. It outlives restarts.

    What others could have read or put there (another's file, a link, a wider mode) is no token.
    """
    token = _kept_token(path)
    if token is not None:
        return token
    path.unlink(missing_ok=True)
    token = secrets.token_urlsafe(32)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
        file.write(token + "\n")
    return token


def _kept_token(path: Path) -> str | None:
    try:
        # Without O_NONBLOCK a FIFO would hold the start for ever.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        ours = stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid()
        if not ours or about.st_mode & 0o077:
            return None
        token = file.read(256).strip()
    return token.decode() if _TOKEN.fullmatch(token) else None
