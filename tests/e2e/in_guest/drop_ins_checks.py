"""A drop-in confines a guest from its first instruction, and never outlives its start."""

from pathlib import Path

from tests.e2e.in_guest import kernel, node
from tests.e2e.promises import by_hand, shows

STARTS = 100 if node.FULL else 20
OUTSIDE = {"affinity": "0"}  # where the drop-ins of these checks never are
EXPIRY = 120  # seconds


def reloads() -> str:
    """When systemd read its units last."""
    return node.run("systemctl", "show", "--value", "-p", "UnitsLoadTimestampMonotonic")


@shows(1, 2)
def check_every_start_is_confined_before_the_first_instruction() -> None:
    """And no start makes systemd reload, though all guests are new to it."""
    node.ready()
    before = reloads()
    for first in range(400, 400 + STARTS, 4):
        vmids = range(first, first + 4)
        for vmid in vmids:
            node.configure(vmid, vcpus=1 + vmid % 2)
        node.start_all(vmids)
        for vmid in vmids:
            held = kernel.held(vmid)
            assert len(held) == 1 + vmid % 2, f"{vmid}: {kernel.masks(vmid)}"
            assert kernel.began_on(vmid) == held, f"{vmid}: {kernel.began_on(vmid)}, then {held}"
            assert kernel.ran_on(vmid) <= held
            assert node.guest(vmid)["held_since"] == "first instruction", node.guest(vmid)
        assert not node.drop_ins()
        node.no_guests()
    assert reloads() == before


def announced(vmid: int) -> None:
    """A start that went no further than its first hook; its guest is given no CPU 0."""
    node.ready()
    node.fresh(100)  # takes CPU 0
    node.configure(vmid)
    node.hook(vmid, "pre-start")
    assert node.drop_ins() == {vmid}


@shows(1, 3, 4)
def check_guest_given_affinity_meanwhile_starts() -> None:
    """Its former start was announced and never was: taskset may not leave the scope's cpuset."""
    announced(101)
    said = node.fresh(101, keys=OUTSIDE)
    assert "left alone" in said, said
    assert kernel.held(101) == {0}
    assert not node.drop_ins()


@shows(1, 4)
def check_drop_in_of_a_guest_that_is_excluded_is_deleted_by_a_scan() -> None:
    announced(101)
    node.configure(101, keys=OUTSIDE)
    node.scan()
    assert not node.drop_ins()
    announced(102)
    node.configure(102, keys={"hookscript": ""})
    node.scan()
    assert not node.drop_ins()


@shows(1, 4, 6)
def check_drop_in_does_not_outlive_the_service() -> None:
    """However that ends. And what would happen otherwise: the guest does not start."""
    announced(101)
    node.service_down()
    assert not node.drop_ins()
    announced(101)
    killed = node.unit("MainPID")
    node.run("systemctl", "kill", "-s", "KILL", node.UNIT)
    node.wait_for("systemd has noticed", lambda: node.unit("MainPID") != killed)
    node.wait_for("no drop-in stands", lambda: not node.drop_ins())
    node.service_down()
    file = Path(f"/run/systemd/system/101.scope.d/50-{node.UNIT}.conf")
    file.write_text("[Scope]\nAllowedCPUs=1\n")
    node.configure(101, keys=OUTSIDE)
    said = node.run("guest", "start", "101", check=False)
    assert "taskset" in said, said
    node.run("/usr/sbin/proxmox-cpu-affinity-service", "--clean-dropins")
    assert not file.exists()
    node.start(101)
    assert kernel.held(101) == {0}


@shows(4)
def check_drop_in_of_an_earlier_life_is_deleted() -> None:
    node.service_down()
    node.no_guests()
    file = Path(f"/run/systemd/system/103.scope.d/50-{node.UNIT}.conf")
    file.parent.mkdir(exist_ok=True)
    file.write_text("[Scope]\nAllowedCPUs=1\n")
    node.service_up()
    assert not file.exists()


@by_hand
@shows(1, 4)
def check_drop_in_of_a_start_that_never_comes_expires() -> None:
    announced(101)
    node.wait_for("it has expired", lambda: not node.drop_ins(), patience=EXPIRY + 90.0)


@shows(1, 2)
def check_start_that_fails_leaves_nothing() -> None:
    """QEMU ends before it is up: its scope went, and its CPUs are free again."""
    node.ready()
    node.configure(100, keys={"args": "-fail"})
    said = node.run("guest", "start", "100", check=False)
    assert "kvm: as asked" in said, said
    node.wait_for("no drop-in stands", lambda: not node.drop_ins())
    node.wait_for("its CPU is free", lambda: node.guest(100)["cpus"] == "")
