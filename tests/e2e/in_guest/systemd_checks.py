"""The adapters to systemd on the real one, without the service: what all else stands on."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from proxmox_cpu_affinity.linux.dropins import DropIns
from proxmox_cpu_affinity.linux.masks import ThreadMasks
from proxmox_cpu_affinity.linux.pressure import WaitingMeter
from proxmox_cpu_affinity.linux.scopes import Scopes, Sighting
from proxmox_cpu_affinity.linux.systemd import Listener, Systemd
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import SystemdError
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Cpu, Vmid
from proxmox_cpu_affinity.model.placement import Confinement, Outcome, Placement
from proxmox_cpu_affinity.pve.guests import NodeGuests
from tests.e2e.in_guest import kernel, node
from tests.e2e.promises import shows

TREE = Tree(Path("/"))
DROP_INS = DropIns(Path("/"))
WITHOUT_HOOK = {"hookscript": ""}


@dataclass(slots=True)
class Heard:
    """What systemd's signals said."""

    appeared: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Scopes, Heard]]:
    systemd = await Systemd.connect()
    heard = Heard()
    await systemd.listen(Listener(heard.appeared.append, heard.removed.append))
    try:
        yield Scopes(TREE, systemd, ThreadMasks(TREE, NodeGuests(TREE).proven)), heard
    finally:
        systemd.close()


def told(story: Coroutine[None, None, None]) -> None:
    """A story without the service and without guests before it."""
    node.service_down()
    node.no_guests()
    asyncio.run(story)
    node.no_guests()


async def started(vmid: int, *, vcpus: int = 1) -> GuestProcess:
    await asyncio.to_thread(node.fresh, vmid, vcpus=vcpus, keys=WITHOUT_HOOK)
    process = NodeGuests(TREE).process(Vmid(vmid))
    assert process is not None
    return process


def placement(vmid: int, cpus: str, *, pinned: bool = False) -> Placement:
    chosen = CpuSet.parse(cpus)
    order = tuple(Cpu(cpu) for cpu in chosen)
    return Placement(Vmid(vmid), chosen, chosen, order, start=order[0], pinned=pinned)


@shows()
def check_scopes_that_come_and_go_are_heard() -> None:
    async def story() -> None:
        async with connected() as (scopes, heard):
            await started(900)
            assert "900.scope" in heard.appeared, heard
            assert "900.scope" in await scopes.systemd.scopes("*.scope")
            assert await scopes.sighting(Vmid(900)) == Sighting(None)
            await asyncio.to_thread(node.stop, 900)
            for _ in range(50):
                if "900.scope" in heard.removed:
                    break
                await asyncio.sleep(0.1)
            assert "900.scope" in heard.removed, heard
            assert not scopes.there(Vmid(900))

    told(story())


@shows()
def check_new_systemd_is_still_heard_and_a_new_bus_is_noticed() -> None:
    async def story() -> None:
        async with connected() as (scopes, heard):
            await asyncio.to_thread(node.run, "systemctl", "daemon-reexec")
            await scopes.systemd.scopes("*.scope")
            await started(900)
            assert "900.scope" in heard.appeared, heard
            await asyncio.to_thread(node.run, "systemctl", "restart", "dbus")
            async with asyncio.timeout(node.PATIENCE):
                await scopes.systemd.lost()
            assert "hung up" in await refusal(scopes, "900.scope")
        async with connected() as (scopes, _):
            assert "900.scope" in await scopes.systemd.scopes("*.scope")

    told(story())


@shows(2)
def check_limit_binds_threads_of_now_and_later_and_is_taken_off() -> None:
    async def story() -> None:
        async with connected() as (scopes, _):
            process = await started(900, vcpus=2)
            assert scopes.holds(process)
            assert scopes.effective(Vmid(900)) is None
            assert await scopes.enclose(Vmid(900), CpuSet.parse("2-3")) == CpuSet.parse("2-3")
            assert kernel.effective(900) == {2, 3} == kernel.held(900)
            kernel.grow(900)
            assert kernel.held(900) == {2, 3}
            assert await scopes.enclose(Vmid(900), CpuSet.parse("1,6")) == CpuSet.parse("1,6")
            assert kernel.held(900) == {1, 6}
            await scopes.systemd.allow("900.scope", EMPTY)
            for _ in range(50):
                if kernel.limit(900) is None:
                    break
                await asyncio.sleep(0.1)
            assert kernel.limit(900) is None
            assert kernel.held(900) == kernel.online()

    told(story())


@shows()
def check_stop_of_no_scope_looks_like_one_and_takes_no_limit() -> None:
    """Proxmox VE does so before each start: UnitNew alone is no sign of a guest."""

    async def story() -> None:
        async with connected() as (scopes, heard):
            await asyncio.to_thread(node.run, "systemctl", "stop", "900.scope", check=False)
            assert "900.scope" in heard.appeared, heard
            assert await scopes.sighting(Vmid(900)) is None
            # Whoever asks systemd about it has it announced once more: looking must not.
            assert heard.appeared.count("900.scope") == 1, heard
            assert await refusal(scopes, "900.scope")
            assert "900.scope" not in await scopes.systemd.scopes("*.scope")

    told(story())


