"""systemd over D-Bus: scopes that come and go, and their AllowedCPUs.

Calls are made by hand rather than by introspection: one confines a guest, and nothing is asked
that is not needed (org.freedesktop.systemd1(5)). Signals are believed of systemd alone: everybody
on the system bus may send us one (Debian's /usr/share/dbus-1/system.conf: signals are allowed by
default). Out of scope: which scope is a guest's.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio.message_bus import MessageBus
from dbus_fast.errors import AuthError, DBusError

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import SystemdError

NAME = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
MANAGER = f"{NAME}.Manager"
PATIENCE = 5.0  # seconds for one call
_UNKNOWN = "proxmox-cpu-affinity-looks-again.service"  # there is none of that name
_SIGNALS = ("UnitNew", "UnitRemoved")
_BUS, _BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"  # the bus itself


@dataclass(frozen=True, slots=True)
class Listener:
    """Whom to tell of units, by name."""

    appeared: Callable[[str], None]
    removed: Callable[[str], None]


def mask_bytes(cpus: CpuSet) -> bytes:
    """AllowedCPUs as systemd wants it: bit n of byte m is CPU 8 m + n; empty removes the limit."""
    return cpus.mask.to_bytes((cpus.mask.bit_length() + 7) // 8, "little")


def running() -> bool:
    """Whether systemd is the init of this system (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


class Systemd:
    """A connection to the system's systemd."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._listener: Listener | None = None
        self._owner = ""  # systemd's unique name on the bus; empty while it is not there

    @staticmethod
    async def connect() -> "Systemd":
        """SystemdError where there is no system bus."""
        bus: MessageBus | None = None
        try:
            bus = MessageBus(bus_type=BusType.SYSTEM)
            async with asyncio.timeout(PATIENCE):
                return Systemd(await bus.connect())
        except (OSError, EOFError, AuthError, DBusError, TimeoutError, ValueError) as error:
            if bus is not None:
                bus.disconnect()  # else the event loop goes on watching a bus that is silent
            reason = str(error) or "it does not answer"
            raise SystemdError(f"the system bus cannot be reached: {reason}") from None

    def close(self) -> None:
        self._bus.disconnect()

    async def listen(self, listener: Listener) -> None:
        """Be told of units from now on."""
        self._listener = listener
        self._bus.add_message_handler(self._heard)
        # Followed before it is asked for: systemctl daemon-reexec gives systemd a new one.
        await self._match(f"sender='{_BUS}',member='NameOwnerChanged',arg0='{NAME}'")
        (owner,) = await self._call_bus("GetNameOwner", "s", [NAME])
        self._owner = self._owner or owner
        for signal in _SIGNALS:
            await self._match(
                f"sender='{NAME}',path='{PATH}',interface='{MANAGER}',member='{signal}'"
            )
        await self._call("Subscribe", "", [])

    async def allow(self, unit: str, cpus: CpuSet) -> None:
        """Confine a running unit to CPUs, until it ends; the empty set lets it go."""
        allowed = Variant("ay", mask_bytes(cpus))
        await self._call("SetUnitProperties", "sba(sv)", [unit, True, [["AllowedCPUs", allowed]]])

    async def lost(self) -> str:
        """Wait until the bus has hung up, as when dbus.service is restarted; why. Nothing is heard
        from then on, and every call is refused."""
        try:
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call, unused-ignore]
        except (OSError, EOFError, DBusError) as error:
            return f"the system bus was lost: {error!r}"
        return "the system bus was closed"

    async def scopes(self, pattern: str) -> tuple[str, ...]:
        """Names of the loaded, active units of a pattern such as `*.scope`."""
        body = await self._call("ListUnitsByPatterns", "asas", [["active"], [pattern]])
        return tuple(sorted(str(unit[0]) for unit in body[0]))

    async def look_again(self) -> None:
        """Have systemd see the drop-in directories that are new, without a daemon-reload.

        It keeps a list of them, and makes it anew when it looks for a unit it does not know and
        /run/systemd/system was changed (unit_file_build_name_map in systemd's
        src/shared/unit-file.c; 252 and 257). A scope is never looked for, hence a service.
        """
        await self._call("LoadUnit", "s", [_UNKNOWN])

    def _heard(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL or not message.body:
            return
        if (message.sender, message.member) == (_BUS, "NameOwnerChanged"):
            name, _, owner = message.body
            self._owner = owner if name == NAME else self._owner
        elif message.sender == self._owner and message.interface == MANAGER:
            self._told(str(message.member), str(message.body[0]))

    def _told(self, signal: str, unit: str) -> None:
        assert self._listener is not None, "nothing is heard before listen()"
        match signal:
            case "UnitNew":
                self._listener.appeared(unit)
            case "UnitRemoved":
                self._listener.removed(unit)
            case _:
                return

    async def _match(self, rule: str) -> None:
        """Be sent signals of this kind."""
        await self._call_bus("AddMatch", "s", [f"type='signal',{rule}"])

    async def _call_bus(self, member: str, signature: str, body: list[Any]) -> list[Any]:
        return await self._call(
            member, signature, body, destination=_BUS, path=_BUS_PATH, interface=_BUS
        )

    async def _call(
        self,
        member: str,
        signature: str,
        body: list[Any],
        *,
        destination: str = NAME,
        path: str = PATH,
        interface: str = MANAGER,
    ) -> list[Any]:
        if not self._bus.connected:  # dbus-fast would wait for an answer that cannot come
            raise SystemdError(f"the system bus has hung up: {member} was not sent")
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=body,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._bus.call(message)
        except (OSError, EOFError, DBusError, TimeoutError) as error:
            raise SystemdError(f"systemd does not answer to {member}: {error!r}") from None
        if answer is None:
            raise SystemdError(f"systemd does not answer to {member}")
        if answer.message_type is MessageType.ERROR:
            text = answer.body[0] if answer.body else answer.error_name
            raise SystemdError(f"systemd refused {member}: {text}")
        result: list[Any] = answer.body
        return result
