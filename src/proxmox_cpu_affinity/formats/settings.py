"""The settings: one table says each one's name, default, what is allowed and where it goes.

The file is /etc/default/proxmox-cpu-affinity, lines of NAME=VALUE as a shell or systemd would read
them (no expansion). The real environment wins. A bad value of a known name is an error that names
line, name and what is allowed; names nobody knows are warned about and have no effect.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.errors import SettingError, SyntaxFault
from proxmox_cpu_affinity.model.guest import Manage
from proxmox_cpu_affinity.model.placement import (
    Fallback,
    Rebalance,
    Strategy,
    Weights,
    Widen,
    Widening,
    Width,
)


class LogLevel(StrEnum):
    """PCA_LOG_LEVEL, least important first."""

    DEBUG = "debug"
    INFO = "info"
    NOTICE = "notice"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force, with their defaults."""

    manage: Manage = Manage.TAG
    strategy: Strategy = Strategy.BALANCED
    reserved: CpuSet = EMPTY
    width: Width = Width.AUTO
    widening: Widening = field(default_factory=Widening)
    rebalance: Rebalance = Rebalance.ADVISE
    dedicated_fallback: Fallback = Fallback.REFUSE
    move_memory: bool = False
    weights: Weights = field(default_factory=Weights)
    rounds: int | None = None  # None: adaptive
    iterations: int | None = None
    measure_share: float = 0.25  # of the cores, that may be busy measuring
    hotplug_watchdog: bool = True
    host: str = "127.0.0.1"
    port: int = 8245  # 0: any free one, written beside the socket
    insecure_allow_remote: bool = False
    socket_file: str | None = None  # a further socket beside the default one
    log_level: LogLevel = LogLevel.INFO
    log_file: str = "/var/log/proxmox-cpu-affinity.log"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. `allowed` completes the sentence: must be ..."""

    name: str
    target: str  # field of Settings; "weights.x" for a field of its weights, "widening.x" likewise
    read: Callable[[str], Any]
    allowed: str


OLD_SOCKETS = ("/var/run/proxmox-cpu-affinity.sock", "/run/proxmox-cpu-affinity.sock")
"""Where the Go project's socket was: in PCA_SOCKET_FILE it is a left-over, not a wish."""

_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


def _boolean(text: str) -> bool:
    if text not in _TRUE + _FALSE:
        raise ValueError(text)
    return text in _TRUE


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError(text)
    return text == "on"


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or not low <= int(text) <= high:
            raise ValueError(text)
        return int(text)

    return read


def _share(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,9})?|\.[0-9]{1,9}", text) or float(text) > 1000:
        raise ValueError(text)
    return float(text)


def _per_cent(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}%", text) or not 1 <= int(text[:-1]) <= 100:
        raise ValueError(text)
    return int(text[:-1]) / 100


