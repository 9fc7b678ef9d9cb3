"""Guests that start and stop as under Proxmox VE: what their threads may use afterwards."""

import subprocess
import time
from collections import Counter

from tests.e2e.in_guest import kernel, node
from tests.e2e.promises import by_hand, shows


def overlap(held: dict[int, set[int]]) -> set[int]:
    """CPUs of more than one guest."""
    several = [cpu for cpus in held.values() for cpu in cpus]
    return {cpu for cpu in several if several.count(cpu) > 1}


def started(vmids: range, *, vcpus: int) -> dict[int, set[int]]:
    """The CPUs of new guests that start together, all known before the first one does: whether a
    guest is given whole cores depends on how many are still to come."""
    node.ready()
    for vmid in vmids:
        node.configure(vmid, vcpus=vcpus)
    node.scan()
    node.start_all(vmids)
    return {vmid: kernel.held(vmid) for vmid in vmids}


@shows(2)
def check_start_confines_every_thread() -> None:
    node.ready()
    said = node.fresh(100, vcpus=2)
    masks = kernel.masks(100)
    cpus = kernel.held(100)
    assert len(cpus) == 2, masks
    assert f"{len(masks)} threads read back" in said, said
    assert sum("/KVM" in name for name in masks) == 2, masks
    assert kernel.scope(100) == "/qemu.slice/100.scope"
    assert node.guest(100)["outcome"] == "full"
    assert_runs_inside(100, cpus)


@shows(2, 3)
def check_guest_without_hook_is_held_as_soon_as_its_scope_appears() -> None:
    """Its neighbour, which nobody told to manage, is not."""
    node.ready()
    for vmid, tag in ((100, "cpu-affinity"), (101, "")):
        said = node.fresh(vmid, vcpus=2, keys={"hookscript": "", "tags": tag})
        assert not said, said
    node.confirmed(100)
    assert len(kernel.held(100)) == 2 == len(kernel.limit(100) or ())
    assert node.guest(100)["held_since"] == "scope", node.guest(100)
    assert kernel.limit(101) is None
    assert kernel.held(101) == kernel.online()
    assert node.guest(101)["managed"] is False


@shows(2)
def check_threads_and_children_of_later_stay_inside() -> None:
    node.ready()
    node.fresh(100, vcpus=2)
    before = kernel.held(100)
    kernel.grow(100)
    assert kernel.held(100) == before
    assert_runs_inside(100, before)


def assert_runs_inside(vmid: int, cpus: set[int]) -> None:
    """Its threads run, and for a while nowhere else."""
    kernel.forget_where(vmid)
    time.sleep(1)
    node.wait_for("a thread has run", lambda: bool(kernel.ran_on(vmid)))
    assert kernel.ran_on(vmid) <= cpus


@shows(2)
def check_pinned_guest_has_each_vcpu_on_a_cpu_of_its_own() -> None:
    node.ready()
    node.fresh(100, vcpus=2, keys={"tags": "cpu-pinned"})
    assert_pinned(100, 2)


def assert_pinned(vmid: int, vcpus: int) -> None:
    """Each vCPU's thread on another CPU of the set, all other threads in the set."""
    limit = kernel.limit(vmid)
    assert limit is not None
    masks = kernel.masks(vmid)
    own = [mask for name, mask in masks.items() if "/KVM" in name]
    assert len(own) == vcpus
    assert all(len(mask) == 1 for mask in own), masks
    assert set().union(*own) == limit, masks
    assert all(mask == limit for name, mask in masks.items() if "/KVM" not in name), masks


@shows(4)
def check_undo_takes_the_limit_off_and_gives_masks_back() -> None:
    node.ready()
    node.fresh(100, vcpus=2)
    assert len(kernel.limit(100) or ()) == 2
    answer = node.ask("guests/100/reassign", {"undo": True})
    assert kernel.limit(100) is None, answer
    assert kernel.held(100) == kernel.online()
    node.scan()  # takes nothing back
    assert kernel.limit(100) is None
    node.ask("guests/100/reassign", {})
    assert len(kernel.held(100)) == 2 == len(kernel.limit(100) or ())


