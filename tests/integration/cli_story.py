"""The story behind tests/goldens/cli: every command in text and JSON, on one simulated node.

The same on every machine: the node has made-up CPUs of which only CPU 0 may be used, guests are
stand-ins, nothing is measured, and what differs by its nature (pids, times, versions, the port) is
normalised. Out of scope: comparing (test_cli_goldens) and rewriting (make_cli_goldens).
"""

import contextlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from unittest.mock import patch

from proxmox_cpu_affinity import __version__
from proxmox_cpu_affinity.cli.main import NAME, main
from proxmox_cpu_affinity.formats import jsonvalue
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.linux.tree import Tree, capture_sysfs
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.render.heatmap import heatmap_svg
from proxmox_cpu_affinity.service import views
from proxmox_cpu_affinity.sim import hookscript, node
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind
from tests.integration.running import Running
from tests.unit.test_cli_explaining import Stage

GOLDENS = Path(__file__).parents[1] / "goldens" / "cli"
HOST = "1x2x2x2+vm"  # a virtual machine like most that run the tests: /proc says so of those
HOOK = "local:snippets/proxmox-cpu-affinity-hook"

GUESTS = {
    100: f"cores: 1\nname: web\nhookscript: {HOOK}\n",
    101: f"cores: 2\nname: database\nnuma: 1\nhookscript: {HOOK}\n",
    102: "cores: 1\n",
    103: "cores: 1\n",
    104: "cores: 1\naffinity: 0\n",
    105: "cores: 4\nsockets: 2\ntemplate: 1\n",
    106: "cores: 1\nhookscript: local:snippets/other.sh\n",
    107: f"cores: 1\nhookscript: {HOOK}\n",
}
STORAGES = """
nfs: net
\tserver 192.0.2.1
\texport /x
\tcontent snippets

dir: own
\tpath /srv/own
\tcontent snippets
"""

PINGPONG = r"""
import sys
print("pingpong 2", flush=True)
pairs = []
for line in sys.stdin:
    word, *rest = line.split()
    if word == "pair":
        pairs.append((int(rest[0]), int(rest[1])))
    elif word == "run":
        for first, second in pairs:
            far = 40 if first % 2 != second % 2 else 10
            batches = (f"{20 + far + batch / 10}:0" for batch in range(5))
            print("sample", first, second, 0, *batches)
        print("ran", len(pairs), flush=True)
        pairs = []
"""


@dataclass
class Story:
    """What the commands said, as it goes into the files: by file name."""

    told: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # what to write for a text of this run
    pids: set[str] = field(default_factory=set)

    def text(self, name: str, root: Path, *words: str) -> None:
        """Run a command, and keep all it says."""
        status, out, err = run(root, *words)
        said = f"$ {NAME} {' '.join(words)}\n{out}"
        said += f"--- stderr\n{err}" if err else ""
        said += f"--- exit status {status}\n"
        self.told[f"{name}.txt"] = self._normal(said, numbers=name.startswith("ps"))

    def json(self, name: str, root: Path, *words: str, status: int = 0) -> None:
        """Run a command with --json, and keep its document."""
        ended, out, _ = run(root, *words, "--json")
        assert ended == status, (words, ended)
        document = json.loads(out)
        assert out == json.dumps(document, indent=2) + "\n"
        self.told[f"{name}.json"] = json.dumps(self._plain(document), indent=2) + "\n"

    def both(self, name: str, root: Path, *words: str, status: int = 0) -> None:
        """Both forms of a command that changes nothing."""
        self.text(name, root, *words)
        self.json(name, root, *words, status=status)

    def _normal(self, text: str, *, numbers: bool = False) -> str:
        for found, written in self.names.items():
            text = text.replace(found, written)
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", "TIME", text)
        text = re.sub(r"\b\d+ MiB on node", "SIZE MiB on node", text)
        text = re.sub(r"\bup \d+ .*", "up UPTIME", text)
        text = re.sub(r"(?<=% of a vCPU's time; ).*", "SCORES", text)
        text = re.sub(r"\b\d+\.\d % of a vCPU", "SCORE % of a vCPU", text)
        text = re.sub(r"(?<!-)\bport \d+", "port PORT", text)
        # Columns are as wide as their widest cell; those of process numbers become that of PID.
        text = re.sub(r"\b([PT]ID) {2,}", r"\1  ", text)
        return re.sub(r"\b(\d+)( *)", self._number, text) if numbers else text

    def _number(self, match: re.Match[str]) -> str:
        number, blanks = match[1], match[2]
        if number not in self.pids:
            return match[0]
        return "PID" + ("  " if len(blanks) > 1 else blanks)

    def _plain(self, value: object, key: str = "") -> object:
        if isinstance(value, dict):
            return {name: self._plain(entry, name) for name, entry in value.items()}
        if isinstance(value, list):
            return [self._plain(entry) for entry in value]
        if key in ("pid", "tid"):
            assert str(value) in self.pids or value is None, value
            return value if value is None else "PID" if isinstance(value, str) else 0
        if key in ("uptime_s", "confined_after_s", *SCORES):
            return None if value is None else 0.0
        return self._normal(value) if isinstance(value, str) else value