async def refusal(scopes: Scopes, unit: str) -> str:
    """Why systemd sets no limit on a unit; empty if it does."""
    try:
        await scopes.systemd.allow(unit, CpuSet.parse("1"))
    except SystemdError as error:
        return error.text
    return ""


@shows(2)
def check_scope_that_is_gone_is_said_to_be() -> None:
    async def story() -> None:
        async with connected() as (scopes, _):
            process = await started(900)
            await asyncio.to_thread(node.stop, 900)
            assert "900.scope" in await refusal(scopes, "900.scope")
            done = await scopes.confine(process, placement(900, "1"))
            assert done.outcome is Outcome.FAILED, done

    told(story())


@shows(2, 4)
def check_pinned_threads_are_read_back_and_put_back() -> None:
    """Undo leaves what was there before, a thread's own mask too."""

    async def story() -> None:
        async with connected() as (scopes, _):
            process = await started(900, vcpus=2)
            vcpu = next(name.split()[0] for name in kernel.masks(900) if "CPU 1/KVM" in name)
            await asyncio.to_thread(node.run, "taskset", "-pc", "4,5", vcpu)
            before = kernel.masks(900)
            done = await scopes.confine(process, placement(900, "2-3", pinned=True))
            assert (done.outcome, done.confinement) == (Outcome.FULL, Confinement.SCOPE), done
            for name, mask in kernel.masks(900).items():
                wanted = {"CPU 0/KVM": {2}, "CPU 1/KVM": {3}}.get(name.split(" ", 1)[1], {2, 3})
                assert mask == wanted, kernel.masks(900)
            free = CpuSet.of(kernel.online())
            done = await scopes.undo(process, dict(done.found), free)
            assert done.outcome is Outcome.FULL, done
            assert kernel.masks(900) == before
            assert kernel.limit(900) is None

    told(story())


@shows()
def check_masks_after_a_change_of_the_cpuset() -> None:
    """Before Linux 6.2 it overwrites them; since then they are kept (kernel/cgroup/cpuset.c)."""

    async def story() -> None:
        async with connected() as (scopes, _):
            process = await started(900, vcpus=2)
            for cpus in ("2-3", "3-4"):
                await scopes.confine(process, placement(900, cpus, pinned=True))
            vcpu = next(name for name in kernel.masks(900) if "CPU 0/KVM" in name)
            assert kernel.masks(900)[vcpu] == {3}
            await scopes.enclose(Vmid(900), CpuSet.parse("2-4"))
            assert kernel.masks(900)[vcpu] == ({3} if kernel.keeps_masks() else {2, 3, 4})
            await scopes.confine(process, placement(900, "3-4", pinned=True))
            assert kernel.masks(900)[vcpu] == {3}

    told(story())


@shows()
def check_drop_in_holds_from_the_first_instruction_once_systemd_has_seen_its_directory() -> None:
    async def story() -> None:
        async with connected() as (scopes, _):
            for vmid in (901, 902):
                assert DROP_INS.write(Vmid(vmid), CpuSet.parse("2,5")), "its directory is not new"
                await scopes.systemd.look_again()
                await started(vmid)
                assert kernel.began_on(vmid) == {2, 5} == kernel.held(vmid)
            assert DROP_INS.standing() == {Vmid(901), Vmid(902)}
            assert DROP_INS.clean() == 2
            # The scope that runs keeps its limit; the next one is free.
            assert kernel.held(901) == {2, 5}
            await asyncio.to_thread(node.stop, 901)
            await started(901)
            assert kernel.began_on(901) == kernel.online()

    told(story())
    DROP_INS.clean(directories=True)


@shows(7)
def check_waiting_of_a_guest_is_read_from_its_scope() -> None:
    """Of one that shares a CPU with busy threads of its own most of the time, of an idle one less;
    from the kernel's cpu.pressure, not from threads."""

    async def story() -> None:
        await asyncio.to_thread(node.configure, 100, keys={**WITHOUT_HOOK, "args": "-load 2"})
        await asyncio.to_thread(node.start, 100)
        busy = NodeGuests(TREE).process(Vmid(100))
        idle = await started(101)
        assert busy is not None
        assert (kernel.folder(100) / "cpu.pressure").exists()
        async with connected() as (scopes, _):
            assert await scopes.enclose(Vmid(100), CpuSet.of((Cpu(0),)))
        meter = WaitingMeter(TREE)
        assert meter.waited((busy, idle), time.monotonic()) == {}
        await asyncio.sleep(5)
        shares = meter.waited((busy, idle), time.monotonic())
        assert not meter.by_threads
        assert shares[Vmid(100)] > 0.2, shares
        assert shares[Vmid(101)] < shares[Vmid(100)], shares

    told(story())
