"""Measures known machines again through a simulated measuring program, and compares the blocks.

    .venv/bin/python bench/remeasure.py FILE.json ...

A file has {"name", "lat": [[ns]], "cpus": [{"cpu", "core", "l3", "node", "socket"}]}. The real
schedule, sampling, judging and filling run; only the lines' way is made up, with noise and
outliers (simulated_pingpong.py). Printed for each machine: the verdict, the largest error of a
block's median, coarse and whole, how many pairs of blocks changed their order although they differ
by more than a tenth, and how many contradictions to the topology were found.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median

from proxmox_cpu_affinity.formats.sysfiles import CPU_DIR, NODE_DIR
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.latency.judge import judged
from proxmox_cpu_affinity.latency.predict import Step, steps
from proxmox_cpu_affinity.latency.probe import measure
from proxmox_cpu_affinity.latency.protocol import ADAPTIVE
from proxmox_cpu_affinity.latency.schedule import COARSE, Round, cores_at_once, rounds
from proxmox_cpu_affinity.model.latency import LatencyMatrix
from proxmox_cpu_affinity.model.topology import Topology

Block = tuple[Step, int, int]
Rows = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a machine came out."""

    verdict: str
    coarse: float  # largest relative error of a block's median after the coarse rounds
    whole: float  # ... after all
    swapped: int  # pairs of blocks in another order
    contradictions: int


def files_of(cpus: Sequence[dict[str, object]]) -> dict[str, str]:
    """What sysfs would show of these CPUs."""
    numbers = [int(str(cpu["cpu"])) for cpu in cpus]
    files = {f"{CPU_DIR}/{name}": _list(numbers) for name in ("online", "possible", "present")}
    for cpu in cpus:
        folder = f"{CPU_DIR}/cpu{cpu['cpu']}"
        for name, key in (("core_cpus_list", "core"), ("package_cpus_list", "socket")):
            files[f"{folder}/topology/{name}"] = _alike(cpus, cpu, key)
        files[f"{folder}/topology/physical_package_id"] = str(cpu["socket"])
        files[f"{folder}/topology/core_id"] = str(cpu["core"])
        files[f"{folder}/cache/index3/level"] = "3"
        files[f"{folder}/cache/index3/type"] = "Unified"
        files[f"{folder}/cache/index3/shared_cpu_list"] = _alike(cpus, cpu, "l3")
    for node in {str(cpu["node"]) for cpu in cpus}:
        own = [int(str(cpu["cpu"])) for cpu in cpus if str(cpu["node"]) == node]
        files[f"{NODE_DIR}/node{node}/cpulist"] = _list(own)
    return files


def _alike(cpus: Sequence[dict[str, object]], cpu: dict[str, object], key: str) -> str:
    return _list(int(str(other["cpu"])) for other in cpus if other[key] == cpu[key])


def _list(numbers: Iterable[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


def remeasured(
    host: Topology, rows: Rows, folder: Path, *, coarse: bool, seed: int = 1, noise: float = 0.02
) -> LatencyMatrix:
    """The host's matrix, measured through the simulated program."""
    truth = {"ns": rows, "cpus": list(host.online), "seed": seed, "noise": noise}
    (folder / "truth.json").write_text(json.dumps(truth))
    program = folder / "pingpong"
    simulated = Path(__file__).with_name("simulated_pingpong.py")
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {simulated} "{folder}/truth.json"\n')
    program.chmod(0o755)
    plan: Sequence[Round] = rounds(host.online, host, cores=cores_at_once(host, 0.25))
    if coarse:
        plan = [each for each in plan if each.stage <= COARSE]
    run = asyncio.run(measure(plan, ADAPTIVE, program=program))
    return judged(host, run, ADAPTIVE)


def blocks(host: Topology, rows: Rows) -> dict[Block, float]:
    """The median of each block: of the same step, between the same cache groups."""
    found: dict[Block, list[float]] = {}
    for i, j, step in steps(host, host.places):
        low, high = sorted((host.places[i].llc, host.places[j].llc))
        found.setdefault((step, low, high), []).append(rows[i][j])
    return {block: median(values) for block, values in found.items()}


def compared(host: Topology, rows: Rows, folder: Path, **how: float) -> Outcome:
    """Measure a host twice, coarse and whole, and compare with what is known."""
    truth = blocks(host, rows)
    seed, noise = int(how.get("seed", 1)), how.get("noise", 0.02)
    found = {}
    for coarse in (True, False):
        matrix = remeasured(host, rows, folder, coarse=coarse, seed=seed, noise=noise)
        count = len(matrix.cpus)
        lines = [matrix.ns[i * count : (i + 1) * count] for i in range(count)]
        found[coarse] = blocks(host, lines)
    errors = {c: max((abs(found[c][b] / truth[b] - 1) for b in truth), default=0) for c in found}
    swapped = sum(
        (truth[a] < truth[b]) != (found[False][a] < found[False][b])
        for a, b in combinations(truth, 2)
        if not 1 / 1.1 <= truth[a] / truth[b] <= 1.1
    )
    said = sum("contradicted" in condition for condition in matrix.conditions)
    return Outcome(str(matrix.verdict), errors[True], errors[False], swapped, said)


def main() -> None:
    """Print a row for each machine."""
    print(f"{'machine':60} {'verdict':9} {'coarse':>7} {'whole':>7} swapped contradicted")
    for name in sys.argv[1:]:
        machine = json.loads(Path(name).read_text())
        host = topology(files_of(machine["cpus"]))
        with tempfile.TemporaryDirectory() as folder:
            got = compared(host, machine["lat"], Path(folder))
        print(
            f"{machine['name'][:60]:60} {got.verdict:9} {got.coarse:7.1%} {got.whole:7.1%} "
            f"{got.swapped:7} {got.contradictions:7}"
        )


if __name__ == "__main__":
    main()