@shows(3, 4)
def check_a_guest_is_let_go_while_others_are_held() -> None:
    """systemd leaves a limit in force that is taken off while another scope has one."""
    node.ready()
    for vmid in (100, 101, 102):
        node.fresh(vmid, vcpus=2)
    answer = node.ask("guests/100/reassign", {"undo": True})
    assert kernel.unlimited(100), answer
    assert kernel.held(100) == kernel.online()
    node.configure(101, vcpus=2, keys={"affinity": "0"})
    node.scan()
    assert kernel.unlimited(101), node.log()
    assert kernel.held(101) == kernel.online()
    assert len(kernel.limit(102) or ()) == 2 == len(kernel.held(102))
    node.ask("guests/100/reassign", {})
    assert len(kernel.limit(100) or ()) == 2 == len(kernel.held(100))


@shows(2)
def check_memory_follows_a_guest_that_changes_its_node() -> None:
    node.ready()
    with node.settings(PCA_MOVE_MEMORY="on"):
        node.fresh(100, keys={"args": "-touch 48"})
        here = next(n for n in (0, 1) if kernel.held(100) <= kernel.node_cpus(n))
        assert kernel.node_share(100, here) > 0.9
        reserved = ",".join(map(str, sorted(kernel.node_cpus(here))))
        with node.settings(PCA_MOVE_MEMORY="on", PCA_RESERVED_CPUS=reserved):
            there = kernel.node_cpus(1 - here)
            node.wait_for("the guest has moved", lambda: kernel.held(100) <= there)
            node.wait_for("its memory followed", lambda: kernel.node_share(100, here) < 0.1)


@by_hand
@shows(1, 7)
def check_thirty_guests_at_once_are_spread_evenly() -> None:
    node.service_up()
    with node.settings(PCA_WIDTH="exact"):
        held = started(range(700, 730), vcpus=1)
    loads = Counter(cpu for cpus in held.values() for cpu in cpus)
    assert all(len(cpus) == 1 for cpus in held.values()), held
    assert max(loads.values()) - min(loads.get(cpu, 0) for cpu in kernel.online()) <= 1, loads
    assert all(kernel.began_on(vmid) == cpus for vmid, cpus in held.items())


@by_hand
@shows(7)
def check_guest_that_waits_gets_its_node() -> None:
    """Busy strangers come to its cache group: nobody says so but the kernel."""
    node.ready()
    wide = {"PCA_WIDTH": "domain", "PCA_WIDEN": "pressure", "PCA_WIDEN_STAY": "1"}
    with node.settings(**wide, PCA_WIDEN_ABOVE="20%", PCA_WIDEN_BELOW="15%"):
        node.fresh(100, keys={"args": "-load 1"})
        group = kernel.held(100)
        assert group == kernel.cache_group(min(group))
        number = next(n for n in (0, 1) if group <= kernel.node_cpus(n))
        cpus = ",".join(map(str, sorted(group)))
        words = ("taskset", "-c", cpus, "sh", "-c", "while :; do :; done")
        strangers = [subprocess.Popen(words) for _ in range(2 * len(group))]
        try:
            whole = kernel.node_cpus(number)
            node.wait_for("it has its node", lambda: kernel.held(100) == whole, patience=300)
            assert node.guest(100)["width"] == "node"
            assert kernel.limit(100) == whole
        finally:
            for stranger in strangers:
                stranger.kill()
                stranger.wait()
        node.power_off(100)


@shows(7)
def check_containers_count_as_load_and_are_left_alone() -> None:
    """All CPUs but two are a container's: a guest is given one of the two."""
    node.ready()
    free = set(sorted(kernel.online())[-2:])
    node.fresh(100)  # keeps systemd from taking the cpuset controller away again
    taken = kernel.online() - free - kernel.held(100)
    with kernel.container(500, taken) as file:
        node.scan()
        node.fresh(101)
        assert kernel.held(101) <= free, kernel.held(101)
        assert kernel.cpus_of(file.read_text()) == taken


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
    node.ready()
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
    node.ready()
    said = node.fresh(100, keys={"affinity": "3"})
    assert "left alone" in said, said
    node.scan()
    assert kernel.held(100) == {3}
