"""CPUs that go away under a guest and come back. The service finds it with its next scan."""

from collections.abc import Callable

from tests.e2e.in_guest import kernel, node
from tests.e2e.promises import shows


def loses(take: Callable[[int], None]) -> None:
    """A guest's only CPU goes: it gets another one that is free.

    Left alone, a thread would have all CPUs from then on (sched_setaffinity(2), cpuset(7)).
    """
    node.service_up()
    node.no_guests()
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
    status = node.ask("status")
    assert isinstance(status, dict)
    assert status["overlap"] == ""


def left(vmid: int, gone: int) -> set[int]:
    """All CPUs that any thread of a guest may use, but for the one that is gone."""
    return set().union(*kernel.masks(vmid).values()) - {gone}


@shows(2, 7)
def check_cpu_taken_offline() -> None:
    taken = []

    def offline(cpu: int) -> None:
        taken.append(cpu)
        (kernel.CPUS / f"cpu{cpu}/online").write_text("0")

    try:
        loses(offline)
    finally:
        for cpu in taken:
            (kernel.CPUS / f"cpu{cpu}/online").write_text("1")


@shows(2, 7)
def check_cpu_pulled_out() -> None:
    """The last of all checks: QEMU 7.2 crashes when it is plugged in again."""
    loses(lambda cpu: node.host("remove_cpu", cpu))
    assert kernel.online() == kernel.cpus_of((kernel.CPUS / "present").read_text())
