"""`plan` on hosts that are not this one: its answer, its statuses, and what its words lack."""

import gzip
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from proxmox_cpu_affinity.cli.main import main
from proxmox_cpu_affinity.formats import snapshot
from proxmox_cpu_affinity.formats.snapshot import Snapshot
from proxmox_cpu_affinity.formats.sysfiles import CPU_DIR
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.latency import cache
from proxmox_cpu_affinity.latency.facts import host_facts
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.linux.tree import Tree, capture_sysfs
from proxmox_cpu_affinity.model.cpuset import CPUS_MOST, CpuSet
from proxmox_cpu_affinity.model.latency import Verdict
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec
from proxmox_cpu_affinity.store import JsonFile

HOST = "generated:2x2x4x2"
HOSTS = Path(__file__).parents[1] / "hosts"


class Said:
    """What one run said."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    @property
    def guests(self) -> Mapping[int, Mapping[str, object]]:
        return {guest["vmid"]: guest for guest in json.loads(self.out)["guests"]}

    def cpus(self, vmid: int) -> CpuSet:
        return CpuSet.parse(str(self.guests[vmid]["cpus"]))


def run(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> Said:
    status = main(["--root", str(root), "plan", *words])
    return Said(status, *capsys.readouterr())


def test_guests_get_as_many_cpus_as_vcpus_in_one_cache_group_and_none_twice(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [f"--guest={vmid}:4" for vmid in (100, 101, 102, 103)]
    said = run(capsys, tmp_path, "--host", HOST, *words, "--json")
    assert said.status == 0
    sets = [said.cpus(vmid) for vmid in (100, 101, 102, 103)]
    assert [len(cpus) for cpus in sets] == [4, 4, 4, 4]
    assert len(sets[0] | sets[1] | sets[2] | sets[3]) == 16
    for vmid, guest in said.guests.items():
        assert isinstance(guest["start"], int)
        assert guest["start"] in said.cpus(vmid)
        assert isinstance(guest["cache_groups"], list)
        assert len(guest["cache_groups"]) == 1
        assert list(guest)[:6] == ["vmid", "vcpus", "cpus", "start", "reason", "warnings"]
    whole = json.loads(said.out)
    assert list(whole)[:2] == ["guests", "overlap"]
    assert whole["overlap"] == ""
    assert whole["strategy"] == "balanced"


def test_text_has_columns_a_map_and_talk_apart(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = run(capsys, tmp_path, "--host", "generated:1x2x2x2", "--guest", "100:2")
    lines = said.out.splitlines()
    assert lines[0].split() == [
        *("VMID", "vCPUs", "CPUs", "Start", "Cache-Groups", "Nodes", "Reason"),
    ]
    assert lines[1].split()[:2] == ["100", "2"]
    assert sum(line.startswith("package 0  node 0  cache group") for line in lines) == 2
    assert lines[-4].startswith("A 100   . free")
    assert lines[-2].startswith("Estimated slowdown of a vCPU ")
    assert lines[-1].startswith("Not pinned: ")
    latencies = "predicted from the topology, nothing measured"
    assert said.err == f"strategy balanced; latencies: {latencies}\n"


def test_reserved_cpus_that_the_host_has_not_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = run(capsys, tmp_path, "--host", HOST, "--reserved", "0,31-33", "--guest=100:1")
    assert (said.status, said.out) == (2, "")
    text = "Error: --reserved 0,31-33: the host has no CPUs 32-33\nHint: it has CPUs 0-31\n"
    assert said.err == text


def test_this_host_s_latencies_are_those_that_its_service_kept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Kept ones of another host, unstable or damaged ones are not used, and none is removed."""
    for path, text in generate(parse_spec("1x1x4x1")).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    tree = Tree(tmp_path)
    host = topology(capture_sysfs(tree))
    facts = cache.fingerprint(host_facts(host, tree))
    kept = replace(
        predicted(host), verdict=Verdict.TRUSTED, measured=b"\1" * 16, conditions=("measured so",)
    )
    file = tmp_path / "var/lib/proxmox-cpu-affinity/matrix.json"
    file.parent.mkdir(parents=True)
    store = JsonFile(file)
    foreseen = "predicted from the topology"
    for matrix, fingerprint, said in (
        (kept, facts, "measured so"),
        (kept, "{}", foreseen),
        (replace(kept, verdict=Verdict.UNSTABLE), facts, foreseen),
    ):
        store.save(cache.encoded(matrix, fingerprint))
        found = json.loads(run(capsys, tmp_path, "--guest=100:2", "--json").out)
        assert found["latencies"].startswith(said)
    file.write_text("{")
    found = json.loads(run(capsys, tmp_path, "--guest=100:2", "--json").out)
    assert found["latencies"].startswith(foreseen)
    assert [name.name for name in file.parent.iterdir()] == [file.name]


