"""The way to systemd over a real bus, with a process of our own in systemd's place.

What needs systemd itself is in tests/e2e.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from dbus_fast import Message, MessageType, NameFlag
from dbus_fast.aio.message_bus import MessageBus

from proxmox_cpu_affinity.linux import systemd
from proxmox_cpu_affinity.linux.confine import GuestConfiner
from proxmox_cpu_affinity.linux.dropins import DropIns
from proxmox_cpu_affinity.linux.masks import ThreadMasks
from proxmox_cpu_affinity.linux.scopes import Scopes
from proxmox_cpu_affinity.linux.scopewatch import Ears, ScopeWatch
from proxmox_cpu_affinity.linux.systemd import MANAGER, NAME, PATH, Listener, Systemd
from proxmox_cpu_affinity.linux.tree import Tree
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import SystemdError
from proxmox_cpu_affinity.model.guest import GuestProcess
from proxmox_cpu_affinity.model.ids import Pid, Vmid
from proxmox_cpu_affinity.model.placement import Confinement, Outcome, Placement

# As on Debian's system bus anybody may send signals; that anybody may be systemd is ours.
_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path={}</listen><auth>EXTERNAL</auth>
<policy context="default">
<allow user="*"/><allow own="*"/>
<allow send_type="signal"/><allow send_type="method_call"/>
<allow send_requested_reply="true" send_type="method_return"/>
<allow receive_type="signal"/><allow receive_type="method_call"/>
<allow receive_type="method_return"/>
</policy></busconfig>"""


def _bus_at(folder: Path) -> Iterator[None]:
    config = folder / "bus.conf"
    config.write_text(_CONFIG.format(folder / "bus"))
    words = ("dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1")
    with subprocess.Popen(words, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline(), "it listens when it has said where"
        try:
            yield
        finally:
            daemon.kill()


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A bus that passes for the system's."""
    if shutil.which("dbus-daemon") is None and "CI" not in os.environ:
        pytest.skip("dbus-daemon is not installed")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'bus'}")
    yield from _bus_at(tmp_path)


@dataclass(slots=True)
class Heard:
    """What was told of units."""

    appeared: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def listener(self) -> Listener:
        return Listener(self.appeared.append, self.removed.append)

    async def until(self, *appeared: str) -> None:
        async with asyncio.timeout(30):
            while self.appeared != list(appeared):
                assert len(self.appeared) <= len(appeared), self.appeared
                await asyncio.sleep(0.01)


class Peer:
    """Somebody on the bus."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus

    @staticmethod
    async def connected() -> "Peer":
        address = os.environ["DBUS_SYSTEM_BUS_ADDRESS"]
        return Peer(await MessageBus(bus_address=address).connect())

    @staticmethod
    async def systemd(told: Callable[[Message], None] = lambda _: None) -> "Peer":
        """One that has systemd's name, and does as it is told."""
        peer = await Peer.connected()

        def obey(message: Message) -> Message | None:
            if message.message_type is not MessageType.METHOD_CALL or message.interface != MANAGER:
                return None
            told(message)
            return Message.new_method_return(message, "", [])

        peer.bus.add_message_handler(obey)
        await peer.bus.request_name(NAME, NameFlag.ALLOW_REPLACEMENT | NameFlag.REPLACE_EXISTING)
        return peer

    async def says(self, member: str, unit: str, *, to: str | None = None) -> None:
        """Send a signal; what others send afterwards comes after it."""
        message = Message(
            message_type=MessageType.SIGNAL,
            destination=to,
            path=PATH,
            interface=MANAGER,
            member=member,
            signature="so",
            body=[unit, "/org/freedesktop/systemd1/unit/x"],
        )
        await self.bus.send(message)
        ping = Message(
            destination="org.freedesktop.DBus",
            path="/org/freedesktop/DBus",
            interface="org.freedesktop.DBus.Peer",
            member="Ping",
        )
        assert await self.bus.call(ping), "the bus has dealt with all that was sent before"

    def leave(self) -> None:
        self.bus.disconnect()


async def hearing(heard: Heard) -> tuple[Systemd, str]:
    """A connection that listens, and its own name on the bus."""
    made = await Systemd.connect()
    await made.listen(heard.listener())
    name = made._bus.unique_name
    assert name is not None
    return made, name


def played(story: Coroutine[None, None, None]) -> None:
    asyncio.run(story)


@pytest.mark.usefixtures("bus")
def test_signals_are_believed_of_systemd_alone() -> None:
    """Any user of the host may send them to us: a start's CPUs were given away by UnitRemoved."""

    async def story() -> None:
        real, forger, heard = await Peer.systemd(), await Peer.connected(), Heard()
        ours, name = await hearing(heard)
        for member in ("UnitNew", "UnitRemoved"):
            await forger.says(member, "666.scope", to=name)
        await real.says("UnitNew", "100.scope")
        await heard.until("100.scope")
        assert heard.removed == []
        for peer in (real, forger):
            peer.leave()
        ours.close()

    played(story())


