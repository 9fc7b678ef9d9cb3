"""The settings of a simulated node, kept as JSON in the node itself (etc/pve-sim.json)."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum, StrEnum
from pathlib import Path

from proxmox_cpu_affinity.model.errors import NotPveHostError, SettingError


class GuestKind(StrEnum):
    """What a guest's process is."""

    QEMU = "qemu"
    STANDIN = "standin"  # a small script with the same arguments, files, threads and QMP


class PostStop(IntEnum):
    """Which PVE's way of running the post-stop hook: 9 stands for qemu-server 9.1.13 and later."""

    PVE8 = 8  # by `qm cleanup` alone, after the stop has returned
    PVE9 = 9  # by the stop itself or by `qm cleanup`, whoever comes first, exactly once


@dataclass(frozen=True, slots=True)
class Settings:
    """How a node behaves; times in seconds, memory in MiB."""

    name: str = "pve"
    guest: GuestKind = GuestKind.STANDIN
    post_stop: PostStop = PostStop.PVE9
    memory: int = 16  # what each guest really gets, whatever its configuration says
    qemu_version: tuple[int, int] = (7, 2)  # the installed one, or the one the stand-in plays
    accel: str = ""  # QEMU's accelerator; empty: KVM where it is real, else TCG
    lock_timeout: float = 10.0  # for a guest's configuration lock
    stop_timeout: float = 60.0  # for a stop or shutdown without --timeout
    qmp_timeout: float = 5.0  # for QEMU's answer when it is to stop
    kill_timeout: float = 10.0  # between SIGTERM and SIGKILL of a forced stop
    plug_timeout: float = 6.0  # for a vCPU to come, or to be let go by the guest

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def load(path: Path) -> Settings:
    """The settings of a node. NotPveHostError without the file, SettingError for a damaged one."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise NotPveHostError(f"no simulated node: {path} is missing") from None
    except ValueError as error:
        raise SettingError(f"{path}: {error}") from error
    return _settings(data, path)


def _settings(data: object, path: Path) -> Settings:
    known = asdict(Settings())
    if not isinstance(data, Mapping) or not known.keys() >= data.keys():
        raise SettingError(f"{path}: not the settings of a simulated node")
    values: dict[str, object] = {**known, **data}
    try:
        return Settings(
            name=str(values["name"]),
            guest=GuestKind(str(values["guest"])),
            post_stop=PostStop(int(str(values["post_stop"]))),
            memory=int(str(values["memory"])),
            qemu_version=_version(values["qemu_version"]),
            accel=str(values["accel"]),
            lock_timeout=float(str(values["lock_timeout"])),
            stop_timeout=float(str(values["stop_timeout"])),
            qmp_timeout=float(str(values["qmp_timeout"])),
            kill_timeout=float(str(values["kill_timeout"])),
            plug_timeout=float(str(values["plug_timeout"])),
        )
    except ValueError as error:
        raise SettingError(f"{path}: {error}") from error


def _version(value: object) -> tuple[int, int]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"{value!r} is no version")
    major, minor = value
    return int(str(major)), int(str(minor))
