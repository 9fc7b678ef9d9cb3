"""Fixtures of the page's tests: one browser, a node with real guests, hosts that are made up."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind
from tests.integration.conftest import make_node
from tests.integration.running import Running
from tests.page.browser import Watched, launched, watched

HOSTS = {
    4: "1x1x4x1",
    16: "1x2x4x2",
    128: "2x4x8x2+nodes=2+isolated=60-63",
    512: "2x16x8x2+nodes=4",
}
"""CPUs of the hosts that are made up, and what they are made of."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with launched() as made:
        yield made


@pytest.fixture
def node() -> Iterator[Node]:
    """A node whose guests are real processes."""
    yield from make_node(GuestKind.STANDIN)


@pytest.fixture
def service(node: Node) -> Iterator[Running]:
    with Running(node) as running:
        yield running


@pytest.fixture
def view(browser: Browser) -> Iterator[Watched]:
    with watched(browser) as made:
        yield made


@contextmanager
def pretended(cpus: int) -> Iterator[int]:
    """A service on a made-up host, and the port it answers on."""
    root = Path(tempfile.mkdtemp(prefix="pca-", dir="/tmp"))
    port = root / "run/proxmox-cpu-affinity/port"
    with (root / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.page.pretended", str(root), HOSTS[cpus]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        Running.wait_for(lambda: port.exists() or process.poll() is not None)
        assert process.poll() is None, (root / "output").read_text()
        Running.wait_for(lambda: port.read_text().strip() != "")
        yield int(port.read_text())
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module", params=HOSTS)
def large(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """How many CPUs a made-up host has, and the port of the service on it."""
    with pretended(request.param) as port:
        yield request.param, port