SCORES = ("score", "slowdown", "bound", "gap", "no_pinning", "round_robin", "packed")


def run(root: Path, *words: str) -> tuple[int, str, str]:
    """Run the program below a root: exit status, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["--root", str(root), *words])
    return status, out.getvalue(), err.getvalue()


def whole_story() -> dict[str, str]:
    """All files of the goldens' folder as the programs make them now."""
    story = Story()
    with _only_cpu_0(), _nothing_measured(), _short_folder() as folder:
        _node_s_story(story, folder)
        _simulator_s_story(story, folder / "s")
    with _short_folder() as folder:
        _host_s_story(story, folder)
        _asked_of_a_larger_host(story, folder)
    return story.told


def _node_s_story(story: Story, folder: Path) -> None:
    root = folder / "n"
    files = {f"/{p}": t for p, t in generate(parse_spec(HOST)).items() if p.startswith("sys/")}
    here = node.create(root, guest=GuestKind.STANDIN, sys_files=files)
    model = topology(capture_sysfs(Tree(root))).model_name
    story.names = {str(root): "/NODE", model or "unknown model": "MODEL", __version__: "VERSION"}
    try:
        _furnish(here)
        _without_the_service(story, root)
        with Running(here) as service:
            _guests_start(story, here, service)
            _asked_of_the_service(story, root)
            _read_from_the_kernel(story, root)
            _hookscripts(story, here)
            _doctor(story, here)
            service.kill()
            service.start()
            service.confirms(100, 101)
            story.both("explain-after-restart", root, "explain", "100")
            _reassign(story, root)
    finally:
        here.destroy()


def _furnish(here: Node) -> None:
    hookscript.install(here)
    here.add_snippet("other.sh", "#!/bin/sh\n")
    for vmid, text in GUESTS.items():
        here.path(f"/etc/pve/qemu-server/{vmid}.conf").write_text(text)
    here.path("/etc/pve/ha/resources.cfg").write_text("vm: 103\n\tstate started\n")
    storages = here.path("/etc/pve/storage.cfg")
    storages.write_text(storages.read_text() + STORAGES)
    for place in ("/srv/own", "/mnt/pve/net"):
        here.path(place).mkdir(parents=True)
    members = here.path("/etc/pve/.members")
    members.unlink()
    listed = {name: {"id": number} for number, name in enumerate(("pve", "two", "three"), 1)}
    members.write_text(json.dumps({"nodename": "pve", "version": 4, "nodelist": listed}))


def _without_the_service(story: Story, root: Path) -> None:
    story.text("status-down", root, "status")
    story.text("status-ping-down", root, "status", "ping")
    story.both("doctor-down", root, "doctor", status=1)


def _guests_start(story: Story, here: Node, service: Running) -> None:
    for vmid in (100, 101, 102, 104):
        here.do("start", vmid)
        pid = here.pid(vmid)
        story.pids |= {name.name for name in Path(f"/proc/{pid}/task").iterdir()}
    service.confirms(100, 101)


def _asked_of_the_service(story: Story, root: Path) -> None:
    for name, words in {
        "status": ["status"],
        "status-ping": ["status", "ping"],
        "status-core-ranking": ["status", "core-ranking"],
        "status-core-ranking-summary": ["status", "core-ranking-summary"],
        "status-core-vm-affinity": ["status", "core-vm-affinity"],
        "explain": ["explain", "101"],
        "explain-not-chosen": ["explain", "102"],
        "explain-affinity": ["explain", "104"],
    }.items():
        story.both(name, root, *words)
    story.text("explain-missing", root, "explain", "999")


