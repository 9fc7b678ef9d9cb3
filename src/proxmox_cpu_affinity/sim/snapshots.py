"""Snapshots of a guest: sections of its file, with the RAM beside it where that is wanted.

After pve-guest-common's AbstractConfig.pm. Out of scope: disks; a guest here has none.
"""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from proxmox_cpu_affinity.formats.pveconf import GuestFile, Section, changed
from proxmox_cpu_affinity.sim import configs, lifecycle, ramstate
from proxmox_cpu_affinity.sim.faults import BadParameter, Fault
from proxmox_cpu_affinity.sim.lifecycle import StartOptions, StopOptions
from proxmox_cpu_affinity.sim.processes import guest_pid
from proxmox_cpu_affinity.sim.tree import Tree

_NAME = re.compile(r"[a-z][a-z0-9_-]+", re.ASCII | re.IGNORECASE)
_NAME_MAX = 40
_STOP_S = 5.0
_NOT_COPIED = ("snapstate", "snaptime", "vmstate", "lock")


def check_name(name: str, *, usage: str) -> None:
    """Refuse what is no name of a snapshot. BadParameter, Fault."""
    if not _NAME.fullmatch(name):
        text = f"invalid format - invalid configuration ID '{name}'\n"
        raise BadParameter("snapname", text, usage=usage)
    if len(name) > _NAME_MAX:
        text = f"value may only be {_NAME_MAX} characters long"
        raise BadParameter("snapname", text, usage=usage)
    if name.lower() in {"current", "pending"}:
        raise Fault(f"unable to use snapshot name '{name}' (reserved name)")


def take(tree: Tree, vmid: int, name: str, *, description: str = "", ram: bool = False) -> None:
    """Take a snapshot; the guest goes on, and no hook runs. Fault."""
    with configs.locked(tree, vmid):
        file = configs.load(tree, vmid)
        if file.main.values.get("template") == "1":
            raise Fault("you can't take a snapshot if it's a template")
        configs.check_lock(file)
        if name in file.snapshots:
            raise Fault(f"snapshot name '{name}' already used")
        ram = ram and guest_pid(tree, vmid) is not None
        section = changed(
            _copied(file.main),
            {
                "snapstate": "prepare",
                "snaptime": str(int(time.time())),
                "description": description or None,
                **(ramstate.keys(tree, vmid, name) if ram else {}),
            },
        )
        _save(tree, vmid, file.with_main({"lock": "snapshot"}), {**file.snapshots, name: section})
    if ram:
        try:
            ramstate.save(tree, vmid, ramstate.volume_of(vmid, name))
            ramstate.go_on(tree, vmid)
        except Fault:
            _forget(tree, vmid, name)
            raise
    with configs.locked(tree, vmid):
        file = configs.load(tree, vmid).with_main({"lock": None, "parent": name})
        section = changed(file.snapshots[name], {"snapstate": None})
        _save(tree, vmid, file, {**file.snapshots, name: section})


def _forget(tree: Tree, vmid: int, name: str) -> None:
    """Leave nothing of a snapshot that came to nothing."""
    with configs.locked(tree, vmid):
        file = configs.load(tree, vmid).with_main({"lock": None})
        ramstate.remove(tree, ramstate.volume_of(vmid, name))
        others = {other: s for other, s in file.snapshots.items() if other != name}
        _save(tree, vmid, file, others)


def delete(tree: Tree, vmid: int, name: str) -> None:
    """Forget a snapshot; its children become its parent's. Fault."""
    with configs.locked(tree, vmid):
        file = configs.load(tree, vmid)
        configs.check_lock(file)
        section = _found(file, name)
        parent = section.values.get("parent")
        others = {
            other: changed(child, {"parent": parent}) if _child_of(child, name) else child
            for other, child in file.snapshots.items()
            if other != name
        }
        if _child_of(file.main, name):
            file = file.with_main({"parent": parent})
        _save(tree, vmid, file, others)
        if volume := section.values.get("vmstate"):
            ramstate.remove(tree, volume)


