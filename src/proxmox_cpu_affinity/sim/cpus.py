"""A guest's vCPUs: how many QEMU starts with, and their plugging while it runs.

After qemu-server's qemu_cpu_hotplug: with `cpu` in `hotplug:` all but the first vCPU are devices,
which come and go one by one, the highest first. A vCPU goes when the guest lets it.
"""

from proxmox_cpu_affinity.formats.pveconf import config_of, pending_deletions
from proxmox_cpu_affinity.model.guest import GuestConfig
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.sim import configs, pending, qmp
from proxmox_cpu_affinity.sim.faults import Fault
from proxmox_cpu_affinity.sim.processes import wait_until
from proxmox_cpu_affinity.sim.tree import Tree

_DRIVER = "qemu64-x86_64-cpu"  # of the CPU model that QEMU takes where none is named


def words(config: GuestConfig) -> list[str]:
    """QEMU's arguments for the vCPUs that a guest starts with."""
    most = config.cores * config.sockets
    topology = f"sockets={config.sockets},cores={config.cores},maxcpus={most}"
    if not config.hotplug_cpu:
        return ["-smp", f"{config.vcpu_count},{topology}"]
    result = ["-smp", f"1,{topology}"]
    for number in range(2, config.vcpu_count + 1):
        values = ",".join(f"{key}={value}" for key, value in _device(config, number).items())
        result += ["-device", values.removeprefix("driver=")]
    return result


def plug(tree: Tree, vmid: int) -> None:
    """Take a change of `vcpus` that waits into effect on a running guest, if it allows plugging.

    The configuration follows vCPU by vCPU; the caller holds its lock. Fault.
    """
    file = configs.load(tree, vmid)
    config = config_of(file, vmid=Vmid(vmid), node=tree.settings.name)
    wanted, most = file.pending.values.get("vcpus"), config.cores * config.sockets
    deleted = "vcpus" in pending_deletions(file)
    if not config.hotplug_cpu or (wanted is None and not deleted):
        return
    count = most if wanted is None else int(wanted)
    if count > most:
        raise Fault("you can't add more vcpus than maxcpus")
    with qmp.Monitor(tree.qmp(vmid), timeout=tree.settings.qmp_timeout) as monitor:
        _step_to(tree, monitor, config, count)
    done = pending.revert(configs.load(tree, vmid), {"vcpus"})
    configs.save(tree, vmid, done.with_main({"vcpus": None}) if deleted else done)


def _step_to(tree: Tree, monitor: qmp.Monitor, config: GuestConfig, count: int) -> None:
    now = config.vcpu_count
    if _running(monitor) != now:
        raise Fault("vcpus in running vm does not match its configuration")
    while now != count:
        if count > now:
            now += 1
            monitor.ask("device_add", _device(config, now))
            trouble = f"error hotplugging cpu{now}"
        else:
            monitor.ask("device_del", {"id": f"cpu{now}"})
            trouble = f"error unplugging cpu{now}"
            now -= 1
        if not _becomes(monitor, now, seconds=tree.settings.plug_timeout):
            raise Fault(trouble)
        configs.update(tree, config.vmid, {"vcpus": str(now)})


def _becomes(monitor: qmp.Monitor, count: int, *, seconds: float) -> bool:
    return wait_until(lambda: _running(monitor) == count, seconds=seconds)


def _running(monitor: qmp.Monitor) -> int:
    answer = monitor.ask("query-cpus-fast")
    return len(answer) if isinstance(answer, list) else 0


def _device(config: GuestConfig, number: int) -> dict[str, object]:
    """The device of a vCPU; their numbers begin with 1, their indexes with 0."""
    socket, core = divmod(number - 1, config.cores)
    place = {"socket-id": socket, "core-id": core, "thread-id": 0}
    return {"driver": _DRIVER, "id": f"cpu{number}", **place}
