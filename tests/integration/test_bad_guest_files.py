"""Guest files as nobody wants them: each is read as PVE reads it, or named with what to do.

Looked at from where users look: the API of a running service, and the command line. The grammar
itself is test_pveconf's.
"""

import json
import threading
from collections.abc import Iterator

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.sim import hookscript
from proxmox_cpu_affinity.sim.settings import GuestKind
from tests.integration.conftest import make_node
from tests.integration.running import Running

HOOK = "hookscript: local:snippets/proxmox-cpu-affinity-hook"
MIB = 1 << 20


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    for node in make_node(GuestKind.STANDIN):
        hookscript.install(node)
        with Running(node) as running:
            yield running


@pytest.fixture(autouse=True)
def _no_guests(service: Running) -> Iterator[None]:
    yield
    for file in service.node.path("/etc/pve/qemu-server").iterdir():
        if file.is_dir():
            file.rmdir()
        else:
            file.unlink()


def write(service: Running, data: bytes | str, name: str = "100.conf") -> None:
    content = data.encode() if isinstance(data, str) else data
    service.node.path(f"/etc/pve/qemu-server/{name}").write_bytes(content)


class Cli:
    """The command line, on the service's node."""

    def __init__(self, service: Running, capsys: pytest.CaptureFixture[str]) -> None:
        self._root = str(service.node.root)
        self._capsys = capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        status = main(["--root", self._root, *words])
        return status, *self._capsys.readouterr()

    def hook_status(self) -> tuple[str, str]:
        _, out, _ = self.run("hookscript", "status", "100", "--json")
        (row,) = json.loads(out)
        return row["status"], row["notes"]


@pytest.fixture
def cli(service: Running, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(service, capsys)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"cores: 2\n[snap]\n{HOOK}\naffinity: 0\ntemplate: 1\n", id="snapshot"),
        pytest.param(f"cores: 2\n[PENDING]\n{HOOK}\naffinity: 0\ntemplate: 1\n", id="pending"),
        pytest.param(f"cores: 2\n[special:cloudinit]\n{HOOK}\ntemplate: 1\n", id="special"),
        pytest.param(f"cores: 2\n[no such header!]\n{HOOK}\naffinity: 0\n", id="unknown-section"),
        pytest.param(f"#{HOOK}\n#affinity: 0\n#template: 1\n# cores: 9\ncores: 2\n", id="comments"),
        pytest.param("cores: 2", id="no-final-newline"),
        pytest.param("cores: 9\ncores: 2\n", id="repeated-key"),
        pytest.param("cores: 2\r\nname: web\r\n", id="crlf"),
        pytest.param(b"#caf\xe9\ncores: 2\nargs: -name \xff\xfe\n", id="not-utf8"),
        pytest.param("smp: 2\n", id="smp"),
        pytest.param("cores: 2\nsockets: 2\nvcpus: 2\n", id="vcpus-below"),
        pytest.param("cores: 2\nvcpus: 900\n", id="vcpus-above"),
        pytest.param("cores: 0\nsockets: 2\n", id="cores-0"),
        pytest.param("cores: 2\ncores: many\nsockets: -1\nwat: 1\nnonsense\n\0\n", id="dropped"),
        pytest.param("cores: 2\n" + "#" + "x" * (MIB - 11) + "\n", id="1-MiB"),
    ],
)
def test_a_plain_guest_of_two_vcpus_is_read(service: Running, cli: Cli, text: str | bytes) -> None:
    write(service, text)
    found = service.guest(100)
    assert (found["vcpus"], found["managed"], found["reason_code"]) == (2, False, "not chosen")
    assert cli.hook_status() == ("Disabled", "")
    _, out, _ = cli.run("ps", "100", "--json")
    assert json.loads(out)[0]["hook_status"] == "Disabled"


def test_an_empty_file_is_a_guest_of_one_vcpu(service: Running, cli: Cli) -> None:
    write(service, "")
    assert service.guest(100)["vcpus"] == 1
    assert cli.hook_status() == ("Disabled", "")


