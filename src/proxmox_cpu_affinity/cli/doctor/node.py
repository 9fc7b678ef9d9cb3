"""Checks of the node: PVE's files, hookscripts, containers, isolated CPUs, others who pin."""

import re
from collections.abc import Iterator

from proxmox_cpu_affinity.cli.doctor.check import (
    Check,
    Patient,
    Result,
    failed,
    ok,
    warning,
)
from proxmox_cpu_affinity.cli.words import cpus_named, listed
from proxmox_cpu_affinity.formats.pvesections import snippet_path
from proxmox_cpu_affinity.model.errors import AffinityError, NotPveHostError
from proxmox_cpu_affinity.model.ids import Vmid, vmid_of
from proxmox_cpu_affinity.pve.storage import Findings, check_hook, file_fault, storages
from proxmox_cpu_affinity.render.words import counted

# A newer qemu-server may pin vCPUs by itself: `pinning: numa` or `one-to-one` was proposed in 2026
# (pve-devel, "fix #7282: allow (NUMA aware) vCPU pinning"). Its final name is not known here.
_NATIVE = re.compile(r"pinning|v?cpu[_-]?(?:pin(?:ning|s)?|affinity|map|sets?)[0-9]*")
# As raw lxc keys are written: with a colon or an equals sign (pve-container, LXC/Config.pm).
_OWN_CPUS = re.compile(r"^lxc\.cgroup2?\.cpuset\.cpus\s*[:=]", re.MULTILINE)
_SECTION = re.compile(r"^\[", re.MULTILINE)


def check_pve(patient: Patient) -> Result:
    try:
        node, count = patient.node, len(patient.configs)
    except NotPveHostError as error:
        return failed(error.text, error.hint)
    if patient.unreadable:
        text = f"{listed('VM', sorted(patient.unreadable))}: configuration cannot be read"
        return failed(text, "run this as root; see: qm config VMID")
    return ok(f"node {node}, {counted(count, 'guest')}")


def check_our_hook(patient: Patient) -> Result:
    """Our hookscript on every storage that guests name it from: without it they do not start."""
    using: dict[str, list[Vmid]] = {}
    for vmid, config in patient.configs.items():
        if config.has_hook and config.hookscript is not None:
            using.setdefault(config.hookscript.partition(":")[0], []).append(vmid)
    node = patient.node
    if not using:
        return _unused(check_hook(patient.tree, "local", node=node))
    found = {storage: check_hook(patient.tree, storage, node=node) for storage in sorted(using)}
    broken = [storage for storage, seen in found.items() if seen.faults]
    if broken:
        words = [f"{'; '.join(found[s].faults)} ({listed('VM', using[s])})" for s in broken]
        advice = "; ".join(filter(None, (found[storage].hint for storage in broken)))
        return failed("; ".join(words), advice or "see: pvesm status")
    odd = [text for seen in found.values() for text in seen.warnings]
    if odd:
        return warning("; ".join(odd), "PVE runs the hook from there all the same")
    return ok(
        "; ".join(f"on '{s}' for {listed('VM', vmids)}" for s, vmids in sorted(using.items()))
    )


def _unused(local: Findings) -> Result:
    if local.faults:
        return warning(f"no guest uses it; {'; '.join(local.faults)}", local.hint)
    return ok("no guest uses it; it is ready on 'local'")


def check_hookscripts(patient: Patient) -> Result:
    """Guests that name a hookscript which PVE cannot run: they do not start at all."""
    known = storages(patient.tree)
    missing, named = [], 0
    for vmid, config in patient.configs.items():
        if config.hookscript is None:
            continue
        named += 1
        try:
            fault = file_fault(patient.tree, snippet_path(known, config.hookscript))
        except AffinityError as error:
            fault = error.text
        if fault:
            missing.append(f"VM {vmid}: {fault}")
    if missing:
        advice = "put the file there, or: qm set VMID --delete hookscript"
        return failed("; ".join(missing), f"{advice} (the guest does not start)")
    if not named:
        return ok("no guest names one")
    return ok(f"{counted(named, 'guest')} with one, {'it' if named == 1 else 'all'} can be run")


def check_containers(patient: Patient) -> Result:
    """Containers that pvestatd spreads over all CPUs, those of guests too."""
    found = dict(_containers(patient))
    free = sorted(vmid for vmid, moves in found.items() if moves)
    unknown = sorted(vmid for vmid, moves in found.items() if moves is None)
    if unknown:
        text = f"not known of {listed('CT', unknown)}: configuration cannot be read"
        return warning(text, "run this as root")
    if not free:
        return ok("none that pvestatd moves over guests' CPUs")
    text = f"{listed('CT', free)}: pvestatd spreads them over all CPUs, those of guests too"
    reserved = patient.settings[0].reserved
    cpus = str(reserved) or "LIST"
    more = "" if reserved else ", and PCA_RESERVED_CPUS=LIST"
    advice = f"to keep them apart: lxc.cgroup2.cpuset.cpus: {cpus} in their configuration{more}"
    return warning(text, advice)


def _containers(patient: Patient) -> Iterator[tuple[Vmid, bool | None]]:
    """Containers of this node, and whether they have no CPUs of their own; None: unreadable."""
    folder = f"etc/pve/nodes/{patient.node}/lxc"
    for name in patient.tree.listing(folder):
        vmid = vmid_of(name.removesuffix(".conf")) if name.endswith(".conf") else None
        if vmid is not None:
            text = patient.tree.text(f"{folder}/{name}")
            main = None if text is None else _SECTION.split(text, maxsplit=1)[0]
            yield vmid, None if main is None else not _OWN_CPUS.search(main)


def check_isolated(patient: Patient) -> Result:
    """CPUs that the kernel keeps free of everything that does not ask for them."""
    isolated = patient.topology.isolated & patient.topology.online
    if not isolated:
        return ok("no CPU is isolated by the kernel")
    verb = "is" if len(isolated) == 1 else "are"
    text = f"{cpus_named(isolated)} {verb} isolated by the kernel: for cpu-dedicated guests only"
    return warning(text, "if that is not meant: take isolcpus off the kernel's command line")


def check_native_pinning(patient: Patient) -> Result:
    """Keys of qemu-server's own vCPU pinning, where there is any: two who pin undo each other."""
    found = []
    for vmid in patient.configs:
        file = patient.file(vmid)
        for section in (file.main, file.pending):
            keys = {**section.dropped, **section.values}
            found += [f"VM {vmid}: {k}: {v}" for k, v in keys.items() if _NATIVE.fullmatch(k)]
    if not found:
        return ok("no guest has qemu-server pin its vCPUs")
    advice = "qm set VMID --delete KEY, or the tag cpu-affinity-off"
    return warning(f"{'; '.join(found)}: a newer qemu-server may pin these vCPUs itself", advice)


CHECKS = (
    Check("pve", check_pve),
    Check("hook", check_our_hook, reads_guests=True),
    Check("hookscripts", check_hookscripts, reads_guests=True),
    Check("containers", check_containers),
    Check("isolated", check_isolated),
    Check("vcpu-pinning", check_native_pinning, reads_guests=True),
)
