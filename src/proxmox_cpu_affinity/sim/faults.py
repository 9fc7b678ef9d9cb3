"""How PVE's programs fail: a message on stderr and an exit status."""


class Fault(Exception):
    """Ends a command with `text` on stderr. The statuses are those seen from the real programs."""

    def __init__(self, text: str, *, status: int = 255) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


class MissingGuest(Fault):
    """No configuration of that guest on this node."""

    def __init__(self, node: str, vmid: int) -> None:
        path = f"nodes/{node}/qemu-server/{vmid}.conf"
        super().__init__(f"Configuration file '{path}' does not exist", status=2)


class LockTimeout(Fault):
    """Another task held the lock for too long."""

    def __init__(self, path: str) -> None:
        super().__init__(f"can't lock file '{path}' - got timeout", status=4)


class BadParameter(Fault):
    """A parameter that PVE refuses before doing anything."""

    def __init__(self, name: str, reason: str, *, usage: str) -> None:
        text = f"400 Parameter verification failed.\n{name}: {reason}\n\n{usage}"
        super().__init__(text, status=2)
