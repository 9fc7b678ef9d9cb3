"""How good and how quick the placing is: the score's gap to its lower bound, on many hosts.

    bench/placement.py [--machines DIR] [--seeds N] [--events N] [--only WORD,WORD] [--quick]

Each host is filled to a share of its CPUs with guests of 1 to 16 vCPUs, then guests stop and others
start; after a stop at most two are moved. The hosts are measured ones from DIR (files as `plan
--json-lines` takes a machine), by default shared/placement/machines beside or inside this
checkout, else generated ones. Times are CPU time of the deciding thread. Out of scope: other
programs' placing.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from proxmox_cpu_affinity.engine.bound import lower_bound
from proxmox_cpu_affinity.engine.facts import Host, Occupancy, Rules, Turn, compile_host
from proxmox_cpu_affinity.engine.place import place
from proxmox_cpu_affinity.engine.rebalance import Move, Question, Ration, search
from proxmox_cpu_affinity.engine.score import total
from proxmox_cpu_affinity.formats.machine import machine
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.latency.predict import predicted
from proxmox_cpu_affinity.model.guest import Request
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.placement import Placement, Weights
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

ROOT: Final = Path(__file__).resolve().parents[1]
SHARES: Final = (0.5, 0.8, 1.0, 1.5, 3.0)
GOALS: Final = (0.9, 1.0, 1.5, 1.6, 1.3)
WORST: Final = 4.0
OFTEN: Final = 0.3
SIZES: Final = (1, 2, 4, 8, 16)
ODDS: Final = (30, 30, 25, 11, 4)
GENERATED: Final = ("1x1x4x2", "1x2x8x2", "1x8x4x2", "2x1x10x2", "2x8x4x1", "1x1x8x2+8e")
STUDY: Final = Weights(smt_own=0.12)
TIMED: Final = (("1x16x4x2", 100), ("2x8x16x2", 400))
QUICK: Final = (0.8, 1.5)
AGAIN: Final = 5


@dataclass(slots=True)
class Run:
    """One life of a host."""

    host: Host
    expected: int
    turn: Turn = field(default_factory=Turn)
    ration: Ration = field(default_factory=Ration)
    held: dict[Vmid, Placement] = field(default_factory=dict)
    events: int = 0
    moves: int = 0
    gaps: list[float] = field(default_factory=list)
    stacked: list[float] = field(default_factory=list)
    deciding: list[float] = field(default_factory=list)
    moving: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)

    @property
    def vcpus(self) -> int:
        return sum(len(p.order) for p in self.held.values())

    def occupancy(self) -> Occupancy:
        return Occupancy(tuple(self.held.values()), self.expected)

    def start(self, vmid: Vmid, vcpus: int, *, times: int = 1) -> None:
        """Place a guest; of several times the shortest counts, as on a core that is quiet."""
        facts, spent = (self.host, self.occupancy(), self.turn, Request(vmid, vcpus)), []
        for _ in range(times):
            begin = time.thread_time()
            decision, self.turn = place(*facts)
            spent.append(time.thread_time() - begin)
        self.deciding.append(min(spent))
        self.held[vmid] = decision.placement
        self.ration = self.ration.earned(1)
        self.events += 1

    def stop(self, vmid: Vmid) -> None:
        del self.held[vmid]
        self.ration = self.ration.earned(1)
        moves = self._searched(Question(self.host, self.occupancy(), self.ration.moves))
        self.ration = self.ration.spent(len(moves))
        for move in moves:
            self.held[move.after.vmid] = move.after
        self.events += 1
        self.moves += len(moves)

    def _searched(self, question: Question) -> tuple[Move, ...]:
        """The moves; what each step of the search takes is kept, for nothing else runs in it."""
        steps, begin, whole = search(question), time.thread_time(), time.thread_time()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                self.moving.append(time.thread_time() - whole)
                found: tuple[Move, ...] = end.value
                return found
            now = time.thread_time()
            self.steps.append(now - begin)
            begin = now

    def look(self) -> None:
        """Score what stands, and count the vCPUs that are on a CPU with more than need be."""
        if not self.held:
            return
        guests = [(len(p.order), p.home) for p in self.held.values()]
        least = lower_bound(self.host, [vcpus for vcpus, _ in guests])
        self.gaps.append(100 * (total(self.host, guests) - least) / self.vcpus)
        ceiling = -(-self.vcpus // len(self.host.usable))
        loads = [sum(cpu in home for _, home in guests) for cpu in self.host.usable]
        self.stacked.append(100 * sum(max(0, x - ceiling) for x in loads) / self.vcpus)


def lived(host: Host, share: float, *, seed: int, events: int) -> Run:
    """Fill a host, then let guests come and go."""
    cpus = len(host.usable)
    random, goal, largest = Random(f"{cpus} {share} {seed}"), share * cpus, max(2, cpus // 2)
    sizes = [s for s, odds in zip(SIZES, ODDS, strict=True) for _ in range(odds) if s <= largest]
    run, vmid = Run(host, int(goal)), 100

    def fill() -> None:
        nonlocal vmid
        missed = 0
        while missed < 6 and run.vcpus < goal:
            vcpus = random.choice(sizes)
            if run.vcpus + vcpus > goal:
                missed += 1
                continue
            missed, vmid = 0, vmid + 1
            run.start(Vmid(vmid), vcpus)

    fill()
    run.look()
    for event in range(events):
        for _ in range(1 if random.random() < 0.6 else 3):
            if run.held:
                run.stop(random.choice(sorted(run.held)))
        if random.random() < 0.8:
            fill()
        if event % 4 == 3:
            run.look()
    return run


def measured(folder: Path, only: Sequence[str]) -> Iterator[tuple[str, Host]]:
    for path in sorted(folder.glob("*.json")):
        if not only or any(word in path.name for word in only):
            told = machine(json.loads(path.read_text()))
            yield path.stem, compile_host(told.topology, told.matrix, Rules(weights=STUDY))


def generated(only: Sequence[str]) -> Iterator[tuple[str, Host]]:
    for spec in GENERATED:
        if not only or any(word in spec for word in only):
            yield spec, of_spec(spec)


def of_spec(spec: str) -> Host:
    made = topology(generate(parse_spec(spec)))
    return compile_host(made, predicted(made), Rules(weights=STUDY))


def weighted(host: Host, *, latency: float, smt: float) -> Host:
    """The same host with other weights."""
    weights = replace(
        STUDY,
        lat_ns=STUDY.lat_ns * latency,
        smt_cross=STUDY.smt_cross * smt,
        smt_own=STUDY.smt_own * smt,
    )
    return compile_host(host.topology, host.matrix, Rules(weights=weights))


Table = Mapping[str, Mapping[float, Sequence[Run]]]


def table(hosts: Mapping[str, Host], shares: Sequence[float], *, seeds: int, events: int) -> Table:
    found: dict[str, dict[float, list[Run]]] = {}
    for name, host in hosts.items():
        found[name] = {
            share: [lived(host, share, seed=seed, events=events) for seed in range(seeds)]
            for share in shares
        }
        if sys.stderr.isatty():
            print(name, file=sys.stderr)
    return found


def gap(runs: Sequence[Run]) -> float:
    return statistics.fmean(statistics.fmean(run.gaps) for run in runs)


def moves_an_event(runs: Sequence[Run]) -> float:
    """Moves an event."""
    return sum(run.moves for run in runs) / sum(run.events for run in runs)


def mean_gaps(found: Table, shares: Sequence[float]) -> list[float]:
    return [statistics.fmean(gap(runs[share]) for runs in found.values()) for share in shares]


def show(found: Table, shares: Sequence[float]) -> None:
    """The table of gaps, in percentage points, with what else must hold."""
    width = max(map(len, found)) + 2
    print(f"{'gap to the bound, points':{width}}" + "".join(f"{s:>8.0%}" for s in shares))
    for name, by_share in found.items():
        print(f"{name:{width}}" + "".join(f"{gap(by_share[s]):8.2f}" for s in shares))
    print(f"{'mean':{width}}" + "".join(f"{g:8.2f}" for g in mean_gaps(found, shares)))
    goals = dict(zip(SHARES, GOALS, strict=True))
    print(f"{'goal':{width}}" + "".join(f"{goals[s]:8.2f}" for s in shares))
    every = {s: [run for by in found.values() for run in by[s]] for s in shares}
    moves = [moves_an_event(runs) for runs in every.values()]
    print(f"{'moves an event':{width}}" + "".join(f"{m:8.2f}" for m in moves))
    often, name = max((moves_an_event(by[s]), name) for name, by in found.items() for s in shares)
    print(f"most moves an event {often:.2f} on {name} (goal {OFTEN})")
    stacked = max(max(run.stacked) for runs in every.values() for run in runs)
    worst = max(gap(by[s]) for by in found.values() for s in shares)
    print(f"largest gap of a host {worst:.2f} (goal {WORST}), avoidable overlap {stacked:.2f} %")


def show_weights(hosts: Mapping[str, Host], shares: Sequence[float], *, events: int) -> None:
    """The mean gaps with other weights: reported only."""
    for words, latency, smt in (
        ("latency weight halved", 0.5, 1.0),
        ("latency weight doubled", 2.0, 1.0),
        ("SMT weights halved", 1.0, 0.5),
        ("SMT weights doubled", 1.0, 2.0),
    ):
        other = {name: weighted(host, latency=latency, smt=smt) for name, host in hosts.items()}
        gaps = mean_gaps(table(other, shares, seeds=1, events=events), shares)
        print(f"{words:26}" + "".join(f"{g:8.2f}" for g in gaps))


def show_times() -> None:
    """CPU time of a decision on large hosts that are as full as they have CPUs."""
    for spec, guests in TIMED:
        host, random = of_spec(spec), Random(1)
        sizes = [s for s, odds in zip(SIZES, ODDS, strict=True) for _ in range(odds)]
        run = Run(host, 3 * guests)
        for i in range(guests):
            run.start(Vmid(100 + i), random.choice(sizes))
        run.deciding.clear()
        for i in range(300):
            del run.held[random.choice(sorted(run.held))]
            run.start(Vmid(1000 + i), random.choice(sizes), times=AGAIN)
        for _ in range(10):
            run.stop(random.choice(sorted(run.held)))
        times, steps = (sorted(1e3 * t for t in one) for one in (run.deciding, run.steps))
        moving = 1e3 * statistics.median(run.moving)
        print(
            f"{len(host.cpus)} CPUs, {guests} guests: a decision p50 {times[150]:.2f} ms, p99 "
            f"{times[297]:.2f} ms (shortest of {AGAIN} each); looking for moves {moving:.0f} ms, "
            f"in steps of {statistics.median(steps):.2f} ms, the longest {steps[-1]:.2f} ms"
        )
    print(f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB at most")


def folder_of(given: str | None) -> Path | None:
    """Where measured machines are, None if nowhere."""
    places = [Path(given)] if given else [ROOT / "shared", ROOT.parent / "shared"]
    if not given:
        places = [place / "placement" / "machines" for place in places]
    return next((place for place in places if place.is_dir()), None)


def main() -> int:
    parser = argparse.ArgumentParser(description="The gap of the placing to its lower bound.")
    parser.add_argument("--machines", metavar="DIR")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--events", type=int, default=16)
    parser.add_argument("--only", default="", metavar="WORD,WORD")
    parser.add_argument("--quick", action="store_true", help="two shares, no other weights")
    options = parser.parse_args()
    only = [word for word in options.only.split(",") if word]
    folder = folder_of(options.machines)
    hosts = dict(measured(folder, only) if folder else generated(only))
    if not hosts:
        print("no such host", file=sys.stderr)
        return 2
    shares = QUICK if options.quick else SHARES
    kind = "measured" if folder else "generated"
    print(f"{len(hosts)} {kind} hosts; Python {platform.python_version()}, load {os.getloadavg()}")
    show(table(hosts, shares, seeds=options.seeds, events=options.events), shares)
    if not options.quick:
        show_weights(hosts, shares, events=options.events)
    show_times()
    return 0


if __name__ == "__main__":
    sys.exit(main())
