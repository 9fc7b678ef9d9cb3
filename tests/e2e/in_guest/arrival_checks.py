"""A CPU that is plugged in. Where the guest can be given one, it is booted without its last."""

from tests.e2e.in_guest import kernel, node
from tests.e2e.in_guest.topology_checks import SHAPE
from tests.e2e.promises import shows


@shows(2, 7)
def check_plugged_cpu_is_the_next_guests() -> None:
    """All others are one guest's."""
    node.ready()
    last = SHAPE.cpus - 1
    assert kernel.online() == set(range(last))
    node.fresh(100, vcpus=last)
    assert kernel.held(100) == set(range(last))
    node.host("add_cpu", last)
    node.wait_for("the CPU is online", lambda: last in kernel.online())
    node.wait_for("the service knows", lambda: node.status()["cpus"] == SHAPE.cpus)
    node.fresh(101)
    assert kernel.held(101) == {last}
    assert kernel.began_on(101) == {last}
    assert kernel.limit(100) == set(range(last))
