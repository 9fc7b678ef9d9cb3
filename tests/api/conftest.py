"""A node with a running guest, and a service on it that all tests of a module share."""

from collections.abc import Iterator

import pytest

from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind
from tests.integration.conftest import make_node, with_a_guest
from tests.integration.running import Running, masks


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    yield from with_a_guest()


@pytest.fixture
def unharmed(service: Running) -> Iterator[Running]:
    """The service; afterwards it is the same process, answers, has its guest where it was, and
    said no traceback."""
    before = (service.process.pid, masks(service.node, 100), len(service.log))
    yield service
    assert service.process.poll() is None
    assert service.answers()
    assert (service.process.pid, masks(service.node, 100)) == before[:2]
    assert "Traceback" not in service.log[before[2] :]


@pytest.fixture
def sim_node() -> Iterator[Node]:
    """A node of a test's own."""
    yield from make_node(GuestKind.STANDIN)
