"""PVE's guest files (VMID.conf): sections, what PVE takes and what it drops, and their text again.

After qemu-server's `parse_vm_config` and `write_vm_config`. Text in, values out: a file that is
not UTF-8 is decoded by the caller with `surrogateescape`. Out of scope: containers' files, and
what the values of disks and other devices mean.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote_to_bytes

from proxmox_cpu_affinity.formats.guestnuma import nodes_of
from proxmox_cpu_affinity.formats.pveschema import checked, split_list
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.guest import GuestConfig
from proxmox_cpu_affinity.model.ids import Vmid

# Perl's \s and \d on these byte strings are ASCII; its $ is the end, since lines hold no newline.
# They see lines that end in one blank at most (_line), and say the same of these as PVE's, in time
# that grows with the line: who may configure a guest may write any number of blanks.
_BLANKS = " \t\r\f\v"
_PENDING = re.compile(r"\[PENDING\]\s*", re.ASCII | re.IGNORECASE)
_SPECIAL = re.compile(r"\[special:(cloudinit|fleecing)\]\s*", re.ASCII | re.IGNORECASE)
_SNAPSHOT = re.compile(r"\[([a-z][a-z0-9_-]+)\]\s*", re.ASCII | re.IGNORECASE)
_UNKNOWN = re.compile(r"\[([^\]]*)\]\s*", re.ASCII)
_DESCRIPTION = re.compile(r"description:\s*(.*\S)\s?", re.ASCII)
_SNAPSTATE = re.compile(r".*snapstate:\s*(prepare|delete)\s*", re.ASCII)
_VERBATIM = re.compile(r"(args|delete):\s*(.*\S)\s?", re.ASCII)
_KEY = re.compile(r"([a-z][a-z_-]*[0-9]*):\s*(.*\S|\s)\s?", re.ASCII)  # PVE's: (.+?)\s*$
_BLANK = re.compile(r"\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Section:
    """One section: the values PVE takes (booleans are 1 or 0), and those it drops on reading.

    Both by key; the last line of a key wins. `description` is decoded, None where there is none.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None


@dataclass(frozen=True, slots=True)
class GuestFile:
    """All that a guest's file says; `warnings` are what PVE would print while reading it."""

    main: Section = field(default_factory=Section)
    pending: Section = field(default_factory=Section)
    special: Mapping[str, Section] = field(default_factory=dict)
    snapshots: Mapping[str, Section] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def with_main(self, changes: Mapping[str, str | None]) -> "GuestFile":
        """The same file with keys of the main section set, or removed where the value is None."""
        return replace(self, main=changed(self.main, changes))


def changed(section: Section, changes: Mapping[str, str | None]) -> Section:
    """The same section with keys set, or removed where the value is None; `description` too."""
    merged = {**section.values, **changes}
    text = merged.pop("description", section.description)
    kept = {key: value for key, value in merged.items() if value is not None}
    dropped = {key: value for key, value in section.dropped.items() if key not in changes}
    return replace(section, values=kept, dropped=dropped, description=text)


def parse(text: str) -> GuestFile:
    """Read a guest's file as PVE does; nothing in it is an error, what PVE drops is a warning."""
    reader = _Reader()
    for line in text.split("\n"):
        if not _BLANK.fullmatch(line):
            reader.take(_line(line))
    return reader.result()


def _line(text: str) -> str:
    """The line with one of the blanks at its end at most: no more of them mean anything, and no
    less where there is nothing else behind a key."""
    bare = text.rstrip(_BLANKS)
    return bare + text[len(bare) :][-1:]


def write(file: GuestFile) -> str:
    """The text PVE would write for it: sections and keys in its order, dropped values lost."""
    values = {key: value for key, value in file.main.values.items() if key != "snapstate"}
    # The legacy key smp is a socket count; on writing PVE turns it into one and forgets cores.
    smp = values.pop("smp", "0")
    if smp != "0" and values.get("sockets", "0") == "0":
        values.pop("cores", None)
        values["sockets"] = smp
    text = _written(replace(file.main, values=values))
    if file.pending.values or file.pending.description is not None:
        text += "\n[PENDING]\n" + _written(file.pending, mark_empty=True)
    for name, section in sorted(file.special.items()):
        text += f"\n[special:{name}]\n" + _written(section)
    for name, section in sorted(file.snapshots.items()):
        text += f"\n[{name}]\n" + _written(section)
    return text


def guest_config(text: str, *, vmid: Vmid, node: str) -> GuestConfig:
    """The facts of a guest that decide about its CPUs: main section only."""
    return config_of(parse(text), vmid=vmid, node=node)


def config_of(file: GuestFile, *, vmid: Vmid, node: str) -> GuestConfig:
    """As guest_config, of a file already read."""
    values = file.main.values
    # An affinity PVE cannot read is dropped by it, yet it still is the administrator's will.
    affinity = values.get("affinity", file.main.dropped.get("affinity"))
    cores = _count(values, "cores") or 1
    sockets = _count(values, "sockets") or _count(values, "smp") or 1
    return GuestConfig(
        vmid=vmid,
        node=node,
        name=values.get("name", ""),
        cores=cores,
        sockets=sockets,
        vcpus=_count(values, "vcpus") or None,
        numa=values.get("numa") == "1",
        nodes=nodes_of(values, cores=cores, sockets=sockets),
        affinity=affinity,
        hookscript=values.get("hookscript"),
        tags=split_list(values.get("tags", "")),
        template=values.get("template") == "1",
        lock=values.get("lock", ""),
        hotplug_cpu="cpu" in split_list(values.get("hotplug", "")),
    )


