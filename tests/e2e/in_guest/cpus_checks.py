"""CPUs that go away under a guest and come back. The service hears of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.e2e.in_guest import kernel, node
from tests.e2e.promises import shows


def loses(take: Callable[[int], None]) -> None:
    """A guest's only CPU goes: it gets another one that is free.

    Left alone, a thread would have all CPUs from then on (sched_setaffinity(2), cpuset(7)).
    """
    node.ready()
    for vmid in (100, 101):  # one of the two is not on CPU 0, which cannot go
        node.fresh(vmid)
    vmid, cpu = max(
        (vmid, max(kernel.held(vmid))) for vmid in (100, 101) if 0 not in kernel.held(vmid)
    )
    take(cpu)
    node.wait_for(f"CPU {cpu} is gone", lambda: cpu not in kernel.online())
    node.wait_for(f"guest {vmid} has one CPU again", lambda: len(left(vmid, cpu)) == 1)
    node.confirmed(vmid)
    assert kernel.held(vmid).isdisjoint(kernel.held(201 - vmid))
    assert node.status()["overlap"] == ""


def left(vmid: int, gone: int) -> set[int]:
    """All CPUs that any thread of a guest may use, but for the one that is gone."""
    assert kernel.effective(vmid) != set(), "a guest may not be without CPUs"
    return set().union(*kernel.masks(vmid).values()) - {gone}


@contextmanager
def switchable() -> Iterator[Callable[[int], None]]:
    """Takes CPUs offline; at the end they are online again, and the service knows."""
    taken = set()

    def offline(cpu: int) -> None:
        taken.add(cpu)
        (kernel.CPUS / f"cpu{cpu}/online").write_text("0")

    try:
        yield offline
    finally:
        for cpu in taken:
            (kernel.CPUS / f"cpu{cpu}/online").write_text("1")
        node.wait_for(
            "the service knows all CPUs", lambda: node.status()["cpus"] == len(kernel.online())
        )


@shows(2, 7)
def check_cpu_taken_offline_and_back() -> None:
    with switchable() as offline:
        loses(offline)
        before = {vmid: kernel.held(vmid) for vmid in (100, 101)}
    node.confirmed(100, 101)
    assert {vmid: kernel.held(vmid) for vmid in (100, 101)} == before
    assert all(kernel.limit(vmid) == cpus for vmid, cpus in before.items()), before


@shows(2)
def check_pinned_masks_hold_when_cpus_are_switched() -> None:
    """Kernels before 6.2 give each thread the whole cpuset then, for good (cpuset.c)."""
    node.ready()
    node.fresh(100, vcpus=2, keys={"tags": "cpu-pinned"})
    before = kernel.masks(100)
    held = set().union(*before.values())
    bystander = max(kernel.online() - held)
    with switchable() as offline:
        offline(bystander)
        node.wait_for("the masks are right", lambda: kernel.masks(100) == before)
        lost = max(held)
        offline(lost)
        node.wait_for("the guest has another CPU", lambda: pinned_well(100, lost))
    node.wait_for("the masks are right again", lambda: pinned_well(100, None))


def pinned_well(vmid: int, gone: int | None) -> bool:
    """Whether each vCPU has one CPU, all of them the guest's set, and that is online."""
    own = [mask for name, mask in kernel.masks(vmid).items() if "/KVM" in name]
    limit = kernel.limit(vmid)
    assert kernel.effective(vmid) != set(), "a guest may not be without CPUs"
    return (
        all(len(mask) == 1 for mask in own)
        and set().union(*own) == limit == kernel.effective(vmid)
        and gone not in set().union(*own)
    )


@shows(2, 7)
def check_cpu_pulled_out() -> None:
    """The last of all checks: QEMU 7.2 crashes when it is plugged in again."""
    loses(lambda cpu: node.host("remove_cpu", cpu))
    assert kernel.online() == kernel.cpus_of((kernel.CPUS / "present").read_text())
