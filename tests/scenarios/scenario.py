"""What a scenario's files say: the host, settings and events of scenario.json; the words of
expected.txt. Out of scope: playing it (story)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxmox_cpu_affinity.engine.trace import Decision
from proxmox_cpu_affinity.formats import snapshot, sysfs
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Confined
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

HOSTS = Path(__file__).parents[1] / "hosts"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What scenario.json says: a host (spec or the name of a snapshot), settings, files, events."""

    host: str
    settings: Mapping[str, str]
    guests: Mapping[Vmid, Sequence[str]]
    events: Sequence[str]


def read(text: str) -> Scenario:
    whole = json.loads(text)
    unknown = set(whole) - {"host", "settings", "guests", "events"}
    if unknown:
        raise ValueError(f"a scenario has no {sorted(unknown)}")
    return Scenario(
        host=str(whole["host"]),
        settings={str(name): str(value) for name, value in whole.get("settings", {}).items()},
        guests={
            Vmid(int(v)): [str(line) for line in lines] for v, lines in whole["guests"].items()
        },
        events=[str(line) for line in whole["events"]],
    )


def topology(host: str) -> Topology:
    file = HOSTS / f"{host}.json"
    files = snapshot.parse(file.read_text()).files if file.exists() else generate(parse_spec(host))
    return sysfs.topology(files)


def decided_words(decision: Decision) -> str:
    placement = decision.placement
    warnings = "".join(f"; warns: {warning}" for warning in placement.warnings)
    others = len(decision.candidates)
    return (
        f"{placement.vmid}: CPUs {placement.home} from CPU {placement.start}, "
        f"{others} {'candidate' if others == 1 else 'candidates'}, {decision.reason}{warnings}"
    )


def confined_words(confined: Confined) -> str:
    faults = "".join(f"; {fault.name}: {fault.reason}" for fault in confined.faults)
    return (
        f"{confined.process.vmid} to CPUs {confined.wanted}: {confined.outcome}, "
        f"{confined.threads} threads{faults}"
    )
