"""Which names are this service's own, in Host and Origin."""

import errno
import socket
from typing import NoReturn

import pytest

from proxmox_cpu_affinity.formats.endpoints import ENDPOINTS
from proxmox_cpu_affinity.model.errors import ForbiddenError
from proxmox_cpu_affinity.service.access import Access

LOCAL = Access(token="t" * 43, bound="127.0.0.1", node="pve1")
REMOTE = Access(token="t" * 43, bound="PVE1.Example.com", remote=True, node="PVE1")


@pytest.mark.parametrize(
    ("access", "host"),
    [
        (LOCAL, "localhost:8245"),
        (LOCAL, "LOCALHOST:9000"),
        (LOCAL, "127.0.0.1:9000"),
        (LOCAL, "[::1]:8245"),
        (LOCAL, "localhost."),
        (REMOTE, "192.0.2.7:8245"),
        (REMOTE, "[2001:db8::7]"),
        # A browser writes names small; a node's name, and PCA_HOST, may have capitals.
        (REMOTE, "pve1:8245"),
        (REMOTE, "pve1.example.com:8245"),
    ],
)
def test_a_name_of_ours_is_let_in(access: Access, host: str) -> None:
    access.check_host([host])
    access.check_origin([f"http://{host}"])


@pytest.mark.parametrize(
    ("access", "host"),
    [
        (LOCAL, "pve1:8245"),
        (LOCAL, "192.0.2.7"),
        (LOCAL, "localhost.example.com"),
        (LOCAL, "localhost@example.com"),
        (LOCAL, ""),
        (REMOTE, "pve2"),
        (REMOTE, "example.com"),
    ],
)
def test_a_name_that_may_be_a_rebound_one_is_not(access: Access, host: str) -> None:
    with pytest.raises(ForbiddenError):
        access.check_host([host])
    with pytest.raises(ForbiddenError):
        access.check_origin([f"http://{host}"])


@pytest.mark.parametrize("hosts", [[], ["localhost", "evil.example"], ["localhost", "localhost"]])
def test_a_request_names_one_host(hosts: list[str]) -> None:
    """Of two, whoever stands between might have gone by the other."""
    with pytest.raises(ForbiddenError):
        LOCAL.check_host(hosts)


class Peer(socket.socket):
    """Of whom the kernel does not say who is at its other end."""

    def getsockopt(self, *_: object) -> NoReturn:
        raise OSError(errno.ENOBUFS, "No buffer space available")


def test_whom_the_kernel_does_not_name_may_not_act() -> None:
    """It was a traceback in the log; access is never given for want of an answer."""
    acting = next(endpoint for endpoint in ENDPOINTS if endpoint.acts)
    with Peer(socket.AF_UNIX) as peer, pytest.raises(ForbiddenError):
        LOCAL.check_write(acting, peer=peer, authorization=None)