def _share_of_time(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?%", text) or not 0 < float(text[:-1]) <= 100:
        raise ValueError(text)
    return float(text[:-1]) / 100


def _absolute(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise ValueError(text)
    return text


def _host(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z.:_-]{1,253}", text):
        raise ValueError(text)
    return text


_BOOLEAN = "one of " + " ".join(_TRUE + _FALSE)
_TIME = "a share of the time such as 2% or 0.5%"
_WEIGHT = "a number from 0 to 1000, such as 0.25"

SETTINGS: tuple[Setting, ...] = (
    Setting("PCA_MANAGE", "manage", Manage, "hook, tag or all"),
    Setting("PCA_STRATEGY", "strategy", Strategy, "balanced or round-robin"),
    Setting("PCA_RESERVED_CPUS", "reserved", CpuSet.parse, "a CPU list such as 0-3,8, or empty"),
    Setting("PCA_WIDTH", "width", Width, "exact, domain or auto"),
    Setting("PCA_WIDEN", "widening.when", Widen, "off or pressure"),
    Setting("PCA_WIDEN_ABOVE", "widening.above", _share_of_time, _TIME),
    Setting("PCA_WIDEN_BELOW", "widening.below", _share_of_time, _TIME),
    Setting("PCA_WIDEN_STAY", "widening.stay", _whole(1, 3600), "whole seconds from 1 to 3600"),
    Setting("PCA_REBALANCE", "rebalance", Rebalance, "off, advise or on"),
    Setting("PCA_DEDICATED_FALLBACK", "dedicated_fallback", Fallback, "refuse or shared"),
    Setting("PCA_MOVE_MEMORY", "move_memory", _switch, "on or off"),
    Setting("PCA_WEIGHT_THREAD", "weights.thread", _share, _WEIGHT),
    Setting("PCA_WEIGHT_SMT_CROSS", "weights.smt_cross", _share, _WEIGHT),
    Setting("PCA_WEIGHT_SMT_OWN", "weights.smt_own", _share, _WEIGHT),
    Setting("PCA_WEIGHT_LAT_NS", "weights.lat_ns", _share, _WEIGHT),
    Setting("PCA_WEIGHT_ECORE", "weights.ecore", _share, _WEIGHT),
    Setting("PCA_ROUNDS", "rounds", _whole(1, 10_000), "a whole number from 1 to 10000"),
    Setting(
        "PCA_ITERATIONS", "iterations", _whole(1, 10_000_000), "a whole number from 1 to 10000000"
    ),
    Setting("PCA_MEASURE_CORES", "measure_share", _per_cent, "a share from 1% to 100%"),
    Setting("PCA_CPU_HOTPLUG_WATCHDOG", "hotplug_watchdog", _boolean, _BOOLEAN),
    Setting("PCA_HOST", "host", _host, "an IP address or a host name"),
    Setting("PCA_PORT", "port", _whole(0, 65535), "a whole number from 0 to 65535"),
    Setting("PCA_INSECURE_ALLOW_REMOTE", "insecure_allow_remote", _boolean, _BOOLEAN),
    Setting("PCA_SOCKET_FILE", "socket_file", _absolute, "an absolute path"),
    Setting("PCA_LOG_LEVEL", "log_level", LogLevel, "debug, info, notice, warn or error"),
    Setting("PCA_LOG_FILE", "log_file", _absolute, "an absolute path"),
)

AT_START = ("host", "port", "insecure_allow_remote", "socket_file", "log_file")
"""Fields that a running service keeps as they are: they take effect when it starts."""

# Not read as settings: how programs and tests are told where things are.
PLACES = ("PCA_ROOT", "PCA_PINGPONG")

# Fields whose default is "unset", which the settings file spells as an empty value.
_UNSET = frozenset({"rounds", "iterations", "socket_file"})

DEAD = (
    "PCA_SOCKET_RETRY",
    "PCA_SOCKET_SLEEP",
    "PCA_SOCKET_TIMEOUT",
    "PCA_SOCKET_PING_ON_PRESTART",
    "PCA_WEBHOOK_RETRY",
    "PCA_WEBHOOK_SLEEP",
    "PCA_WEBHOOK_TIMEOUT",
    "PCA_WEBHOOK_PING_ON_PRESTART",
)
"""Settings of the Go project that have nothing to set here: the hook has one fixed budget."""

_LINE = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")


@dataclass(frozen=True, slots=True)
class Assignment:
    """One NAME=VALUE and where it stands."""

    name: str
    value: str
    where: str


def assignments(text: str, *, file: str) -> tuple[Assignment, ...]:
    """The lines of a settings file. SettingError for a line that is none, naming file and line."""
    found = []
    for number, raw in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise SettingError(
                f"{file}, line {number}: {line[:60]!r} is not NAME=VALUE",
                hint="put a # before it if it is a comment",
            )
        where = f"{file}, line {number}"
        found.append(Assignment(match[1], _unquoted(match[2], where), where))
    return tuple(found)


def _unquoted(text: str, where: str) -> str:
    """The value without its quotes; a comment may follow behind a blank."""
    value = text.strip()
    if value[:1] in ("'", '"'):
        quote = value[0]
        end = value.find(quote, 1)
        rest = value[end + 1 :].strip() if end > 0 else ""
        if end < 0 or (rest and not rest.startswith("#")):
            raise SettingError(f"{where}: the quotes do not match")
        return value[1:end]
    return re.split(r"[ \t]+#", text, maxsplit=1)[0].strip()


def settings(
    text: str, environment: Mapping[str, str], *, file: str
) -> tuple[Settings, tuple[str, ...]]:
    """The settings in force, and warnings. SettingError for a bad value of a known name."""
    given = {a.name: a for a in assignments(text, file=file)}
    for name, value in environment.items():
        if name.startswith("PCA_"):
            given[name] = Assignment(name, value, "environment")
    values: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {"weights": {}, "widening": {}}
    for setting in SETTINGS:
        assignment = given.get(setting.name)
        if assignment is None or (not assignment.value and setting.target in _UNSET):
            continue
        group, _, name = setting.target.rpartition(".")
        (groups[group] if group else values)[name] = _read(setting, assignment)
    if values.get("socket_file") in OLD_SOCKETS:
        del values["socket_file"]
    weights, widening = Weights(**groups["weights"]), Widening(**groups["widening"])
    if widening.below >= widening.above:
        where = (given.get("PCA_WIDEN_BELOW") or given["PCA_WIDEN_ABOVE"]).where
        raise SettingError(f"{where}: PCA_WIDEN_BELOW must be less than PCA_WIDEN_ABOVE")
    return Settings(**values, weights=weights, widening=widening), _warnings(given)


def _read(setting: Setting, assignment: Assignment) -> Any:
    try:
        return setting.read(assignment.value)
    except (ValueError, SyntaxFault):
        raise SettingError(
            f"{assignment.where}: {setting.name}={assignment.value[:60]!r} must be "
            f"{setting.allowed}"
        ) from None


def _warnings(given: Mapping[str, Assignment]) -> tuple[str, ...]:
    known = {setting.name for setting in SETTINGS}
    lines = []
    for name, assignment in sorted(given.items()):
        if name == "PCA_SOCKET_FILE" and assignment.value in OLD_SOCKETS:
            lines.append(f"{assignment.where}: {name} names the Go project's socket: ignored")
        elif name in known or name in PLACES:
            continue
        elif name in DEAD:
            lines.append(f"{assignment.where}: {name} has no meaning any more: ignored")
        else:
            lines.append(f"{assignment.where}: unknown setting {name}: ignored")
    return tuple(lines)
