"""The installed service as a unit of the real systemd."""

from pathlib import Path

from tests.e2e.in_guest import kernel, node
from tests.e2e.promises import shows


@shows()
def check_unit_reaches_active_and_answers() -> None:
    """Type=notify: systemctl returns when READY=1 has come."""
    node.service_down()
    node.run("systemctl", "start", node.UNIT)
    assert node.unit("ActiveState") == "active"
    assert node.unit("Type") == "notify"
    assert node.unit("StatusText") == "answering"
    assert node.ask("ping") == {"ping": "pong"}


@shows(2)
def check_it_says_that_scopes_are_confined_and_why_not() -> None:
    """A bus that was restarted is reached again; guests are held all the same."""
    node.ready()
    assert node.status()["confinement"] == "scope", node.status()
    node.fresh(100)
    node.run("systemctl", "restart", "dbus")
    node.wait_for("the loss is noticed", lambda: node.logged("the system bus was lost") > 0)
    node.scan()
    node.wait_for("scopes are reached again", lambda: node.status()["confinement"] == "scope")
    node.fresh(101)
    assert len(kernel.limit(101) or ()) == 1
    node.confirmed(100, 101)


@shows(1)
def check_start_without_service_costs_one_line() -> None:
    """And the guest is found and confined once the service runs."""
    node.no_guests()
    node.service_down()
    said = node.fresh(100)
    assert kernel.held(100) == kernel.online()
    assert said.count("\n") == 2, said  # pre-start and post-start
    assert said.count("the service does not run") == 2, said
    node.service_up()
    node.confirmed(100)
    assert len(kernel.held(100)) == 1, kernel.masks(100)


@shows(6)
def check_sigkill_restarts_it_and_costs_no_placement() -> None:
    node.ready()
    for vmid in (100, 101):
        node.fresh(vmid, vcpus=2)
    before = {vmid: kernel.masks(vmid) for vmid in (100, 101)}
    limits = {vmid: kernel.limit(vmid) for vmid in (100, 101)}
    assert None not in limits.values()
    killed = node.unit("MainPID")
    node.run("systemctl", "kill", "-s", "KILL", node.UNIT)
    node.wait_for(
        "systemd has started it again",
        lambda: node.unit("ActiveState") == "active" and node.unit("MainPID") != killed,
    )
    assert not node.drop_ins()
    node.confirmed(100, 101)
    assert {vmid: kernel.masks(vmid) for vmid in (100, 101)} == before
    assert {vmid: kernel.limit(vmid) for vmid in (100, 101)} == limits
    for vmid in (100, 101):
        assert kernel.cpus_of(str(node.guest(vmid)["cpus"])) == kernel.held(vmid)


@shows(6)
def check_stop_ends_it_and_a_lost_state_costs_no_placement() -> None:
    node.ready()
    for vmid in (101, 100):  # placed in this order: adopting must not depend on it
        node.fresh(vmid, vcpus=2)
    before = {vmid: kernel.masks(vmid) for vmid in (100, 101)}
    node.service_down()
    assert node.unit("Result") == "success"  # not "timeout": it ended by itself
    assert node.unit("ExecMainStatus") == "0"
    assert {vmid: kernel.masks(vmid) for vmid in (100, 101)} == before
    node.STATE.unlink()
    node.service_up()
    node.confirmed(100, 101)
    assert {vmid: kernel.masks(vmid) for vmid in (100, 101)} == before


@shows(4)
def check_release_lets_guests_go() -> None:
    node.ready()
    node.fresh(100)
    assert len(kernel.held(100)) == 1
    node.service_down()
    node.run("/usr/sbin/proxmox-cpu-affinity-service", "--release", "--stdout")
    assert kernel.held(100) == kernel.online()
    assert kernel.limit(100) is None
    assert not list(Path("/run/systemd/system").glob("*.scope.d"))


@shows()
def check_bad_setting_is_refused_for_good() -> None:
    """Exit status 78, and systemd does not try again."""
    node.no_guests()
    node.service_down()
    settings = Path(f"/etc/default/{node.UNIT}")
    before = settings.read_text()
    try:
        settings.write_text("PCA_STRATEGY=best\n")
        said = node.run("systemctl", "start", node.UNIT, check=False)
        assert said, "a start with a bad setting must fail"
        assert node.unit("ExecMainStatus") == "78"
        assert node.unit("ActiveState") == "failed"
        assert node.unit("NRestarts") == "0"
        assert "PCA_STRATEGY" in node.log()
    finally:
        settings.write_text(before)