@pytest.mark.parametrize(
    ("text", "code", "status", "notes"),
    [
        ("template: yes\n", "template", "Disabled", "VM Template"),
        ("template: On", "template", "Disabled", "VM Template"),
        (f"template: 1\n{HOOK}\n", "template", "Enabled", "VM Template"),
        ("affinity: 0\n", "affinity", "Skipped", "Manual Affinity Set"),
        ("affinity: not a list\n", "affinity", "Skipped", "Manual Affinity Set"),
        ("tags: cpu-affinity;cpu-affinity-off\n", "tag cpu-affinity-off", "Disabled", ""),
        (f"{HOOK}\r\n", "", "Enabled", ""),
        (f"hookscript: local:snippets/x\n{HOOK}", "", "Enabled", ""),
    ],
)
def test_what_decides_is_read_whatever_surrounds_it(
    service: Running, cli: Cli, text: str, code: str, status: str, notes: str
) -> None:
    write(service, text)
    found = service.guest(100)
    assert (found["reason_code"], found["managed"]) == (code, not code)
    assert cli.hook_status() == (status, notes)


@pytest.mark.parametrize("kind", ["too-large", "directory", "dangling"])
def test_a_file_that_cannot_be_read_is_named_and_nothing_is_done(
    service: Running, cli: Cli, kind: str
) -> None:
    file = service.node.path("/etc/pve/qemu-server/100.conf")
    if kind == "too-large":
        file.write_bytes(b"#" * (MIB + 1))  # pmxcfs allows no larger file than 1 MiB
    elif kind == "directory":
        file.mkdir()
    else:
        file.symlink_to("/nowhere")
    answer = service.get("/api/v1/guests/100")
    assert (answer.status, answer.json["code"]) == (409, "refused")
    assert answer.json["detail"] == "VM 100: its configuration cannot be read"
    assert answer.json["hint"]
    for words in (["hookscript", "status", "100"], ["hookscript", "enable", "100"]):
        status, out, err = cli.run(*words)
        assert (status, out) == (1, "")
        assert err.startswith("Error: VM 100: its configuration cannot be read\nHint: ")
    assert cli.run("hookscript", "list")[2] == "Warning: VM 100: its configuration cannot be read\n"
    status, out, _ = cli.run("doctor", "--json")
    assert status == 1
    assert json.loads(out)[0]["text"] == "VM 100: configuration cannot be read"
    assert cli.run("explain", "100")[2].startswith("Error: VM 100: its configuration cannot be")
    assert [guest["vmid"] for guest in json.loads(service.get("/api/v1/guests").body)] == []


@pytest.mark.parametrize(
    "name",
    [
        *("100.conf.tmp.4711", "0100.conf", "99.conf", "1000000000.conf", "a.conf", ".conf"),
        *("-100.conf", "100.CONF", "100.conf.bak", "100", "\N{ARABIC-INDIC DIGIT ONE}00.conf"),
    ],
)
def test_a_file_of_another_name_is_no_guest(service: Running, cli: Cli, name: str) -> None:
    write(service, f"{HOOK}\n", name)
    assert json.loads(service.get("/api/v1/guests").body) == []
    assert cli.run("hookscript", "list") == (0, "VMID  Hook-Status  Notes  Managed\n", "")
    status, out, err = cli.run("hookscript", "enable", "100")
    assert (status, out) == (1, "")
    assert err.startswith("Error: there is no guest 100 on this node\nHint: ")


def test_a_file_that_vanishes_while_it_is_read_is_no_error(service: Running, cli: Cli) -> None:
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            write(service, f"{HOOK}\n")
            service.node.path("/etc/pve/qemu-server/100.conf").unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(100):
            assert service.get("/api/v1/guests").status == 200
            assert service.get("/api/v1/guests/100").status in (200, 404, 409)
            assert cli.run("hookscript", "list")[0] == 0
    finally:
        done.set()
        thread.join()
