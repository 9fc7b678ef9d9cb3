"""A stand-in for the Go project's package, version 0.0.9: its paths and its scripts' effects, made
from GO.md's facts; its programs do nothing."""

from pathlib import Path

from tests.e2e.in_guest import kernel, node

UNIT_FILE = Path(f"/etc/systemd/system/{node.UNIT}.service")
WANTS = Path(f"/etc/systemd/system/multi-user.target.wants/{node.UNIT}.service")
EDITED = "PCA_PORT=9000 # by hand\nPCA_SOCKET_RETRY=3\nPCA_ROUNDS=10\n"
TREE = Path("/tmp/go")  # a guest that forgets
FILES = {
    "DEBIAN/control": f"Package: {node.UNIT}\nVersion: 0.0.9\nArchitecture: amd64\n"
    "Maintainer: nobody <nobody@localhost>\nDescription: a stand-in\n",
    "DEBIAN/conffiles": f"/etc/default/{node.UNIT}\n",
    "DEBIAN/postinst": "#!/bin/sh\nset -e\nif [ $1 = configure ]; then\n"
    f"systemctl daemon-reload\nsystemctl enable {node.UNIT}\nsystemctl restart {node.UNIT}\nfi\n",
    "DEBIAN/prerm": "#!/bin/sh\nif [ $1 = remove ]; then\n"
    f"systemctl stop {node.UNIT}\nsystemctl disable {node.UNIT}\nfi\nexit 0\n",
    f"etc/default/{node.UNIT}": "# PCA_HOST=127.0.0.1 # This must be localhost\n",
    str(UNIT_FILE).lstrip("/"): "[Service]\nRestart=always\n"
    f"ExecStart=/usr/sbin/{node.UNIT}-service\n[Install]\nWantedBy=multi-user.target\n",
    f"usr/bin/{node.UNIT}": "#!/bin/sh\n",
    f"usr/sbin/{node.UNIT}-service": "#!/bin/sh\nexec sleep infinity\n",
    f"var/lib/vz/snippets/{node.UNIT}-hook": "#!/bin/sh\nexit 0\n",
}


def package() -> str:
    """Build it; where it is."""
    for name, text in FILES.items():
        path = TREE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    node.run("dpkg-deb", "-Zgzip", "--root-owner-group", "--build", str(TREE), f"{TREE}.deb")
    return f"{TREE}.deb"


def pin(vmid: int, cpus: set[int]) -> None:
    """As it did: a mask for each thread."""
    words = ("taskset", "--all-tasks", "--pid", "--cpu-list", ",".join(map(str, sorted(cpus))))
    node.run(*words, str(kernel.pid(vmid)))
