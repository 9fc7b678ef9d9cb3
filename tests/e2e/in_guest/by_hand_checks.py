"""What takes too long for every run: real QEMU, and figures, as ratios within one run."""

import os
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial

from tests.e2e.in_guest import kernel, node
from tests.e2e.promises import by_hand, shows

QEMU = "/usr/bin/qemu-system-x86_64"
UNMANAGED = {"hookscript": ""}
TIMES = 10


def tell(line: str) -> None:
    """A line for the report: not the runner's JSON, so it is told as it is."""
    os.write(1, f"{line}\n".encode())


def allow(vmid: int, cpus: str) -> None:
    node.run("systemctl", "set-property", "--runtime", f"{vmid}.scope", f"AllowedCPUs={cpus}")


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


@by_hand
@shows(1, 2)
def check_two_real_qemus() -> None:
    node.ready()
    os.environ["E2E_QEMU"] = QEMU
    try:
        for vmid in (100, 101):
            said = node.fresh(vmid, vcpus=2)
            assert "threads read back" in said, said
            masks = kernel.masks(vmid)
            assert sum("/TCG" in name for name in masks) == 2, masks
            assert len(kernel.held(vmid)) == 2 == len(kernel.limit(vmid) or ())
            assert node.guest(vmid)["held_since"] == "first instruction"
        assert kernel.held(100).isdisjoint(kernel.held(101))
        node.no_guests()
        node.fresh(100, vcpus=2, keys={"tags": "cpu-pinned"})
        own = [mask for name, mask in kernel.masks(100).items() if "/TCG" in name]
        assert sorted(map(len, own)) == [1, 1], kernel.masks(100)
        node.no_guests()
    finally:
        del os.environ["E2E_QEMU"]


def unconfined(vmid: int) -> float:
    """How long a guest without hook and drop-in has run until its scope had its limit."""
    times: list[float] = []

    def watch() -> None:
        procs = kernel.folder(vmid) / "cgroup.procs"
        while not (procs.exists() and procs.read_text()):
            time.sleep(0.001)
        times.append(time.monotonic())
        while kernel.limit(vmid) is None:
            time.sleep(0.001)
        times.append(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    node.fresh(vmid, keys={"hookscript": "", "tags": "cpu-affinity"})
    watcher.join(node.PATIENCE)
    return times[1] - times[0]


@by_hand
@shows()
def check_times_as_multiples_of_a_bare_set_property() -> None:
    node.ready()
    node.fresh(100, keys=UNMANAGED)
    bare = statistics.median(seconds(partial(allow, 100, str(n % 4))) for n in range(TIMES))
    late = statistics.median(unconfined(vmid) for vmid in range(200, 200 + TIMES))
    node.no_guests()
    node.configure(300)
    hooks = []
    for _ in range(TIMES):
        hooks.append(seconds(lambda: node.hook(300, "pre-start")))
        node.hook(300, "post-stop")
    tell(f"one bare systemctl set-property: {1000 * bare:.0f} ms (median of {TIMES}), 1.00")
    tell(f"a scope's first process until the limit, without a drop-in: {late / bare:.2f}")
    tell("... with the drop-in: 0, it is there before the process")
    tell(f"pre-start hook: {statistics.median(hooks) / bare:.2f}")


@by_hand
@shows(7)
def check_io_threads_on_the_vcpus_cpu_against_the_whole_group() -> None:
    """The work that a guest of one vCPU gets done: on one CPU with its I/O threads, and with these
    in the whole cache group. In turn, so that whatever else the machine does meets both."""
    node.ready()
    for burners in (0, 1, 2):
        node.fresh(100, keys={"hookscript": "", "args": f"-load {burners}"})
        cpu = max(kernel.online())
        group = kernel.cache_group(cpu)
        vcpu = next(name.split()[0] for name in kernel.masks(100) if "CPU 0/KVM" in name)
        done: dict[str, list[int]] = {"one CPU": [], "group": []}
        for _ in range(TIMES):
            for layout, cpus in (("one CPU", {cpu}), ("group", group)):
                allow(100, " ".join(map(str, sorted(cpus))))
                node.run("taskset", "-p", "-c", str(cpu), vcpu)
                before = kernel.rounds(100)
                time.sleep(2)
                done[layout].append(kernel.rounds(100) - before)
        shared, free = (statistics.median(done[name]) for name in ("one CPU", "group"))
        tell(
            f"{burners} busy I/O threads: on the vCPU's CPU {shared:.0f} rounds, free in its group"
            f" of {len(group)} CPUs {free:.0f}: {free / shared:.2f} times the work"
        )
        node.no_guests()
