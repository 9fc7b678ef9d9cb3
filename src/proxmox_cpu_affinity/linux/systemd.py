"""systemd over D-Bus: scopes that come and go, and their AllowedCPUs.

Calls are made by hand rather than by introspection: one confines a guest, and nothing is asked
that is not needed (org.freedesktop.systemd1(5)). Out of scope: which scope is a guest's.
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

    @staticmethod
    async def connect() -> "Systemd":
        """SystemdError where there is no system bus."""
        try:
            async with asyncio.timeout(PATIENCE):
                bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
        except (OSError, EOFError, AuthError, DBusError, TimeoutError, ValueError) as error:
            raise SystemdError(f"the system bus cannot be reached: {error}") from None
        return Systemd(bus)

    def close(self) -> None:
        self._bus.disconnect()

    async def listen(self, listener: Listener) -> None:
        """Be told of units from now on."""
        self._listener = listener
        self._bus.add_message_handler(self._heard)
        rule = f"type='signal',sender='{NAME}',path='{PATH}',interface='{MANAGER}'"
        for signal in _SIGNALS:
            await self._call(
                "AddMatch",
                "s",
                [f"{rule},member='{signal}'"],
                destination="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus",
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
        if self._listener is None or message.message_type is not MessageType.SIGNAL:
            return
        if message.interface != MANAGER:
            return
        match message.member:
            case "UnitNew":
                self._listener.appeared(str(message.body[0]))
            case "UnitRemoved":
                self._listener.removed(str(message.body[0]))
            case _:
                return

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
