"""What `plan --format` prints is taken by what it is for: qm of a simulated node, and libvirt's own
schema."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.formats import snapshot
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.sim import node
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind
from tests.integration.conftest import short_root

VALIDATE = shutil.which("virt-xml-validate")
HOSTS = Path(__file__).parents[1] / "hosts"
GUESTS = (
    "--guest=100:8:2:cpu-pinned",
    "--guest=101:2:cpu-dedicated",
    "--guest=102:6:3",
    "--guest=103:1",
    "--guest=104:40",
)
DOMAIN = """<domain type='kvm'>
<name>guest</name>
<memory unit='GiB'>4</memory>
<vcpu>{}</vcpu>
{}
<os><type arch='x86_64'>hvm</type></os>
</domain>
"""


def plan(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> tuple[str, str]:
    """What it prints, and its remarks."""
    assert main(["--root", str(root), "plan", *words]) == 0
    return capsys.readouterr()


@pytest.fixture
def two_packages() -> Iterator[Node]:
    """A node that believes in 2 packages of one CPU each."""
    files = {p.removeprefix("sys/"): t for p, t in generate(parse_spec("2x1x1x1")).items()}
    with short_root() as root:
        made = node.create(root, guest=GuestKind.STANDIN, sys_files=files)
        try:
            yield made
        finally:
            made.destroy()


def run_lines(made: Node, text: str) -> None:
    """As somebody does who pipes them into a shell."""
    environment = {**os.environ, "PATH": f"{made.path('/usr/sbin')}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-e"],
        input=text,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def affinities(made: Node) -> Mapping[int, CpuSet]:
    found = {}
    for file in sorted(made.path("/etc/pve/qemu-server").glob("*.conf")):
        for line in file.read_text().splitlines():
            if line.startswith("affinity:"):
                found[int(file.stem)] = CpuSet.parse(line.partition(":")[2])
    return found


def test_qm_takes_the_lines(two_packages: Node, capsys: pytest.CaptureFixture[str]) -> None:
    host = "generated:2x2x4x2"
    for guest in GUESTS:
        two_packages.do("create", int(guest[8:11]))
    out, err = plan(capsys, two_packages.root, "--host", host, *GUESTS, "--format", "qm")
    run_lines(two_packages, out)
    found = affinities(two_packages)
    assert sorted(found) == [100, 101, 102, 103, 104]
    assert len(found[101]) == 2
    assert not found[101].overlaps(found[100] | found[102] | found[103] | found[104])
    lost = "affinity is one set for all its threads, not one for each vCPU"
    assert f"Warning: VM 100: {lost}" in err
    assert f"Warning: VM 102: {lost}" in err
    assert f"VM 103: {lost}" not in err
    assert "leaves guests with an affinity of their own alone" in err


@pytest.mark.skipif(not {0, 1} <= os.sched_getaffinity(0), reason="needs the CPUs 0 and 1")
def test_guests_of_this_node_start_where_the_lines_say(
    two_packages: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    """`affinity: 0` would be no affinity at all for PVE, which takes the text for false."""
    for vmid in (100, 101):
        two_packages.do("create", vmid, "--tags", "cpu-affinity")
    out, _ = plan(capsys, two_packages.root, "--format", "qm")
    assert {line.split()[-1] for line in out.splitlines()} == {"0,0", "1"}
    run_lines(two_packages, out)
    for vmid in (100, 101):
        two_packages.do("start", vmid)
        here = affinities(two_packages)[vmid]
        pid = two_packages.pid(vmid)
        assert pid is not None
        assert os.sched_getaffinity(pid) == set(here)


def fragments(text: str) -> Mapping[int, str]:
    """The elements of each guest."""
    parts = text.split("<!-- guest ")[1:]
    return {int(part.split(" ", 1)[0]): part.split("-->", 1)[1] for part in parts}


def valid(xml: str, at: Path) -> None:
    assert VALIDATE is not None
    at.write_text(xml)
    command = [VALIDATE, str(at), "domain"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    VALIDATE is None or shutil.which("xmllint") is None,
    reason="no virt-xml-validate (apt install libvirt-clients libxml2-utils)",
)
@pytest.mark.parametrize(
    "host",
    [
        "generated:1x1x1x1",
        "generated:2x2x4x2",
        "generated:2x4x4x2+nodes=4+memoryless=1",
        "generated:2x1x4x1+cpuless=1",
        "generated:1x2x2x2+4e+2lp+nocache",
        *(str(path) for path in sorted(HOSTS.glob("*.json"))),
    ],
)
def test_libvirt_s_schema_takes_the_elements(
    host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--host", host, *(guest.replace("dedicated", "shared") for guest in GUESTS)]
    out, _ = plan(capsys, tmp_path, *words, "--format", "libvirt")
    found = fragments(out)
    assert sorted(found) == [100, 101, 102, 103, 104]
    for vmid, count in ((100, 8), (101, 2), (102, 6), (103, 1), (104, 40)):
        domain = DOMAIN.format(count, found[vmid])
        valid(domain, tmp_path / "domain.xml")
        pins = ElementTree.fromstring(domain).findall("cputune/vcpupin")
        assert [int(pin.attrib["vcpu"]) for pin in pins] == list(range(count))


def test_libvirt_s_schema_would_refuse_a_wrong_element(tmp_path: Path) -> None:
    """The check is one: it can fail."""
    if VALIDATE is None or shutil.which("xmllint") is None:
        pytest.skip("no virt-xml-validate")
    wrong = "<cputune><vcpupin vcpu='0' cpuset='0-'/></cputune>"
    with pytest.raises(AssertionError):
        valid(DOMAIN.format(1, wrong), tmp_path / "domain.xml")


def test_libvirt_s_elements_say_what_the_plan_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = generate(parse_spec("2x2x4x2+memoryless=1"))
    file = tmp_path / "host.json"
    file.write_text(snapshot.to_text(snapshot.Snapshot("made", "", files)))
    words = ["--host", str(file), "--guest=100:8:2:cpu-pinned", "--guest=101:4"]
    out, _ = plan(capsys, tmp_path, *words, "--format", "libvirt")
    assert out.splitlines() == [
        "<!-- guest 100 -->",
        "<cputune>",
        *(f"  <vcpupin vcpu='{i}' cpuset='{i if i < 4 else i + 4}'/>" for i in range(8)),
        "  <emulatorpin cpuset='0-3,8-11'/>",
        "</cputune>",
        "<!-- the guest's cell 0 has its vCPUs 0-3 -->",
        "<!-- the guest's cell 1 has its vCPUs 4-7 -->",
        "<numatune>",
        "  <memnode cellid='0' mode='preferred' nodeset='0'/>",
        "</numatune>",
        "<!-- guest 101 -->",
        "<cputune>",
        *(f"  <vcpupin vcpu='{i}' cpuset='4-7'/>" for i in range(4)),
        "  <emulatorpin cpuset='4-7'/>",
        "</cputune>",
        "<numatune>",
        "  <memory mode='preferred' nodeset='0'/>",
        "</numatune>",
    ]
