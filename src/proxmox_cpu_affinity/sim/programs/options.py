"""PVE's way of reading a command line: `-name value`, `--name value`, `--name=value`, anywhere."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from proxmox_cpu_affinity.formats.pveschema import boolean, kind_of
from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.ids import Vmid, vmid_of
from proxmox_cpu_affinity.sim.faults import BadParameter, Fault
from proxmox_cpu_affinity.sim.tree import Tree


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a command, read."""

    arguments: tuple[str, ...]
    options: Mapping[str, str]
    usage: str

    def flag(self, name: str) -> bool:
        """A boolean option. BadParameter."""
        try:
            return boolean(self.options.get(name, "0"))
        except SyntaxFault as fault:
            raise BadParameter(name, fault.text, usage=self.usage) from fault

    def seconds(self, name: str) -> float | None:
        """A time limit, None if it is not given. BadParameter."""
        value = self.options.get(name)
        if value is None:
            return None
        if not value.isdigit():
            text = f"type check ('integer') failed - got '{value}'"
            raise BadParameter(name, text, usage=self.usage)
        return float(value)

    def vmid(self, index: int = 0, *, name: str = "vmid") -> Vmid:
        """A positional VMID. BadParameter."""
        vmid = vmid_of(self.arguments[index])
        if vmid is None:
            text = "invalid format - value does not look like a valid VM ID"
            raise BadParameter(name, text, usage=self.usage)
        return vmid


@dataclass(frozen=True, slots=True)
class Command:
    """One command of qm: its arguments by name, its options, and what it does."""

    run: Callable[[Tree, Words], int]
    arguments: str = "<vmid>"
    known: Collection[str] = ()
    flags: Collection[str] = ()
    takes_keys: bool = False  # every key of a guest's file is an option too


def is_key(name: str) -> bool:
    """Whether this is a key of a guest's file."""
    return name == "description" or kind_of(name) is not None


def read(
    words: Sequence[str],
    *,
    usage: str,
    count: int,
    known: Collection[str] = (),
    flags: Collection[str] = (),
) -> Words:
    """Read the words of one command with `count` arguments. Fault with status 255 and its usage.

    An option of `flags` may stand without a value, and then is 1.
    """
    arguments: list[str] = []
    options: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            arguments.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name not in flags and name not in known:
            raise Fault(f"Unknown option: {name}\n400 unable to parse option\n{usage}")
        if not equals:
            value = _following(name, rest, is_flag=name in flags, usage=usage)
        options[name] = value
    if len(arguments) != count:
        fault = "not enough arguments" if len(arguments) < count else "too many arguments"
        raise Fault(f"400 {fault}\n{usage}")
    return Words(tuple(arguments), options, usage)


def _following(name: str, rest: list[str], *, is_flag: bool, usage: str) -> str:
    if is_flag:
        is_value = bool(rest) and rest[0].lower() in {"0", "1", "on", "off", "yes", "no"}
        return rest.pop(0) if is_value else "1"
    if not rest:
        raise Fault(f"Option {name} requires an argument\n400 unable to parse option\n{usage}")
    return rest.pop(0)
