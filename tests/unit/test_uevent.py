"""The kernel's uevents."""

import pytest

from proxmox_cpu_affinity.formats.uevent import parse
from proxmox_cpu_affinity.model.errors import SyntaxFault


def message(head: str, *fields: str) -> bytes:
    return "\0".join((head, *fields, "")).encode()


@pytest.mark.parametrize("action", ["add", "remove", "online", "offline"])
def test_cpu_is_named(action: str) -> None:
    fields = (f"ACTION={action}", "DEVPATH=/devices/system/cpu/cpu11", "SUBSYSTEM=cpu", "SEQNUM=7")
    seen = parse(message(f"{action}@/devices/system/cpu/cpu11", *fields))
    assert (seen.action, seen.cpu) == (action, 11)
    assert seen.fields["SEQNUM"] == "7"


@pytest.mark.parametrize(
    ("devpath", "subsystem"),
    [
        ("/devices/system/machinecheck/machinecheck3", "machinecheck"),
        ("/devices/system/cpu/cpu3", "event_source"),
        ("/devices/system/cpu/cpufreq/policy3", "cpu"),
    ],
)
def test_other_devices_are_no_cpu(devpath: str, subsystem: str) -> None:
    assert parse(message(f"change@{devpath}", f"SUBSYSTEM={subsystem}")).cpu is None


@pytest.mark.parametrize("data", [b"", b"libudev\0\xfe\xed", b"online", b"@/devices", b"add@x"])
def test_what_is_no_uevent_is_refused(data: bytes) -> None:
    with pytest.raises(SyntaxFault):
        parse(data)
