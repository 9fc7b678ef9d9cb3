"""Every command of README.md, run as it stands there, in its order, on a simulated node.

What is not run here is named with the reason; a line that is neither fails.
"""

import http.client
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.cli.main import NAME, main
from proxmox_cpu_affinity.sim import hookscript
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.conftest import short_root
from tests.integration.running import PATIENCE, Running, add_guest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
NOT_RUN = {
    f"{NAME} status watch": "test_cli_watch: it ends with Ctrl-C",
    "make demo": "test_demo runs the demo itself",
    "make test": "it is what runs this",
    "make help": "prints the targets",
    "make e2e": ".ci/run runs it",
    "make faults": ".ci/run runs it",
    "make load": ".ci/run runs it",
    "make fuzz": ".ci/run runs it",
    "make api-test": ".ci/run runs it",
    "make bench": "figures, for people",
    "make deb": "make deb-test",
    "apt install": "make deb-test",
    "apt remove": "make deb-test",
    "scripts/capture-host": "test_tree",
}


def commands() -> Iterator[str]:
    """The lines of the code blocks and the commands inside of the text, in their order."""
    found = re.finditer(r"^```sh\n(.*?)^```|`([^`\n]+)`", README, re.MULTILINE | re.DOTALL)
    for match in found:
        if match[1] is None:
            if re.match(rf"({NAME}|make|systemctl|scripts/[\w-]+|qm|curl)(-service)? ", match[2]):
                yield match[2]
        else:
            lines = match[1].replace("\\\n", " ").splitlines()
            yield from (line.partition("  #")[0].strip() for line in lines)


COMMANDS = [line for line in commands() if line]


class Admin:
    """Who types the commands: on a node where guests 100 to 102 run."""

    def __init__(self, node: Node, service: Running, spare: Path) -> None:
        self.node = node
        self.service = service
        self.spare = spare

    def types(self, line: str) -> None:
        program, *words = shlex.split(line.replace("$(cat /run/", f"$(cat {self.node.root}/run/"))
        if any(line.startswith(known) for known in NOT_RUN):
            return
        if program == NAME:
            words = [str(self.spare) if word == "DIR" else word for word in words]
            assert main(["--root", str(self.node.root), *words]) == 0, line
        elif program == f"{NAME}-service":
            self.run_service(words)
        elif program == "qm":
            self.node.do(*words)
        elif program == "curl":
            self.curl(words)
        elif line == f"systemctl reload {NAME}":
            self.service.process.send_signal(signal.SIGHUP)
            self.service.wait_for(lambda: "settings" in self.service.log)
        elif line == f"systemctl stop {NAME}":
            assert self.service.end() == 0
        else:
            pytest.fail(f"{line!r} is not run")

    def run_service(self, words: list[str]) -> None:
        module = "proxmox_cpu_affinity.service.main"
        subprocess.run(
            [sys.executable, "-m", module, "--root", str(self.node.root), *words],
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=True,
        )

    def curl(self, words: list[str]) -> None:
        """What curl would do with these words; the answer must be a success."""
        method, headers, url = "GET", {}, ""
        while words:
            word = words.pop(0)
            if word == "-X":
                method = words.pop(0)
            elif word == "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = re.sub(r"\$\(cat (.*)\)", lambda m: read(m[1]), value)
            else:
                url = word
        where, _, path = url.removeprefix("http://").partition("/")
        assert where == "127.0.0.1:8245"
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=PATIENCE)
        connection.request(method, f"/{path}", headers=headers)
        assert connection.getresponse().status == 200
        connection.close()


def read(path: str) -> str:
    return Path(path).read_text().strip()


def test_every_command_of_the_readme_works(
    sim_node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if len(os.sched_getaffinity(0)) < 2 and (os.cpu_count() or 1) > 1:
        pytest.skip("cpuinfo measures nothing where one of several CPUs may be used")
    monkeypatch.chdir(tmp_path)
    hookscript.install(sim_node)
    storages = sim_node.path("/etc/pve/storage.cfg")
    storages.write_text(storages.read_text() + "\nnfs: nfs\n\tserver x\n\texport /x\n")
    sim_node.path("/mnt/pve/nfs").mkdir(parents=True)
    for vmid in (100, 101, 102):
        add_guest(sim_node, vmid, hook=False)
        sim_node.do("start", vmid)
    with short_root() as folder, Running(sim_node, "--stdout") as service:
        admin = Admin(sim_node, service, folder / "n")
        try:
            for line in COMMANDS:
                admin.types(line)
        finally:
            if admin.spare.exists():
                Node(admin.spare).destroy()
    assert (tmp_path / "heatmap.svg").read_text().startswith("<svg")
    assert "hookscript" not in sim_node.path("/etc/pve/qemu-server/100.conf").read_text()


def test_nothing_is_passed_over_that_is_not_there() -> None:
    for known in NOT_RUN:
        assert any(line.startswith(known) for line in COMMANDS), f"{known}: not in the README"


def test_the_table_names_every_command() -> None:
    """A line for each but those that the text tells of."""
    from proxmox_cpu_affinity.cli.main import COMMANDS as ENTRIES

    table = {line.split()[1] for line in COMMANDS if line.startswith(f"{NAME} ")}
    assert set(ENTRIES) - table == {"demo"}  # `make demo` is its line
