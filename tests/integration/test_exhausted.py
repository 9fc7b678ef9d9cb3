"""A service that may open no further file: it knows nothing new, and so it changes nothing."""

import os
import resource
from pathlib import Path

import pytest

from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.errors import ExhaustedError
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running, add_guest, masks


class Hastened(Running):
    """Scans come often."""

    @property
    def program(self) -> tuple[str, ...]:
        return ("tests.faults.hastened",)


def test_guests_stay_while_no_file_can_be_opened(sim_node: Node) -> None:
    """Once the host seemed to have no CPUs, and every guest was let go and forgotten."""
    with Hastened(sim_node) as service:
        add_guest(sim_node, 100)
        sim_node.do("start", 100)
        service.says("latency measured")
        service.confirms(100)
        before, there = service.guest(100), masks(sim_node, 100)
        pid = service.process.pid
        files = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        # What is open already stays; three are free below: stdin, stdout and stderr are not.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, files[1]))
        try:
            service.wait_for(lambda: service.log.count("Too many open files") > 2)
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, files)
        service.wait_for(lambda: service.get("/api/v1/status").json["warnings"] == [])
        assert service.guest(100) == before
        assert masks(sim_node, 100) == there
        for text in ("stopped:", "no CPU may be used", "let go", "are online now"):
            assert text not in service.log


def test_a_file_that_cannot_be_opened_is_not_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    tree, taken = Tree(tmp_path), []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/", os.O_RDONLY)
    taken.append(lowest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
        for path in ("there", "nowhere"):
            with pytest.raises(ExhaustedError, match=f"/{path} cannot be read: Too many open"):
                tree.text(path)
        with pytest.raises(ExhaustedError):
            tree.listing("/")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(lowest)
    assert tree.text("there") == "x"
