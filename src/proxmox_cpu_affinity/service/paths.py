"""Where the service keeps what it needs; everything hangs below one root."""

from dataclasses import dataclass
from pathlib import Path

SETTINGS = "etc/default/proxmox-cpu-affinity"
RUN = "run/proxmox-cpu-affinity"
LIB = "var/lib/proxmox-cpu-affinity"


@dataclass(frozen=True, slots=True)
class Paths:
    """The files below a root."""

    root: Path

    @property
    def real(self) -> bool:
        """Whether this is the host itself, not a simulated node."""
        return self.root == Path("/")

    def at(self, absolute: str) -> Path:
        """A path of a setting, below the root."""
        return self.root / absolute.lstrip("/")

    @property
    def settings(self) -> Path:
        return self.root / SETTINGS

    @property
    def run(self) -> Path:
        return self.root / RUN

    @property
    def socket(self) -> Path:
        return self.run / "api.sock"

    @property
    def token(self) -> Path:
        return self.run / "token"

    @property
    def port(self) -> Path:
        """Where the TCP port is written, for clients of a service that took any free one."""
        return self.run / "port"

    @property
    def lock(self) -> Path:
        """Held by the one service of this root, with its pid in it."""
        return self.run / "lock"

    @property
    def lib(self) -> Path:
        return self.root / LIB

    @property
    def state(self) -> Path:
        return self.lib / "state.json"

    @property
    def matrix(self) -> Path:
        return self.lib / "matrix.json"
