"""How long a decision takes on large hosts that are full (bench/placement.py has the details)."""

from collections.abc import Iterator
from random import Random

from bench import placement
from bench.report import Row

from proxmox_cpu_affinity.model.ids import Vmid

DECISIONS = 100


def decisions() -> Iterator[Row]:
    """CPU time of the deciding thread, the shortest of five runs of each decision."""
    for spec, guests in placement.TIMED:
        host, random = placement.of_spec(spec), Random(1)
        odds = zip(placement.SIZES, placement.ODDS, strict=True)
        sizes = [size for size, many in odds for _ in range(many)]
        run = placement.Run(host, 3 * guests)
        for i in range(guests):
            run.start(Vmid(100 + i), random.choice(sizes))
        run.deciding.clear()
        for i in range(DECISIONS):
            del run.held[random.choice(sorted(run.held))]
            run.start(Vmid(1000 + i), random.choice(sizes), times=placement.AGAIN)
        times = tuple(1e3 * seconds for seconds in run.deciding)
        yield Row(f"decision, {len(host.cpus)} CPUs, {guests} guests", "ms", times)
