"""What is fuzzed: each reader of texts that others write, its seeds, and what must hold of any.

A target may refuse with an error of the family (model/errors.py); everything else that it raises is
a finding. Used by the property tests (unit/test_fuzz_targets.py) and by `make fuzz`.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proxmox_cpu_affinity.formats import (
    cpuinfo,
    endpoints,
    hosttext,
    hwloc,
    hwloc_xml,
    jsonvalue,
    latency_csv,
    machine,
    numa,
    pressure,
    procfs,
    pveconf,
    pvesections,
    saved,
    settings,
    snapshot,
    sysfiles,
    sysfs,
    uevent,
    wire_bodies,
)
from proxmox_cpu_affinity.formats.wire_query import checked
from proxmox_cpu_affinity.latency import cache, protocol
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.errors import AffinityError
from proxmox_cpu_affinity.model.guest import GuestConfig
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.latency import LatencyMatrix
from proxmox_cpu_affinity.service.access import Access
from proxmox_cpu_affinity.service.persist import from_json
from proxmox_cpu_affinity.store import content_of
from tests.fuzz import archives, seeds

CPUS_MOST = 64  # beyond it a target does no more than read: fuzzing wants speed


@dataclass(frozen=True, slots=True)
class Target:
    """A reader and texts that it understands."""

    run: Callable[[bytes], object]
    seeds: tuple[str, ...]


def attempt(target: Target, data: bytes) -> bool:
    """Whether the target took it; False where it refused as it may."""
    try:
        target.run(data)
    except AffinityError as error:
        if not error.text:
            raise ValueError("an error without a text") from error
        return False
    return True


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _strict(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _guest(data: bytes) -> GuestConfig:
    file = pveconf.parse(_text(data))
    again = pveconf.parse(pveconf.write(file))
    assert pveconf.write(again) == pveconf.write(file), "what is written reads back otherwise"
    pveconf.pending_deletions(file)
    found = pveconf.config_of(file, vmid=Vmid(100), node="pve")
    assert found.cores >= 1
    assert found.sockets >= 1
    return found


def _no_guest_line_is_lost(data: bytes) -> None:
    """Each line of the main section is taken, dropped with a warning, or a comment."""
    text = _text(data).partition("\n[")[0]
    if text.startswith("["):
        return
    file = pveconf.parse(text)
    said = "\n".join(file.warnings)
    for line in text.split("\n"):
        if not line.strip(" \t\n\r\f\v") or line.startswith("#"):
            continue
        key = line.partition(":")[0]
        known = file.main.values.keys() | file.main.dropped.keys()
        kept = key in known or key in ("description", "cdrom") or "snapstate:" in line
        assert kept or line.rstrip(" \t\n\r\f\v") in said, f"{line!r} is lost"


def _storages(data: bytes) -> None:
    text = _text(data)
    sections = pvesections.parse_sections(text)
    assert pvesections.parse_sections(pvesections.write_sections(sections)) == sections
    pvesections.ha_managed(text, Vmid(100))
    storages = pvesections.parse_storages(text)
    assert "local" in storages
    for name in storages:
        pvesections.snippet_path(storages, f"{name}:snippets/x")


def _cpulist(data: bytes) -> None:
    found = CpuSet.parse(_text(data))
    assert CpuSet.parse(str(found)) == found
    assert sysfiles.cpulist_or_none(_text(data)) == found


def _topology(files: Mapping[str, str]) -> None:
    """No file of a host is an error, and every online CPU is in one group of each kind."""
    found = sysfs.topology(files)
    assert [place.cpu for place in found.places] == list(found.online)
    for groups in (found.cores, found.l2_groups, found.cache_groups, found.dies, found.packages):
        assert sum(map(len, groups)) == len(found.online)
        assert CpuSet.of(cpu for group in groups for cpu in group) == found.online


def _files(data: bytes) -> None:
    lines = (line.partition("=") for line in _text(data).split("\n"))
    _topology({path: text.replace("\\n", "\n") for path, _, text in lines})


def _host(found: snapshot.Snapshot) -> None:
    """A host that was read: its topology, and its own text again."""
    text = snapshot.to_text(found)
    assert snapshot.parse(text) == found
    online = found.files.get("sys/devices/system/cpu/online", "")
    cpus = sysfiles.cpulist_or_none(online)
    if cpus is not None and len(cpus) <= CPUS_MOST:
        _topology(found.files)


def _snapshot(data: bytes) -> None:
    _host(snapshot.parse(_strict(data)))


def _saved(data: bytes) -> None:
    _host(saved.parse(_strict(data)))


def _hosttext(data: bytes) -> None:
    _host(hosttext.parse(_strict(data)))


def _hwloc(data: bytes) -> None:
    found = hwloc.parse(_strict(data))
    _host(found)
    topology = sysfs.topology(found.files)
    if 0 < len(topology.online) <= CPUS_MOST:
        again = hwloc.parse(hwloc_xml.to_text(topology, predicted(topology)))
        assert sysfs.topology(again.files).online == topology.online


def _csv(data: bytes) -> None:
    rows = latency_csv.parse(_strict(data))
    for i, row in enumerate(rows):
        assert len(row) == len(rows)
        assert all(row[j] == rows[j][i] >= 0 for j in range(i))


def _uevent(data: bytes) -> None:
    found = uevent.parse(data)
    assert found.cpu is None or found.cpu >= 0


def _procfs(data: bytes) -> None:
    text = _text(data)
    for read in (cpuinfo.parse, procfs.pidfile, procfs.cpu_times, sysfiles.reduced_meminfo):
        read(text)
    assert cpuinfo.parse(cpuinfo.reduced(text)) == cpuinfo.parse(text)
    procfs.pidfile_argument(procfs.argv(text))
    times = procfs.cpu_times(text)
    assert all(0 <= share <= 1 for share in procfs.busy_between({}, times).values())
    for strict in (procfs.stat, procfs.tids):
        try:
            strict(text)
        except AffinityError:
            continue


def _numa(data: bytes) -> None:
    numa.memory_by_node(_text(data))
    numa.node_memory(_text(data))


def _pressure(data: bytes) -> None:
    text = _text(data)
    for read in (pressure.some_waited, pressure.run_delay):
        try:
            seconds = read(text)
        except AffinityError:
            continue
        assert 0 <= seconds < float("inf")


def _settings(data: bytes) -> None:
    text = _text(data)
    first, _ = settings.settings(text, {}, file="file")
    assert settings.settings(text, {}, file="file")[0] == first
    for assignment in settings.assignments(text, file="file"):
        assert assignment.name
        assert assignment.where.startswith("file, line ")


def _state(data: bytes) -> None:
    content = jsonvalue.json_object(data)
    from_json(content, boot_id="boot")


def _store(data: bytes) -> None:
    problem, content = content_of(data)
    assert bool(problem) == (content is None)


def _cache(data: bytes) -> None:
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError):
        return
    print_ = whole.get("fingerprint", "") if isinstance(whole, dict) else ""
    found = cache.usable(whole, print_)
    if isinstance(found, LatencyMatrix):
        text = json.dumps(cache.encoded(found, "x"))
        again = cache.usable(json.loads(text), "x")
        assert isinstance(again, LatencyMatrix)
        assert json.dumps(cache.encoded(again, "x")) == text
    else:
        assert found.reason


def _holds(told: object, given: object) -> bool:
    """Whether all that was given is in what was made of it, defaults beside."""
    if isinstance(told, dict) and isinstance(given, dict):
        return all(key in told and _holds(told[key], value) for key, value in given.items())
    if isinstance(told, list) and isinstance(given, list):
        return len(told) == len(given) and all(map(_holds, told, given))
    return told == given


def _bodies(data: bytes) -> None:
    body = jsonvalue.json_object(data)
    for kind in (wire_bodies.HookBody, wire_bodies.ReassignBody, wire_bodies.PlanBody):
        try:
            read = kind.read(body)
        except AffinityError:
            continue
        assert _holds(jsonvalue.plain(read), body), "something is dropped"


def _queries(data: bytes) -> None:
    pairs = (pair.partition("=") for pair in _text(data).split("&"))
    query = {name: value for name, _, value in pairs}
    for endpoint in endpoints.ENDPOINTS:
        try:
            assert checked(query, endpoint.query).keys() <= {p.name for p in endpoint.query}
        except AffinityError:
            continue
    endpoints.read_vmid(_text(data))


def _headers(data: bytes) -> None:
    text = _text(data)
    access = Access(token="t" * 43, bound="127.0.0.1")
    acts = next(endpoint for endpoint in endpoints.ENDPOINTS if endpoint.acts)
    checks: tuple[Callable[[], None], ...] = (
        lambda: access.check_host([text]),
        lambda: access.check_origin([text]),
        lambda: access.check_write(acts, peer=None, authorization=text),
    )
    for check in checks:
        try:
            check()
        except AffinityError:
            continue
        ours = r"(?i).*(localhost|127\.[0-9.]+|\[[0-9:a-f.]*:[0-9:a-f.]*\]|t{43}).*"
        assert re.fullmatch(ours, text, re.DOTALL), f"{text!r} passes"


def _machine(data: bytes) -> None:
    found = machine.machine(jsonvalue.json_object(data))
    assert len(found.topology.online) == len(found.matrix.cpus)


def _replies(data: bytes) -> None:
    reply = protocol.parse(_strict(data))
    match reply:
        case protocol.Sampled():
            sample = protocol.sample(reply.pair, reply.batches, agree=0.05)
            assert sample.value >= 0
        case protocol.Failed() | protocol.Ran() | protocol.Refused() | protocol.Greeting():
            pass


TARGETS: Mapping[str, Target] = {
    "guest": Target(_guest, seeds.GUESTS),
    "guest-lines": Target(_no_guest_line_is_lost, seeds.GUESTS),
    "storages": Target(_storages, seeds.SECTIONS),
    "cpulist": Target(_cpulist, ("0-3,8", "0", "", "5,7,9-11", " 1 , 2-3 ")),
    "sysfs": Target(_files, seeds.SYSFS),
    "snapshot": Target(_snapshot, seeds.SNAPSHOTS),
    "saved": Target(_saved, (*seeds.SNAPSHOTS, *seeds.RANKINGS, *seeds.CSVS)),
    "hosttext": Target(_hosttext, seeds.LSCPU),
    "hwloc": Target(_hwloc, seeds.HWLOC),
    "csv": Target(_csv, seeds.CSVS),
    "uevent": Target(_uevent, seeds.UEVENTS),
    "procfs": Target(_procfs, seeds.PROC),
    "numa": Target(_numa, seeds.NUMA),
    "pressure": Target(_pressure, seeds.PRESSURES),
    "settings": Target(_settings, seeds.SETTINGS),
    "state": Target(_state, seeds.STATES),
    "store": Target(_store, seeds.STORED),
    "cache": Target(_cache, seeds.CACHES),
    "bodies": Target(_bodies, seeds.BODIES),
    "queries": Target(_queries, ("vcpus=4&policy=shared&sockets=2&numa=1", "100", "by=reassign")),
    "headers": Target(_headers, seeds.HEADERS),
    "machine": Target(_machine, seeds.MACHINES),
    "replies": Target(_replies, seeds.REPLIES),
    "tar": Target(archives.tar, archives.TARS),
    "folder": Target(archives.folder, archives.FOLDERS),
}
