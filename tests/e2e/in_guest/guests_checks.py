"""Guests that start and stop as under Proxmox VE: what their threads may use afterwards."""

import time

from tests.e2e.in_guest import kernel, node
from tests.e2e.promises import shows


def overlap(held: dict[int, set[int]]) -> set[int]:
    """CPUs of more than one guest."""
    several = [cpu for cpus in held.values() for cpu in cpus]
    return {cpu for cpu in several if several.count(cpu) > 1}


def ready() -> None:
    node.service_up()
    node.no_guests()


def started(vmids: range, *, vcpus: int) -> dict[int, set[int]]:
    """The CPUs of new guests, all known before the first one starts: whether a guest is given whole
    cores depends on how many are still to come."""
    ready()
    for vmid in vmids:
        node.configure(vmid, vcpus=vcpus)
    node.ask("guests")  # scans
    for vmid in vmids:
        node.start(vmid)
    return {vmid: kernel.held(vmid) for vmid in vmids}


@shows(2)
def check_start_confines_every_thread() -> None:
    ready()
    said = node.fresh(100, vcpus=2)
    masks = kernel.masks(100)
    cpus = kernel.held(100)
    assert len(cpus) == 2, masks
    assert f"{len(masks)} threads read back" in said, said
    assert sum("/KVM" in name for name in masks) == 2, masks
    assert kernel.scope(100) == "/qemu.slice/100.scope"
    assert node.guest(100)["outcome"] == "full"
    kernel.forget_where(100)
    time.sleep(1)
    assert kernel.ran_on(100), "no thread has run"
    assert kernel.ran_on(100) <= cpus


@shows(7)
def check_eight_guests_share_nothing() -> None:
    """Where there are CPUs for all: each in one cache group, and none on two."""
    size = len(kernel.online()) // 8
    held = started(range(200, 208), vcpus=size)
    assert all(len(cpus) == size for cpus in held.values()), held
    assert not overlap(held), held
    for cpus in held.values():
        assert cpus <= kernel.cache_group(min(cpus)), held


@shows(7)
def check_guest_as_large_as_a_core_gets_a_whole_one() -> None:
    """Then no guest runs on the other thread of another's core."""
    threads = len(kernel.siblings(0))
    held = started(range(300, 300 + len(kernel.online()) // threads), vcpus=threads)
    assert not overlap(held), held
    for cpus in held.values():
        assert cpus == kernel.siblings(min(cpus)), held


@shows(5)
def check_stop_frees_what_the_next_guest_takes() -> None:
    ready()
    everything = len(kernel.online())
    node.fresh(100, vcpus=everything - 1)
    node.fresh(101)
    freed = kernel.held(101)
    assert freed.isdisjoint(kernel.held(100))
    assert "free again" in node.stop(101)
    node.fresh(102)
    assert kernel.held(102) == freed


@shows(3)
def check_guest_with_affinity_of_its_own_is_left_alone() -> None:
    ready()
    said = node.fresh(100, keys={"affinity": "3"})
    assert "left alone" in said, said
    node.ask("guests")  # scans
    assert kernel.held(100) == {3}
