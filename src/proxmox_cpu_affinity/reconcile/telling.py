"""What the log says of what was read back."""

from typing import assert_never

from proxmox_cpu_affinity.model.placement import Confined, Held, Outcome
from proxmox_cpu_affinity.reconcile.actions import Level, Tell, named
from proxmox_cpu_affinity.reconcile.events import Enclosed, MemoryMoved, SetFree


def told_confined(confined: Confined) -> Tell:
    vmid = confined.process.vmid
    match confined.outcome:
        case Outcome.FULL:
            text = f"{confined.threads} threads read back on {named(confined.wanted)}"
            return Tell(Level.INFO, vmid, text)
        case Outcome.PART:
            return Tell(Level.WARN, vmid, f"confined in part only: {_faults(confined)}")
        case Outcome.FAILED:
            return Tell(Level.WARN, vmid, f"not confined: {_faults(confined)}")
        case _:
            assert_never(confined.outcome)


def told_free(event: SetFree) -> Tell:
    confined = event.confined
    vmid = confined.process.vmid
    match confined.outcome:
        case Outcome.FULL:
            text = f"let go: {confined.threads} threads read back, none is held any more"
            return Tell(Level.INFO, vmid, text)
        case Outcome.PART:
            return Tell(Level.WARN, vmid, f"let go in part only: {_faults(confined)}")
        case Outcome.FAILED:
            return Tell(Level.WARN, vmid, f"not let go: {_faults(confined)}")
        case _:
            assert_never(confined.outcome)


def _faults(confined: Confined) -> str:
    words = [f"{fault.name} ({fault.tid}): {fault.reason}" for fault in confined.faults[:4]]
    more = len(confined.faults) - len(words)
    words += [f"and {more} more"] if more else []
    return "; ".join(words) or "no thread was found"


def told_enclosed(event: Enclosed, held: Held | None) -> Tell:
    cpus = named(event.wanted)
    match held:
        case Held.BIRTH:
            return Tell(Level.INFO, event.vmid, f"scope on {cpus} since its first instruction")
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