def test_reserved_cpus_are_left_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = run(
        capsys, tmp_path, "--host", HOST, "--reserved", "0-7,16-23", "--guest=100:99", "--json"
    )
    assert said.cpus(100) == CpuSet.parse("8-15,24-31")
    assert "99 vCPUs on 16 usable CPUs" in str(said.guests[100]["warnings"])


def test_round_robin_begins_behind_cpu_0_and_goes_round(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [f"--guest={vmid}:1" for vmid in range(100, 104)]
    said = run(
        capsys, tmp_path, "--host=generated:1x1x3x1", "--strategy=round-robin", *words, "--json"
    )
    assert [str(said.cpus(vmid)) for vmid in range(100, 104)] == ["1", "2", "0", "1"]
    assert json.loads(said.out)["overlap"] == "1"


def test_status_says_whether_all_some_or_none_can_be_placed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    few = ("--host=generated:1x1x2x1", "--strategy=round-robin")
    assert run(capsys, tmp_path, *few, "--guest=100:2").status == 0
    some = run(capsys, tmp_path, *few, "--guest=100:2", "--guest=101:3", "--json")
    assert some.status == 3
    assert some.guests[101]["start"] is None
    assert "3 vCPUs are more than the 2 " in str(some.guests[101]["reason"])
    assert run(capsys, tmp_path, *few, "--guest=101:3").status == 1
    nothing_left = ("--host=generated:1x1x2x1", "--reserved=0-1", "--guest=100:1")
    assert run(capsys, tmp_path, *nothing_left).status == 1


def test_a_snapshot_s_own_latencies_decide(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    near = {(0, 3): 10.0, (1, 2): 11.0}
    rows = tuple(
        tuple(0.0 if i == j else near.get((min(i, j), max(i, j)), 90.0) for j in range(4))
        for i in range(4)
    )
    files = generate(parse_spec("1x1x4x1"))
    file = tmp_path / "host.json"
    file.write_text(snapshot.to_text(Snapshot("made", "pairs far apart in number", files, rows)))
    said = run(capsys, tmp_path, "--host", str(file), "--guest=100:2", "--guest=101:2", "--json")
    assert said.status == 0
    assert {str(said.cpus(100)), str(said.cpus(101))} == {"0,3", "1-2"}
    assert json.loads(said.out)["latencies"] == "from the snapshot"


def test_the_plan_is_scored_beside_its_bound_and_its_alternatives(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("--host", HOST, "--guest=100:4", "--guest=101:2")
    found = json.loads(run(capsys, tmp_path, *words, "--json").out)["score"]
    assert 0 < found["bound"] <= found["slowdown"] < found["no_pinning"]
    assert found["gap"] == pytest.approx(found["slowdown"] - found["bound"], abs=0.011)
    assert found["bound"] <= found["round_robin"]
    said = run(capsys, tmp_path, *words).out
    assert f"slowdown of a vCPU {found['slowdown']:.1f} %" in said
    nobody = ("--host", "generated:1x1x2x1", "--strategy=round-robin", "--guest=101:3", "--json")
    assert json.loads(run(capsys, tmp_path, *nobody).out)["score"] is None


@pytest.mark.parametrize("file", sorted(HOSTS.glob("*.json")), ids=lambda file: file.stem)
def test_every_host_of_the_collection_can_be_planned_on(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = run(capsys, tmp_path, "--host", str(file), "--guest=100:1", "--guest=101:2", "--json")
    assert said.status == 0, said.err
    assert len(said.cpus(100)) == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--guest", "100"], "'' is no number of vCPUs"),
        (["--guest", "100:0"], "--guest 100:0: '0'"),
        (["--guest", "100:x"], "'x' is no number of vCPUs"),
        (["--guest", "100:-4"], "'-4' is no number of vCPUs"),
        (["--guest", "100:4.0"], "'4.0' is no number of vCPUs"),
        (["--guest", "100:\u0664"], "is no number of vCPUs"),
        (["--guest", "100:1:1:1"], "'1' is no tag that decides about CPUs"),
        (["--guest", "100:4:1::"], "5 parts"),
        (["--guest", "100:4:0"], "'0' is no number of sockets"),
        (["--guest", "100:4:65"], "'65' is no number of sockets"),
        (["--guest", "100:4:two:cpu-pinned"], "'two' is no number of sockets"),
        (["--guest", "100:5:2"], "5 vCPUs are not even in 2 sockets"),
        (["--guest", "100:2:4"], "2 vCPUs are not even in 4 sockets"),
        (["--guest", "100:4:dedicated"], "'dedicated' is no tag"),
        (["--guest", "100:4:2:cpu-dedicate"], "'cpu-dedicate' is no tag"),
        (["--guest", "100:4:2:"], "no tag stands behind the last colon"),
        (["--guest", "100:4:cpu-affinity-off"], "is left alone"),
        (["--guest", "100:99999"], "'99999'"),
        (["--guest", "99:1"], "'99' is no VMID"),
        (["--guest", ":4"], "'' is no VMID"),
        (["--guest", ""], "'' is no VMID"),
        (["--guest", "100,101:4"], "'100,101' is no VMID"),
        (["--guest", "100:1", "--guest", "100:2"], "guest 100 is given twice"),
        ([f"--guest={vmid}:1" for vmid in range(100, 1101)], "1001 guests are named"),
        (["--guest", "100:1", "--reserved", "3-1"], "--reserved 3-1"),
        (["--guest", "100:1", "--host", "generated:2x2"], "'2x2'"),
        (["--guest", "100:1", "--host", "generated:"], "''"),
        (["--guest", "100:1", "--host", "generated:1x1x1x1+fast"], "+fast"),
        (["--guest", "100:1", "--host", "/nowhere/host.json"], "--host /nowhere/host.json"),
        (["--guest", "100:1", "--host", ""], "--host"),
        (["--guest", "100:1", "--latency", "/nowhere.csv", "--host", HOST], "--latency /nowhere"),
        (["--guest", "100:1", "--latency", HOST, "--host", HOST], f"--latency {HOST}"),
        (["--guest", "100:1", "--format", "qm", "--json"], "two forms"),
        (["--guest", "100:1", "--format", "rhv", "--strategy", "round-robin"], "no cores"),
        (["--json-lines", "--format", "qm"], "stands alone"),
        (["--guest", "100:1"], "holds no host"),
        ([], "no guest is named"),
    ],
)
def test_wrong_words_are_one_line_that_names_the_part_and_a_hint(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = run(capsys, tmp_path, *words)
    assert said.status == 2
    assert said.out == ""
    error, hint, *rest = said.err.splitlines()
    assert error.startswith("Error: ")
    assert named in error
    assert hint.startswith("Hint: ")
    assert rest == []


@pytest.mark.parametrize(("guest", "hint"), [("100:5:2", "4 or 6 vCPUs"), ("100:4:5", "5 vCPUs")])
def test_sockets_that_are_not_even_are_told_what_would_be_and_nothing_twice(
    guest: str, hint: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It was `it could have 5 or 5 vCPUs`."""
    said = run(capsys, tmp_path, "--host", HOST, "--guest", guest)
    assert f"Hint: it could have {hint}, or other sockets\n" in said.err


@pytest.mark.parametrize(
    ("option", "known"),
    [
        ("--format", "'table', 'json', 'qm', 'libvirt', 'rhv'"),
        ("--strategy", "'balanced', 'round-robin'"),
    ],
)
def test_a_word_that_is_none_of_several_is_told_them_as_one_would_type_them(
    option: str, known: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It was `<Format.TABLE: 'table'>, <Format.JSON: 'json'>` and so on."""
    said = run(capsys, tmp_path, option, "xml")
    assert said.status == 2
    assert f"'xml' is not one of {known}." in said.err


def test_reserved_nothing_leaves_rhv_the_first_cores_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`--reserved ''` was taken as if it had not been given."""
    words = ["--host=generated:1x1x2x2", "--guest=100:4", "--format=rhv", "--reserved="]
    said = run(capsys, tmp_path, *words)
    assert (said.status, said.out) == (0, "# guest 100\n0#0,2_1#0,2_2#1,3_3#1,3\n")
    assert "left to the host" not in said.err


def test_a_guest_without_whole_cores_is_said_to_have_no_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["--host=generated:1x1x2x2", "--guest=100:4", "--format=rhv"]
    said = run(capsys, tmp_path, *words)
    assert (said.status, said.out) == (1, "")
    assert "Warning: VM 100: not placed: 2 whole cores wanted, 1 left\n" in said.err


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "the file is empty"),
        (b"{", "no host snapshot"),
        (b"{}", "no host snapshot: it has no 'files'"),
        (b"[]", "no core ranking"),
        (b"<html/>", "no hwloc topology"),
        (b"1,2\n3,4,5\n", "row 2: 3 cells in 2 rows"),
        (b'{"origin": "", "what": "", "files": {}, "cpus": 1}', "'cpus'"),
        (b'{"origin": "", "what": "", "files": {}}', "no CPU that is online"),
        (b"\xff\xfe", "no text"),
        (b"\x1f\x8b" + b"\xff" * 20, "compressed, and no tar"),
        (gzip.compress(b"# CPU,Core\n0,0\n"), "compressed, and no tar"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 20, "compressed, and no tar"),
    ],
)
def test_a_broken_host_file_is_named_with_its_fault(
    content: bytes, named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "host.json"
    file.write_bytes(content)
    said = run(capsys, tmp_path, "--host", str(file), "--guest=100:1")
    assert said.status == 2
    error, hint = said.err.splitlines()
    assert error.startswith(f"Error: --host {file}: ")
    assert named in error
    assert hint.startswith("Hint: ")


def test_a_matrix_of_another_size_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "host.json"
    made = Snapshot("made", "", generate(parse_spec("1x1x4x1")), ((0.0, 1.0), (1.0, 0.0)))
    file.write_text(snapshot.to_text(made))
    said = run(capsys, tmp_path, "--host", str(file), "--guest=100:1")
    assert said.status == 2
    assert "2 rows for 4 online CPUs" in said.err


def test_settings_of_the_host_are_its_service_s(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "etc/default/proxmox-cpu-affinity"
    file.parent.mkdir(parents=True)
    file.write_text("PCA_STRATEGY=round-robin\nPCA_RESERVED_CPUS=0\n")
    said = run(capsys, tmp_path, "--host", HOST, "--guest=100:1", "--json")
    assert json.loads(said.out)["strategy"] == "round-robin"
    assert json.loads(said.out)["usable"] == "0-31"  # reserved CPUs are another host's
    monkeypatch.setenv("PCA_STRATEGY", "balanced")
    said = run(capsys, tmp_path, "--host", HOST, "--guest=100:1", "--json")
    assert json.loads(said.out)["strategy"] == "balanced"
    file.write_text("PCA_STRATEGY=best\n")
    monkeypatch.delenv("PCA_STRATEGY")
    said = run(capsys, tmp_path, "--host", HOST, "--guest=100:1")
    assert said.status == 78
    assert "line 1: PCA_STRATEGY" in said.err


def test_a_host_can_be_a_csv_of_latencies(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "latencies.csv"
    file.write_text(",,,\n90,,,\n20,90,,\n90,20,90,\n")
    said = run(capsys, tmp_path, "--host", str(file), "--guest=100:2", "--guest=101:2", "--json")
    assert said.status == 0
    homes = {row["cpus"] for row in json.loads(said.out)["guests"]}
    assert homes == {"0,2", "1,3"}


def test_a_host_may_come_through_a_pipe_and_not_without_an_end(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = snapshot.to_text(Snapshot("made", "", generate(parse_spec("1x1x4x1"))))
    writer = Thread(target=pipe.write_text, args=(text,))
    writer.start()
    said = run(capsys, tmp_path, "--host", str(pipe), "--guest=100:4", "--json")
    writer.join()
    assert str(said.cpus(100)) == "0-3"
    said = run(capsys, tmp_path, "--host", "/dev/zero", "--guest=100:4")
    assert said.status == 2
    assert "more than 64 MiB of text" in said.err


def test_a_host_of_more_cpus_than_linux_knows_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A short text can name very many, and a matrix of them would fill the memory."""
    file = tmp_path / "host.json"
    files = {f"{CPU_DIR}/online": f"0-{CPUS_MOST}"}
    file.write_text(snapshot.to_text(Snapshot("made", "", files)))
    said = run(capsys, tmp_path, "--host", str(file), "--guest=100:4")
    assert said.status == 2
    assert f"{CPUS_MOST + 1} CPUs are more than any host has" in said.err


@pytest.mark.parametrize(
    ("environment", "drawn"),
    [
        ({}, "\x1b[31mA\x1b[0m"),
        ({"NO_COLOR": ""}, "\x1b[31mA\x1b[0m"),
        ({"NO_COLOR": "1"}, "A"),
        ({"TERM": "dumb"}, "A"),
    ],
)
def test_the_map_has_colours_on_a_terminal_that_wants_some(
    environment: dict[str, str], drawn: str, tmp_path: Path
) -> None:
    words = ["plan", "--host", HOST, "--guest=100:4", "--guest=101:4"]
    program = [sys.executable, "-m", "proxmox_cpu_affinity", "--root", str(tmp_path)]
    plain = subprocess.run([*program, *words], capture_output=True, text=True, check=True).stdout
    assert "\x1b" not in plain
    ours, theirs = pty.openpty()
    usual = {"TERM": "xterm", "PATH": os.environ["PATH"], "COLUMNS": "80"}
    done = subprocess.run(
        [*program, *words],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**usual, **environment},
        check=True,
    )
    assert done.returncode == 0
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # EIO: the other end is closed, and all is read (pty(7))
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    text = shown.decode().replace("\r\n", "\n")
    _, _, picture = text.partition("\n\n")
    assert f"cache group 0  {drawn}" in picture
    bare = re.sub(r"\x1b\[[0-9;]*m", "", picture)
    assert bare == plain.partition("\n\n")[2]


def test_guests_of_this_node_are_asked_for_as_their_configurations_have_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Tags, sockets and numa lines; on another host, so that this machine's CPUs do not matter."""
    folder = tmp_path / "etc/pve/nodes/pve/qemu-server"
    folder.mkdir(parents=True)
    (tmp_path / "etc/pve/local").symlink_to("nodes/pve")
    for vmid, text in {
        100: "cores: 2\nsockets: 2\nnuma: 1\ntags: cpu-affinity;cpu-pinned\n",
        101: "cores: 4\nnuma: 1\nnuma0: cpus=0-2,memory=1\nnuma1: cpus=3,memory=1\n"
        "tags: cpu-affinity\n",
        102: "cores: 2\ntags: cpu-affinity;cpu-dedicated\n",
        103: "cores: 2\ntags: cpu-affinity;cpu-dedicated;cpu-pinned\n",
        104: "cores: 9\ntags: cpu-pinned\n",
    }.items():
        (folder / f"{vmid}.conf").write_text(text)
    said = run(capsys, tmp_path, "--host", "generated:2x1x8x2", "--json")
    assert said.status == 0, said.err
    assert said.guests[100]["nodes"] == said.guests[101]["nodes"] == [0, 1]
    assert [len(CpuSet.parse(str(part))) for part in parts(said.guests[101])] == [3, 1]
    policies = [guest["policy"] for guest in said.guests.values()]
    assert policies == ["pinned", "shared", "dedicated", "shared", "pinned"]
    others = said.cpus(100) | said.cpus(101) | said.cpus(103)
    assert not (said.cpus(102) | siblings_of(said.cpus(102))).overlaps(others)
    assert "contradict each other" in str(said.guests[103]["warnings"])
    assert said.guests[104]["cpus"] == ""
    rhv = run(capsys, tmp_path, "--host", "generated:2x1x8x2", "--format", "rhv")
    assert rhv.status == 0
    assert [line for line in rhv.out.splitlines() if line.startswith("#")] == [
        f"# guest {vmid}" for vmid in (100, 101, 102, 103)
    ]
    assert "Warning: VM 104: not placed: left alone: " in rhv.err


def parts(guest: Mapping[str, object]) -> list[object]:
    found = guest["parts"]
    assert isinstance(found, list)
    return found


def siblings_of(cpus: CpuSet) -> CpuSet:
    """On a host of 16 cores whose second threads are numbered behind all first ones."""
    return CpuSet.of((cpu + 16) % 32 for cpu in cpus)