def _read_from_the_kernel(story: Story, root: Path) -> None:
    story.both("ps", root, "ps")
    story.both("ps-verbose", root, "ps", "100", "-v")
    story.both("ps-not-running", root, "ps", "103")
    story.text("ps-missing", root, "ps", "999")
    story.both("topology", root, "topology")
    story.both("plan", root, "plan")


def _hookscripts(story: Story, here: Node) -> None:
    root = here.root
    story.both("hookscript-list", root, "hookscript", "list")
    story.both("hookscript-status", root, "hookscript", "status", "103")
    story.both("hookscript-enable-dry-run", root, "hookscript", "enable", "102", "--dry-run")
    story.text("hookscript-enable", root, "hookscript", "enable", "102")
    story.json("hookscript-enable", root, "hookscript", "enable", "106", "--force")
    for vmid, reason in {103: "ha", 104: "affinity", 105: "template"}.items():
        story.text(f"hookscript-enable-{reason}", root, "hookscript", "enable", str(vmid))
    story.text("hookscript-disable", root, "hookscript", "disable", "102")
    story.json("hookscript-disable", root, "hookscript", "disable", "102")
    story.json("hookscript-disable-106", root, "hookscript", "disable", "106")
    here.do("set", 106, "--hookscript", "local:snippets/other.sh")
    story.text("hookscript-enable-foreign", root, "hookscript", "enable", "106")
    story.text("hookscript-enable-no-storage", root, "hookscript", "enable", "102", "usb")
    story.text("hookscript-enable-no-file", root, "hookscript", "enable", "102", "own")
    story.both("hookscript-enable-all", root, "hookscript", "enable-all", "--dry-run")
    story.both("hookscript-disable-all", root, "hookscript", "disable-all", "--dry-run")
    story.text("hookscript-install", root, "hookscript", "install", "own")
    story.json("hookscript-install", root, "hookscript", "install", "own")
    story.text("hookscript-install-shared", root, "hookscript", "install", "net")
    story.text("hookscript-enable-shared", root, "hookscript", "enable", "107", "net")


def _doctor(story: Story, here: Node) -> None:
    story.both("doctor", here.root, "doctor")
    conf = here.path("/etc/pve/qemu-server/106.conf")
    before = conf.read_text()
    conf.write_text("hookscript: gone:snippets/x\npinning: one-to-one\n")
    here.path("/etc/pve/lxc/200.conf").write_text("cores: 1\n")
    story.both("doctor-troubled", here.root, "doctor", status=1)
    here.path("/etc/pve/lxc/200.conf").unlink()
    conf.write_text(before)


def _reassign(story: Story, root: Path) -> None:
    story.both("reassign-dry-run", root, "reassign", "--all", "--dry-run")
    story.both("reassign", root, "reassign", "100")
    story.both("reassign-all", root, "reassign", "--all")
    story.both("reassign-not-running", root, "reassign", "107")
    story.text("reassign-undo", root, "reassign", "100", "--undo")
    story.json("reassign-undo", root, "reassign", "101", "--undo")
    story.both("explain-let-go", root, "explain", "101")
    story.text("reassign-usage", root, "reassign")


def _simulator_s_story(story: Story, at: Path) -> None:
    story.names = {**story.names, str(at): "/DIR"}
    anywhere = at.parent
    try:
        story.text("sim-create", anywhere, "sim", "create", str(at), "--guests", "standin")
        Node(at).do("create", 100, "--cores", 2)
        story.text("sim-run", anywhere, "sim", "run", str(at), "qm", "list")
        for command in ("stop", "start"):
            story.both(f"sim-{command}", anywhere, "sim", command, str(at))
        story.text("sim-destroy", anywhere, "sim", "destroy", str(at))
        words = ("sim", "create", str(at), "--guests", "standin", "--model", "8")
        story.json("sim-create", anywhere, *words)
        story.json("sim-destroy", anywhere, "sim", "destroy", str(at))
    finally:
        if (at / "etc/pve-sim.json").exists():
            Node(at).destroy()


