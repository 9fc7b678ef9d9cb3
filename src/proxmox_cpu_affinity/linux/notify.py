"""Tells systemd how the service is (sd_notify(3)); silent where nobody listens."""

import os
import socket


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
