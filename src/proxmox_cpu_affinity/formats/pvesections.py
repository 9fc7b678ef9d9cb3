"""PVE's section files: storages (storage.cfg) and HA resources (ha/resources.cfg).

After pve-common's `SectionConfig`: a header `TYPE: ID` in column 0, indented `key value` lines,
an empty line ends the section. Out of scope: what storages need to be mounted, HA groups and rules.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from proxmox_cpu_affinity.formats.pveschema import boolean, split_list
from proxmox_cpu_affinity.model.errors import RefusedError, SyntaxFault
from proxmox_cpu_affinity.model.ids import Vmid

_HEADER = re.compile(r"(\S+):\s*(\S+)\s*", re.ASCII)
_LINE = re.compile(r"\s+(\S+)(?:\s+(.*\S))?", re.ASCII)  # without the blanks at its end
_COMMENT = re.compile(r"\s*#.*", re.ASCII)
_STORAGE_ID = re.compile(r"[a-z][a-z0-9._-]*[a-z0-9]", re.ASCII | re.IGNORECASE)
_VOLUME_ID = re.compile(rf"({_STORAGE_ID.pattern}):(.+)", re.ASCII | re.IGNORECASE)
_SNIPPET = re.compile(r"snippets/([^/]+)")

LOCAL_PATH = "/var/lib/vz"
_LOCAL_CONTENT = frozenset(("backup", "images", "import", "iso", "rootdir", "snippets", "vztmpl"))
_MOUNTED = frozenset(("nfs", "cifs", "cephfs", "glusterfs"))  # below /mnt/pve unless `path` is set
_ALWAYS_SHARED = _MOUNTED | {"rbd", "iscsi", "iscsidirect", "pbs", "zfs", "esxi"}


@dataclass(frozen=True, slots=True)
class SectionEntry:
    """One section: its type, its id, and its keys (a key without a value has an empty one)."""

    type: str
    id: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage as storage.cfg defines it; `path` is None where it holds no files."""

    id: str
    type: str
    path: str | None
    content: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()  # empty: all of the cluster
    disabled: bool = False
    shared: bool = False
    content_dirs: Mapping[str, str] = field(default_factory=dict)

    def usable_on(self, node: str) -> bool:
        """Whether PVE would use it on this node: enabled, and not kept to other nodes."""
        return not self.disabled and (not self.nodes or node in self.nodes)


def parse_sections(text: str) -> tuple[SectionEntry, ...]:
    """The sections of a file in order; lines PVE ignores with a warning are ignored here too."""
    found: list[SectionEntry] = []
    values: dict[str, str] | None = None  # None: between sections
    for line in text.split("\n"):
        if _COMMENT.fullmatch(line):
            continue
        if line == "":
            values = None
        elif values is None:
            if header := _HEADER.fullmatch(line):
                values = {}
                found.append(SectionEntry(header[1].lower(), header[2], values))
        elif match := _LINE.fullmatch(line.rstrip(" \t\r\f\v")):
            values[match[1]] = match[2] or ""
    return tuple(found)


def write_sections(sections: Iterable[SectionEntry]) -> str:
    """The text of such a file; parse_sections reads the same sections from it."""
    return "\n".join(
        f"{entry.type}: {entry.id}\n"
        + "".join(
            f"\t{key} {value}\n" if value else f"\t{key}\n" for key, value in entry.values.items()
        )
        for entry in sections
    )


def parse_storages(text: str) -> Mapping[str, Storage]:
    """The storages by id, with `local` as PVE forces it to be."""
    storages = {
        entry.id: _storage(entry)
        for entry in parse_sections(text)
        if _STORAGE_ID.fullmatch(entry.id)
    }
    return {**storages, "local": _forced_local(storages.get("local"))}


def snippet_path(storages: Mapping[str, Storage], volume: str) -> str:
    """The path of the file that a volume id STORAGE:snippets/NAME names, as the node sees it.

    Like PVE it asks neither whether the storage is enabled nor whether it may hold snippets.
    SyntaxFault for no such id, RefusedError where it names no snippet of a known storage.
    """
    match = _VOLUME_ID.fullmatch(volume)
    if match is None:
        raise SyntaxFault(f"unable to parse volume ID '{volume}'")
    storage = storages.get(match[1])
    if storage is None:
        raise RefusedError(f"storage '{match[1]}' does not exist", hint="see: pvesm status")
    name = _SNIPPET.fullmatch(match[2])
    if storage.path is None or name is None or name[1] in {".", ".."}:
        raise RefusedError(
            f"'{volume}' is not in the snippets directory",
            hint=f"write it as {match[1]}:snippets/NAME, on a storage that holds files",
        )
    folder = storage.content_dirs.get("snippets", "snippets")
    return f"{storage.path.rstrip('/')}/{folder.strip('/')}/{name[1]}"


def ha_managed(text: str, vmid: Vmid) -> bool:
    """Whether ha/resources.cfg makes the guest HA's: it has a section, and is not ignored."""
    return any(
        entry.values.get("state") != "ignored"
        for entry in parse_sections(text)
        if (entry.type, entry.id) == ("vm", str(vmid))
    )


def _storage(entry: SectionEntry) -> Storage:
    values = entry.values
    path = values.get("path")
    if path is None and entry.type in _MOUNTED:
        path = f"/mnt/pve/{entry.id}"
    pairs = (pair.partition("=") for pair in split_list(values.get("content-dirs", "")))
    return Storage(
        id=entry.id,
        type=entry.type,
        path=path,
        content=frozenset(split_list(values.get("content", ""))) - {"none"},
        nodes=frozenset(split_list(values.get("nodes", ""))),
        disabled=_flag(values, "disable"),
        shared=entry.type in _ALWAYS_SHARED or _flag(values, "shared"),
        content_dirs={kind: folder for kind, _, folder in pairs},
    )


def _flag(values: Mapping[str, str], key: str) -> bool:
    """A line with the key alone means true (SectionConfig::check_value); what is no truth counts as
    a key that is not there."""
    try:
        return boolean(values.get(key, "0") or "1")
    except SyntaxFault:
        return False


def _forced_local(storage: Storage | None) -> Storage:
    if storage is None or storage.type != "dir" or storage.path != LOCAL_PATH:
        return Storage(id="local", type="dir", path=LOCAL_PATH, content=_LOCAL_CONTENT)
    return Storage(
        id="local",
        type="dir",
        path=LOCAL_PATH,
        content=storage.content,
        disabled=storage.disabled,
        shared=storage.shared,
        content_dirs=storage.content_dirs,
    )