def pending_deletions(file: GuestFile) -> Mapping[str, bool]:
    """The keys that [PENDING] says to delete, and whether forced (a leading `!`)."""
    names = split_list(file.pending.values.get("delete", ""))
    return {name.removeprefix("!"): name.startswith("!") for name in names}


def encode_text(text: str) -> str:
    """A description's line as PVE writes it: control and non-ASCII bytes, `:` and `%` escaped."""
    data = text.encode("utf-8", "surrogateescape")
    return "".join(
        chr(byte) if 0x20 <= byte <= 0x7E and byte not in b":%" else f"%{byte:02X}" for byte in data
    )


def decode_text(text: str) -> str:
    """The text that a description's line spells."""
    data = unquote_to_bytes(text.encode("utf-8", "surrogateescape"))
    return data.decode("utf-8", "surrogateescape")


def _count(values: Mapping[str, str], key: str) -> int:
    return int(values.get(key, "0"))  # 0 is false to Perl: PVE then uses the default


def _written(section: Section, *, mark_empty: bool = False) -> str:
    text = ""
    if section.description:
        text = "".join(f"#{encode_text(line)}\n" for line in section.description.split("\n"))
    elif section.description is not None and mark_empty:
        text = "#\n"  # in [PENDING]: the description is to become empty
    return text + "".join(f"{key}: {section.values[key]}\n" for key in sorted(section.values))


class _Open:
    """A section while its lines are read."""

    def __init__(self, *, kind: str, name: str = "") -> None:
        self.kind = kind  # main, pending, special, snapshot
        self.name = name
        self.values: dict[str, str] = {}
        self.dropped: dict[str, str] = {}
        self.description: list[str] = []

    def describe(self, text: str) -> None:
        self.description.append(decode_text(text))

    def closed(self) -> Section:
        text = "".join(self.description).rstrip() if self.description else None
        return Section(self.values, self.dropped, text)


class _Reader:
    """The state of reading a file line by line; the order of the tests below is PVE's."""

    def __init__(self) -> None:
        self.sections: dict[tuple[str, str], Section] = {}
        self.warnings: list[str] = []
        self.section: _Open | None = _Open(kind="main")  # None: skipping an unknown section

    def take(self, line: str) -> None:
        if self._header(line) or self.section is None:
            return
        if line.startswith("#"):
            self.section.describe(line[1:])
            self.section.describe("\n")
        elif match := _DESCRIPTION.fullmatch(line):
            self.section.describe(match[1])
        elif match := _SNAPSTATE.fullmatch(line):
            self.section.values["snapstate"] = match[1]
        elif match := _VERBATIM.fullmatch(line):
            self._verbatim(self.section, match[1], match[2])
        elif match := _KEY.fullmatch(line):
            self._value(self.section, match[1], match[2])
        else:
            self.warnings.append(f"unable to parse config: {line}")

    def result(self) -> GuestFile:
        self._close()
        main = self.sections.pop(("main", ""))
        main = changed(main, {"snapstate": None})  # never survives here
        return GuestFile(
            main=main,
            pending=self.sections.pop(("pending", ""), Section()),
            special={name: s for (kind, name), s in self.sections.items() if kind == "special"},
            snapshots={name: s for (kind, name), s in self.sections.items() if kind == "snapshot"},
            warnings=tuple(self.warnings),
        )

    def _header(self, line: str) -> bool:
        if _PENDING.fullmatch(line):
            self._open(_Open(kind="pending"))
        elif match := _SPECIAL.fullmatch(line):
            self._open(_Open(kind="special", name=match[1].lower()))
        elif match := _SNAPSHOT.fullmatch(line):
            self._open(_Open(kind="snapshot", name=match[1]))
        elif match := _UNKNOWN.fullmatch(line):
            self._close()
            self.section = None
            self.warnings.append(f"skipping unknown section: '{match[1]}'")
        else:
            return False
        return True

    def _open(self, section: _Open) -> None:
        self._close()
        if (section.kind, section.name) in self.sections:
            self.warnings.append(f"duplicate section: {section.name or section.kind}")
        self.section = section

    def _close(self) -> None:
        if self.section is not None:
            self.sections[self.section.kind, self.section.name] = self.section.closed()

    def _verbatim(self, section: _Open, key: str, value: str) -> None:
        if key == "delete" and section.kind != "pending":
            self.warnings.append("property 'delete' is only allowed in [PENDING]")
            section.dropped[key] = value
        else:
            section.values[key] = value

    def _value(self, section: _Open, key: str, value: str) -> None:
        try:
            taken = value if section.kind == "special" else checked(key, value)
        except SyntaxFault as fault:
            self.warnings.append(f"unable to parse value of '{key}' - {fault.text}")
            section.dropped[key] = value
            return
        section.values["ide2" if key == "cdrom" else key] = taken
