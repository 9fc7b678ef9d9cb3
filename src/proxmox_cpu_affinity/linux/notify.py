"""Tells systemd how the service is (sd_notify(3)); silent where nobody listens."""

import asyncio
import os
import socket
from collections.abc import Mapping


def notify(state: str, *, address: str | None = None) -> None:
    """Send one state such as READY=1. Failures do not matter: systemd has its own time limit."""
    target = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
    if not target:
        return
    if target.startswith("@"):
        target = "\0" + target[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaker:
            speaker.connect(target)
            speaker.sendall(state.encode())
    except OSError:
        return


def watchdog_pause(environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two signs of life, half of what systemd grants (sd_watchdog_enabled(3));
    None where it does not wait for any from this process."""
    granted = environment.get("WATCHDOG_USEC", "")
    meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(granted) / 2e6 if meant and granted.isdecimal() and int(granted) else None


async def stay_alive() -> None:
    """Show systemd's watchdog that the event loop turns, until cancelled."""
    pause = watchdog_pause()
    while pause is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(pause)
