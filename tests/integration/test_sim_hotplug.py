"""The simulated node: vCPUs that are plugged and unplugged while the guest runs."""

import os
from pathlib import Path

import pytest

from proxmox_cpu_affinity.formats import pveconf
from proxmox_cpu_affinity.model.guest import GuestConfig
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.sim import cpus, processes

from .conftest import Cast

HOTPLUG = ("--hotplug", "network,disk,cpu")


def vcpu_masks(cast: Cast, vmid: int) -> dict[str, set[int]]:
    """The masks of the guest's vCPU threads, by their names without the accelerator."""
    found = {}
    for task in Path(f"/proc/{cast.node.pid(vmid)}/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name.startswith("CPU "):
            found[name.partition("/")[0]] = os.sched_getaffinity(int(task.name))
    return found


def vcpus(cast: Cast, vmid: int) -> list[str]:
    return sorted(vcpu_masks(cast, vmid))


def said_of_vcpus(cast: Cast, vmid: int) -> tuple[str | None, dict[str, str]]:
    """What the file says: in effect, and waiting."""
    file = pveconf.parse(cast.file(vmid).read_text())
    return file.main.values.get("vcpus"), dict(file.pending.values)


def test_where_the_vcpus_sit() -> None:
    config = GuestConfig(Vmid(100), cores=2, sockets=2, vcpus=3, hotplug_cpu=True)
    assert cpus.words(config) == [
        *("-smp", "1,sockets=2,cores=2,maxcpus=4"),
        *("-device", "qemu64-x86_64-cpu,id=cpu2,socket-id=0,core-id=1,thread-id=0"),
        *("-device", "qemu64-x86_64-cpu,id=cpu3,socket-id=1,core-id=0,thread-id=0"),
    ]


def test_all_but_the_first_vcpu_are_devices(any_cast: Cast) -> None:
    vmid = any_cast.guest(*HOTPLUG, "--cores", 2, start=True)
    argv = processes.arguments(any_cast.node.pid(vmid) or 0)
    assert processes.option(argv, "-smp") == "1,sockets=1,cores=2,maxcpus=2"
    assert processes.option(argv, "-device").startswith("qemu64-x86_64-cpu,id=cpu2,")
    assert vcpus(any_cast, vmid) == ["CPU 0", "CPU 1"]


def test_plug_and_unplug(any_cast: Cast) -> None:
    vmid = any_cast.guest(*HOTPLUG, "--cores", 2, "--vcpus", 1, start=True)
    pid = any_cast.node.pid(vmid)
    assert pid is not None
    cpu = max(os.sched_getaffinity(0))
    os.sched_setaffinity(pid, {cpu})  # the main thread, which makes the new ones
    any_cast.calls(vmid)
    any_cast.node.do("set", vmid, "--vcpus", 2)
    masks = vcpu_masks(any_cast, vmid)
    assert masks["CPU 1"] == {cpu}
    assert masks["CPU 0"] == os.sched_getaffinity(0)
    assert said_of_vcpus(any_cast, vmid) == ("2", {})
    any_cast.node.do("set", vmid, "--vcpus", 1)
    assert vcpus(any_cast, vmid) == ["CPU 0"]
    assert said_of_vcpus(any_cast, vmid) == ("1", {})
    assert any_cast.node.pid(vmid) == pid
    assert any_cast.calls(vmid) == []


def test_without_vcpus_all_are_plugged(cast: Cast) -> None:
    vmid = cast.guest(*HOTPLUG, "--cores", 2, "--vcpus", 1, start=True)
    cast.node.do("set", vmid, "--delete", "vcpus")
    assert vcpus(cast, vmid) == ["CPU 0", "CPU 1"]
    assert said_of_vcpus(cast, vmid) == (None, {})


@pytest.mark.parametrize("hotplug", ["1", "disk", None])
def test_without_the_flag_it_waits(cast: Cast, hotplug: str | None) -> None:
    words = () if hotplug is None else ("--hotplug", hotplug)
    vmid = cast.guest(*words, "--cores", 2, "--vcpus", 1, start=True)
    cast.node.do("set", vmid, "--vcpus", 2)
    assert vcpus(cast, vmid) == ["CPU 0"]
    assert said_of_vcpus(cast, vmid) == ("1", {"vcpus": "2"})


def test_more_than_the_machine_can_have(cast: Cast) -> None:
    vmid = cast.guest(*HOTPLUG, "--cores", 1, start=True)
    says = "vcpus: hotplug problem - you can't add more vcpus than maxcpus"
    cast.refused("set", vmid, "--vcpus", 2, status=2, says=says)
    assert vcpus(cast, vmid) == ["CPU 0"]
    assert said_of_vcpus(cast, vmid) == (None, {"vcpus": "2"})


def test_a_guest_that_does_not_let_its_vcpu_go(any_cast: Cast) -> None:
    """The guest has to take part; without ACPI it does not."""
    any_cast.node.configure(plug_timeout=0.3)
    vmid = any_cast.guest(*HOTPLUG, "--cores", 2, "--acpi", 0, start=True)
    says = "vcpus: hotplug problem - "
    any_cast.refused("set", vmid, "--vcpus", 1, status=2, says=says)
    assert vcpus(any_cast, vmid) == ["CPU 0", "CPU 1"]
    assert said_of_vcpus(any_cast, vmid) == (None, {"vcpus": "1"})


def test_a_machine_that_was_changed_behind_the_file(cast: Cast) -> None:
    vmid = cast.guest(*HOTPLUG, "--cores", 2, "--vcpus", 1, start=True)
    text = cast.file(vmid).read_text()
    cast.file(vmid).write_text(text.replace("vcpus: 1", "vcpus: 2"))
    says = "vcpus in running vm does not match its configuration"
    cast.refused("set", vmid, "--vcpus", 1, status=2, says=says)