@pytest.mark.usefixtures("bus")
def test_systemd_that_executed_itself_anew_is_believed() -> None:
    """After systemctl daemon-reexec it has another name of its own on the bus."""

    async def story() -> None:
        heard = Heard()
        first = await Peer.systemd()
        ours, name = await hearing(heard)
        second = await Peer.systemd()
        await second.says("UnitNew", "100.scope")
        await heard.until("100.scope")
        await first.says("UnitNew", "666.scope", to=name)
        await second.says("UnitNew", "101.scope")
        await heard.until("100.scope", "101.scope")
        for peer in (first, second):
            peer.leave()
        ours.close()

    played(story())


@pytest.mark.usefixtures("bus")
def test_two_who_reach_for_systemd_at_once_get_one_connection(tmp_path: Path) -> None:
    """A scan and whoever lost the bus do; each signal was heard twice from then on."""

    async def story() -> None:
        real, told = await Peer.systemd(), Heard()
        tree = Tree(tmp_path)
        confiner = GuestConfiner(ThreadMasks(tree, lambda _: True))
        watch = ScopeWatch(tree, confiner, DropIns(tmp_path))

        def appeared(vmid: Vmid) -> None:
            told.appeared.append(str(vmid))

        ears = Ears(appeared, lambda _: None, lambda: None)
        assert sorted(await asyncio.gather(watch.reach(ears), watch.reach(ears))) == [False, True]
        for unit in ("100.scope", "101.scope"):
            await real.says("UnitNew", unit)
        await told.until("100", "101")
        watch.close()
        real.leave()

    played(story())


@pytest.mark.usefixtures("bus")
def test_systemd_is_asked_once_for_a_run_and_a_set_and_again_after_a_change(tmp_path: Path) -> None:
    """It was asked at each scan for each guest: it wrote a file and told the bus, for nothing."""
    cpus = CpuSet.of(sorted(os.sched_getaffinity(0))[:1])
    scope = tmp_path / "sys/fs/cgroup/qemu.slice/100.scope"
    scope.mkdir(parents=True)
    (tmp_path / "proc").symlink_to("/proc")
    asked: list[str] = []

    def limited(text: str) -> None:
        for name in ("cpuset.cpus", "cpuset.cpus.effective"):
            (scope / name).write_text(text)

    def told(message: Message) -> None:
        if message.member == "SetUnitProperties":
            mask = int.from_bytes(message.body[2][0][1].value, "little")
            asked.append(str(CpuSet(mask)))
            limited(asked[-1])

    async def story(pid: int) -> None:
        real = await Peer.systemd(told)
        ours = await Systemd.connect()
        tree = Tree(tmp_path)
        scopes = Scopes(tree, ours, ThreadMasks(tree, lambda _: True))
        run = GuestProcess(Vmid(100), Pid(pid), 1)
        placement = Placement(Vmid(100), cpus, cpus, tuple(cpus), cpus.first())

        async def times(process: GuestProcess = run) -> int:
            asked.clear()
            done = await scopes.confine(process, placement)
            assert (done.outcome, done.confinement) == (Outcome.FULL, Confinement.SCOPE)
            return len(asked)

        limited(str(cpus))  # as a drop-in makes it: that is deleted, so systemd is asked
        assert [await times() for _ in range(3)] == [1, 0, 0]
        limited("9")  # systemctl set-property, by hand
        assert [await times() for _ in range(2)] == [1, 0]
        limited("")  # systemctl revert
        assert [await times() for _ in range(2)] == [1, 0]
        assert await times(replace(run, start_time=2)) == 1
        await scopes.undo(run, {}, cpus)
        limited(str(cpus))
        assert await times() == 1
        ours.close()
        real.leave()

    with subprocess.Popen(["sleep", "60"]) as process:
        played(story(process.pid))
        process.kill()


def test_a_silent_bus_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again with each scan; the event loop kept each of these connections."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n")  # AUTH EXTERNAL
        writer.write(b"OK 0123456789abcdef0123456789abcdef\r\n")
        await reader.read()  # until it hangs up; Hello is never answered
        writer.close()

    async def story() -> None:
        path = str(tmp_path / "bus")
        server = await asyncio.start_unix_server(silent, path)
        for _ in range(3):
            with pytest.raises(SystemdError):
                await Systemd.connect()
        async with asyncio.timeout(30):
            while (names := _sockets(path)) != [path]:
                assert names, "the server is there"
                await asyncio.sleep(0.01)
        server.close()

    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'bus'}")
    monkeypatch.setattr(systemd, "PATIENCE", 0.2)
    played(story())


def _sockets(path: str) -> list[str]:
    """The Unix sockets of that path: one that listens, one a connection (unix(7), proc(5))."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return [line.split()[-1] for line in lines if line.endswith(f" {path}")]
