"""A guest's command line: PVE's argument order as far as stock QEMU takes it.

Out of scope: disks, networks, displays; a guest here has none.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from proxmox_cpu_affinity.formats.pveconf import GuestFile, Section, config_of
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.sim import cpus
from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.settings import GuestKind
from proxmox_cpu_affinity.sim.tree import Tree

_OF_TEMPLATES = frozenset(("bios", "lock", "machine", "memory", "name", "ostype", "template"))
STANDIN = Path(__file__).with_name("standin.py")


def command(tree: Tree, vmid: int, file: GuestFile, *, last: Sequence[str] = ()) -> list[str]:
    """The arguments that start a guest, `last` at their end; argv[0] is the node's kvm. Fault when
    it has too many vCPUs for the node."""
    config = config_of(file, vmid=Vmid(vmid), node=tree.settings.name)
    if config.cores * config.sockets > tree.cpus():
        raise Fault(f"MAX {tree.cpus()} vcpus allowed per VM on this node")
    values = file.main.values
    standin = tree.settings.guest is GuestKind.STANDIN
    argv = [str(tree.kvm)]
    if standin:
        # Proxmox's QEMU alone knows -id; stock QEMU refuses to start with it.
        argv += ["-I", "-S", str(STANDIN), "-id", str(vmid)]
    argv += ["-name", f"{config.name or f'vm{vmid}'},debug-threads=on", "-no-shutdown"]
    argv += _monitors(tree, vmid)
    argv += ["-pidfile", str(tree.pidfile(vmid)), "-daemonize"]
    argv += cpus.words(config)
    argv += ["-nodefaults", "-display", "none"]
    argv += ["-no-reboot"] if values.get("reboot") == "0" else []
    argv += ["-S"] if values.get("freeze") == "1" else []
    argv += ["-m", str(tree.settings.memory)]
    argv += ["-machine", "pc,acpi=off" if values.get("acpi") == "0" else "pc"]
    argv += [] if standin else _hardware(tree, values)
    return [*argv, *shlex.split(values.get("args", "")), *last]


def minimized(file: GuestFile) -> GuestFile:
    """What of a template's configuration is used when a backup starts it: no hook, one vCPU."""
    kept = {key: value for key, value in file.main.values.items() if key in _OF_TEMPLATES}
    return replace(file, main=Section({**kept, "kvm": "0"}))


def _monitors(tree: Tree, vmid: int) -> list[str]:
    new = tree.settings.qemu_version >= (9, 2)
    reconnect = "reconnect-ms=5000" if new else "reconnect=5"
    return [
        *("-chardev", f"socket,id=qmp,path={tree.qmp(vmid)},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=qmp-event,path={tree.qmeventd_socket},{reconnect}"),
        *("-mon", "chardev=qmp-event,mode=control"),
    ]


def _hardware(tree: Tree, values: Mapping[str, str]) -> list[str]:
    allowed = values.get("kvm", "1") == "1"
    accel = tree.settings.accel or ("kvm" if allowed and kvm_is_real() else "tcg,thread=multi")
    return ["-accel", accel, "-vga", "none", "-bios", str(tree.firmware)]


def kvm_is_real() -> bool:
    """Whether /dev/kvm can be used and stands for hardware: kvm_pvm is a software one whose
    guests may take minutes to boot."""
    modules = Path("/sys/module")
    hardware = any((modules / name).exists() for name in ("kvm_intel", "kvm_amd"))
    usable = os.access("/dev/kvm", os.R_OK | os.W_OK)
    return hardware and usable and not (modules / "kvm_pvm").exists()


def affinity_of(file: GuestFile) -> str | None:
    """The cpulist that PVE hands to taskset; `affinity: 0` is false to Perl, so it has none."""
    value = file.main.values.get("affinity", "")
    return None if value in {"", "0"} else value