def _host_s_story(story: Story, root: Path) -> None:
    """Commands that look at a host alone; cpuinfo's measuring program knows the answers."""
    for path, text in generate(parse_spec("1x1x4x1+vm")).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    program = root / "pingpong"
    program.write_text(f"#!{sys.executable}\n{PINGPONG}")
    program.chmod(0o755)
    with _environment(PCA_PINGPONG=str(program)), _may_use("0-3"):
        story.both("cpuinfo", root, "cpuinfo", "-q")
        story.both("cpuinfo-summary", root, "cpuinfo", "--summary", "-q")
        story.text("cpuinfo-verbose", root, "cpuinfo", "-v", "--rounds", "5")
        story.text("cpuinfo-cpus", root, "cpuinfo", "--cpus", "0,2-3", "-q")
        story.text("cpuinfo-csv", root, "cpuinfo", "--csv", "-q")
        story.both("cpuinfo-methods", root, "cpuinfo", "--method", "rw,msg", "--summary", "-q")
        (root / "a.csv").write_text(",,\n50,,\n60,70\n")
        (root / "b.csv").write_text(",,\n50,,\n66,140\n")
        story.names = {**story.names, str(root): ""}
        story.text("cpuinfo-from", root, "cpuinfo", "--from", str(root / "a.csv"))
        files = (str(root / "a.csv"), str(root / "b.csv"))
        story.both("cpuinfo-compare", root, "cpuinfo", "--compare", *files)
    with _environment(PCA_PINGPONG=str(program)), _may_use("0"):
        story.text("cpuinfo-nothing", root, "cpuinfo")
    guests = ("--guest", "100:4", "--guest", "101:2", "--guest", "102:40")
    host = ("--host", "generated:2x2x4x2")
    story.both("plan-host", root, "plan", *host, *guests)
    guests = (
        "--guest",
        "100:4:2:cpu-pinned",
        "--guest",
        "101:2",
        "--guest",
        "102:40:cpu-dedicated",
    )
    for form in ("qm", "libvirt", "rhv"):
        story.text(f"plan-{form}", root, "plan", *host, *guests, "--format", form)
    hybrid = "generated:1x1x4x2+4e+2lp+isolated=2+offline=5"
    story.both("topology-host", root, "topology", "--host", hybrid)


def _asked_of_a_larger_host(story: Story, folder: Path) -> None:
    """`explain` with neighbours and candidates: the brain's own answers for a host of 16 CPUs."""
    stage = Stage("1x2x4x2")
    for vmid, vcpus in ((100, 4), (101, 2), (102, 8), (103, 2)):
        stage.start(vmid, vcpus)
    stage.start(104, 1, faults=2)
    guests = [views.guest(stage.state, config) for config in stage.state.configs.values()]
    answers: dict[str, object] = {
        "/api/v1/guests": guests,
        **{
            f"/api/v1/decisions?vmid={v}": views.decisions(stage.state, (), v)
            for v in stage.state.tracked
        },
        "/api/v1/topology": views.topology(stage.topology),
        **{f"/api/v1/guests/{guest.vmid}": guest for guest in guests},
        "/api/v1/heatmap.svg?affinity=1": heatmap_svg(
            stage.topology,
            stage.state.host.matrix,
            affinity={v: t.placement.home for v, t in stage.state.tracked.items()},
        ),
    }
    socket = folder / "api.sock"
    story.names = {str(socket): "/SOCKET"}
    story.pids |= {str(guest.pid) for guest in guests}
    with _answering(socket, answers):
        for vmid in (103, 104):
            name = f"explain-neighbours-{vmid}"
            story.both(name, folder, "explain", str(vmid), "--socket", str(socket))
        story.text("status-svg", folder, "status", "svg", "--affinity", "--socket", str(socket))


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = False


@contextlib.contextmanager
def _answering(path: Path, answers: Mapping[str, object]) -> Iterator[None]:
    """A server that gives these answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers[self.path]
            text = answer if isinstance(answer, str) else json.dumps(jsonvalue.plain(answer))
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with _Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def _only_cpu_0() -> Iterator[None]:
    """This process and whatever it starts may use CPU 0 alone: every machine has it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _may_use(cpus: str) -> contextlib.AbstractContextManager[object]:
    """Let measuring believe that it may use these CPUs, whatever this machine has."""
    name = "proxmox_cpu_affinity.cli.measuring.own_cpus"
    return patch(name, lambda: CpuSet.parse(cpus))


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _nothing_measured() -> contextlib.AbstractContextManager[None]:
    return _environment(PCA_PINGPONG="/nowhere")


@contextlib.contextmanager
def _short_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pca-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
