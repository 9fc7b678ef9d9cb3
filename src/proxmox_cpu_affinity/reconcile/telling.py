"""What the log says of what was read back."""

from typing import assert_never

from proxmox_cpu_affinity.engine.report import named
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Confined, Held, Outcome
from proxmox_cpu_affinity.reconcile.actions import Level, Tell
from proxmox_cpu_affinity.reconcile.events import Enclosed, MemoryMoved, SetFree


def told_confined(confined: Confined) -> Tell:
    full = f"{confined.threads} threads read back on {named(confined.wanted)}"
    return _told(confined, full, part="confined in part only", failed="not confined")


def told_repaired(confined: Confined, strayed: int) -> Tell:
    """What was read back after threads had been elsewhere."""
    there = "1 thread was" if strayed == 1 else f"{strayed} threads were"
    back = f"{there} elsewhere; all {confined.threads} read back on {named(confined.wanted)}"
    return Tell(Level.INFO, confined.process.vmid, back)


def told_free(event: SetFree) -> Tell:
    full = f"let go: {event.confined.threads} threads read back, none is held any more"
    return _told(event.confined, full, part="let go in part only", failed="not let go")


def _told(confined: Confined, full: str, *, part: str, failed: str) -> Tell:
    vmid = confined.process.vmid
    match confined.outcome:
        case Outcome.FULL:
            return Tell(Level.INFO, vmid, full)
        case Outcome.PART:
            return Tell(Level.WARN, vmid, f"{part}: {_faults(confined)}")
        case Outcome.FAILED:
            return Tell(Level.WARN, vmid, f"{failed}: {_faults(confined)}")
        case _:
            assert_never(confined.outcome)


def _faults(confined: Confined) -> str:
    words = [f"{fault.name} ({fault.tid}): {fault.reason}" for fault in confined.faults[:4]]
    more = len(confined.faults) - len(words)
    words += [f"and {more} more"] if more else []
    return "; ".join(words) or "no thread was found"


def told_born(vmid: Vmid, cpus: CpuSet) -> Tell:
    return Tell(Level.INFO, vmid, f"scope on {named(cpus)} since its first instruction")


def told_enclosed(event: Enclosed, held: Held | None) -> Tell:
    cpus = named(event.wanted)
    match held:
        case Held.BIRTH:
            return told_born(event.vmid, event.wanted)
        case Held.SCOPE | Held.LATER:
            return Tell(Level.INFO, event.vmid, f"scope on {cpus} as soon as it appeared")
        case None:
            what = event.problem or f"its cpuset is {event.effective or 'unset'}"
            return Tell(Level.WARN, event.vmid, f"scope not confined to {cpus}: {what}")
        case _:
            assert_never(held)


def told_moved(event: MemoryMoved) -> Tell:
    vmid = event.process.vmid
    nodes = ", ".join(str(node) for node in sorted(event.onto))
    came = f"{event.moved:.0f} MiB of its memory came to node {nodes}"
    if event.problem:
        text = f"{came}, {event.elsewhere:.0f} MiB are elsewhere: {event.problem}"
        return Tell(Level.WARN, vmid, text)
    return Tell(Level.INFO, vmid, f"{came}, {event.elsewhere:.0f} MiB are elsewhere")