def rollback(tree: Tree, vmid: int, name: str, *, start: bool = False) -> None:
    """Make a snapshot's section the configuration; a guest that runs is stopped, and goes on from
    the snapshot's RAM if that was kept. Hooks are those of stop and start. Fault."""
    with configs.locked(tree, vmid):
        file = configs.load(tree, vmid)
        if file.main.values.get("template") == "1":
            raise Fault("you can't rollback if vm is a template")
        section = _found(file, name)
        if state := section.values.get("snapstate"):
            raise Fault(f"unable to rollback to incomplete snapshot (snapstate = {state})")
        configs.check_lock(file)
        lifecycle.stop_locked(tree, vmid, file, StopOptions(force=True, timeout=_STOP_S))
        if guest_pid(tree, vmid):
            raise Fault(f"unable to rollback vm {vmid}: vm is running")
        configs.save(tree, vmid, file.with_main({"lock": "rollback"}))
    # PVE takes the disks back here, without the file's lock: `qm cleanup` may come in between.
    with configs.locked(tree, vmid):
        file = configs.load(tree, vmid)
        if file.main.values.get("lock") != "rollback":
            raise Fault("got wrong lock")
        file = _rolled_back(file, name)
        configs.save(tree, vmid, file)
        if volume := section.values.get("vmstate"):
            lifecycle.start_locked(tree, vmid, file, StartOptions(state=volume))
    if start and not guest_pid(tree, vmid):
        lifecycle.start(tree, vmid)


def listed(file: GuestFile) -> Iterator[str]:
    """The lines of `qm listsnapshot`: a tree, with the present at its end."""
    here = {"parent": file.main.values.get("parent", "")}
    sections = {**file.snapshots, "current": Section(here, description="You are here!")}
    roots = [name for name, s in sections.items() if s.values.get("parent") not in sections]
    for name in _by_time(sections, roots):
        yield from _branch(sections, name, "`->")


def _branch(sections: Mapping[str, Section], name: str, prefix: str) -> Iterator[str]:
    section = sections[name]
    when = section.values.get("snaptime")
    stamp = time.strftime("%F %H:%M:%S", time.localtime(int(when))) if when else ""
    text = (section.description or "no-description").split("\n")[-1]
    yield f"{prefix} {name:<{max(0, 30 - len(prefix))}} {stamp:<23} {text}"
    children = [other for other, child in sections.items() if _child_of(child, name)]
    for child in _by_time(sections, children):
        yield from _branch(sections, child, f"    {prefix}")


def _by_time(sections: Mapping[str, Section], names: list[str]) -> list[str]:
    """Oldest first; the present, which has no time, is last."""
    return sorted(names, key=lambda n: int(sections[n].values.get("snaptime", str(1 << 62))))


def _copied(section: Section) -> Section:
    """The keys that go from the configuration into a snapshot, and back."""
    kept = {
        key: value
        for key, value in section.values.items()
        if key not in _NOT_COPIED and not key.startswith("unused")
    }
    return Section(kept)


def _rolled_back(file: GuestFile, name: str) -> GuestFile:
    """Of what was, only the description and the unused disks stay; what was pending is lost."""
    unused = {key: value for key, value in file.main.values.items() if key.startswith("unused")}
    values = {**unused, **_copied(file.snapshots[name]).values, "parent": name}
    for key in ramstate.KEYS:
        values.pop(key, None)
    return GuestFile(Section(values, description=file.main.description), snapshots=file.snapshots)


def _child_of(section: Section, name: str) -> bool:
    return section.values.get("parent") == name


def _found(file: GuestFile, name: str) -> Section:
    if name not in file.snapshots:
        raise Fault(f"snapshot '{name}' does not exist")
    return file.snapshots[name]


def _save(tree: Tree, vmid: int, file: GuestFile, snapshots: Mapping[str, Section]) -> None:
    configs.save(tree, vmid, replace(file, snapshots=snapshots))
