"""The simulated node: changes of a running guest that wait, and when they come into effect."""

from collections.abc import Callable

import pytest

from proxmox_cpu_affinity.formats import pveconf
from proxmox_cpu_affinity.sim import processes

from .conftest import Cast

STARTED = ["pre-start", "post-start"]


def main(cast: Cast, vmid: int, key: str) -> str | None:
    return pveconf.parse(cast.file(vmid).read_text()).main.values.get(key)


def waiting(cast: Cast, vmid: int) -> dict[str, str]:
    return dict(pveconf.parse(cast.file(vmid).read_text()).pending.values)


def vcpus_of(cast: Cast, vmid: int) -> str:
    return processes.option(processes.arguments(cast.node.pid(vmid) or 0), "-smp").split(",")[0]


def changed_guest(cast: Cast, *, cores: int = 2) -> int:
    """A running guest of one core that is to have more, and an affinity."""
    vmid = cast.guest("--cores", 1, start=True)
    cast.node.do("set", vmid, "--cores", cores, "--affinity", "0,0", "--tags", "at-once")
    assert waiting(cast, vmid) == {"cores": str(cores), "affinity": "0,0"}
    assert (main(cast, vmid, "cores"), main(cast, vmid, "tags")) == ("1", "at-once")
    return vmid


def stop_and_start(cast: Cast, vmid: int) -> None:
    cast.node.do("stop", vmid)
    assert (main(cast, vmid, "cores"), waiting(cast, vmid)) == ("2", {})  # applied by the stop
    cast.node.do("start", vmid)


def reboot(cast: Cast, vmid: int) -> None:
    before = cast.node.pid(vmid)
    cast.node.do("reboot", vmid)
    assert processes.wait_until(lambda: cast.node.pid(vmid) not in {None, before}, seconds=10)
    assert processes.wait_until(lambda: cast.calls(vmid)[-1:] == ["post-start"], seconds=10)


def power_off_and_start(cast: Cast, vmid: int) -> None:
    cast.node.guest_poweroff(vmid)
    cast.comes(vmid, *STARTED, "post-stop")
    assert waiting(cast, vmid)  # only the next start applies it
    cast.node.do("start", vmid)


@pytest.mark.parametrize("restart", [stop_and_start, reboot, power_off_and_start])
def test_a_restart_from_outside_applies_it(
    cast: Cast, restart: Callable[[Cast, int], None]
) -> None:
    vmid = changed_guest(cast)
    assert vcpus_of(cast, vmid) == "1"
    restart(cast, vmid)
    assert (main(cast, vmid, "cores"), waiting(cast, vmid)) == ("2", {})
    assert main(cast, vmid, "affinity") == "0,0"
    assert vcpus_of(cast, vmid) == "2"


def test_a_reboot_from_inside_applies_nothing(any_cast: Cast) -> None:
    vmid = changed_guest(any_cast)
    pid = any_cast.node.pid(vmid)
    any_cast.node.guest_reboot(vmid)
    assert any_cast.node.pid(vmid) == pid
    assert waiting(any_cast, vmid) == {"cores": "2", "affinity": "0,0"}
    assert any_cast.calls(vmid) == STARTED
    assert any_cast.status(vmid) == "running"


def test_reboot_0_makes_a_reboot_from_inside_a_shutdown(any_cast: Cast) -> None:
    vmid = any_cast.guest("--reboot", 0, start=True)
    any_cast.node.guest_reboot(vmid)
    any_cast.comes(vmid, *STARTED, "post-stop")
    assert any_cast.node.pid(vmid) is None


def test_revert(cast: Cast) -> None:
    vmid = changed_guest(cast)
    said = cast.node.do("set", vmid, "--revert", "cores")
    assert said == f"update VM {vmid}: -revert cores\n"
    assert waiting(cast, vmid) == {"affinity": "0,0"}
    cast.node.do("set", vmid, "--delete", "cores")
    assert waiting(cast, vmid) == {"affinity": "0,0", "delete": "cores"}
    cast.node.do("set", vmid, "--revert", "cores,affinity", "--memory", 64)
    assert waiting(cast, vmid) == {"memory": "64"}
    cast.refused("set", vmid, "--revert", "what", status=2, says="revert: unknown option 'what'")
    both = ("set", vmid, "--revert", "cores", "--cores", 2)
    cast.refused(*both, status=2, says="you can't use '-cores' and '-revert cores'")


def test_a_change_back_waits_no_more(cast: Cast) -> None:
    vmid = changed_guest(cast)
    cast.node.do("set", vmid, "--cores", 1, "--delete", "affinity")
    assert waiting(cast, vmid) == {}
