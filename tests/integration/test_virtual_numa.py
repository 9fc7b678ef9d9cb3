"""A guest with virtual NUMA on a simulated node of two host nodes, of one CPU each: the masks of
its vCPU threads as the kernel has them. On two real CPUs, so it runs on small machines too."""

import os

import pytest

from proxmox_cpu_affinity.sim import node
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec
from proxmox_cpu_affinity.sim.settings import GuestKind
from tests.integration.conftest import short_root
from tests.integration.running import Running, add_guest, masks


@pytest.mark.skipif(not {0, 1} <= os.sched_getaffinity(0), reason="needs the CPUs 0 and 1")
def test_vcpus_of_each_guest_node_are_on_its_host_node() -> None:
    with short_root() as root:
        made_of = generate(parse_spec("2x1x1x1")).items()
        files = {path.removeprefix("sys/"): text for path, text in made_of}
        made = node.create(root, guest=GuestKind.STANDIN, sys_files=files)
        try:
            with Running(made) as service:
                add_guest(made, 100, options={"sockets": "2", "numa": "1"})
                made.do("start", 100)
                guest = service.guest(100)
                assert guest["outcome"] == "full"
                assert guest["applied"] == "0-1"
                found = masks(made, 100)
                vcpus = {key.split(" ", 1)[1]: mask for key, mask in found.items() if "CPU " in key}
                by_vcpu = [mask for _, mask in sorted(vcpus.items())]
                assert len(by_vcpu) == 2
                assert [len(mask) for mask in by_vcpu] == [1, 1]
                assert by_vcpu[0] | by_vcpu[1] == {0, 1}
                others = [mask for key, mask in found.items() if "CPU " not in key]
                assert all(mask == {0, 1} for mask in others)
        finally:
            made.destroy()
