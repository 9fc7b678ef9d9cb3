"""What the kernel says: CPUs, guests' threads and their masks, the cpusets of their scopes.

Parsers of the tests' own: nothing here is the program under test.
"""

import os
import re
import signal
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GUESTS = Path("/run/qemu-server")
CPUS = Path("/sys/devices/system/cpu")
SLICE = Path("/sys/fs/cgroup/qemu.slice")


def cpus_of(text: str) -> set[int]:
    """A cpulist, read by a parser of the tests' own."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found


def online() -> set[int]:
    return cpus_of((CPUS / "online").read_text())


def siblings(cpu: int) -> set[int]:
    """The CPUs of its core, itself included."""
    return cpus_of((CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text())


def cache_group(cpu: int) -> set[int]:
    """The CPUs that share its L3."""
    return cpus_of((CPUS / f"cpu{cpu}/cache/index3/shared_cpu_list").read_text())


def pid(vmid: int) -> int:
    return int((GUESTS / f"{vmid}.pid").read_text())


def masks(vmid: int) -> dict[str, set[int]]:
    """What every thread in a guest's scope may use: TID and name to CPUs, of those that are online
    (a mask that was never narrowed has all that are possible)."""
    found, there = {}, online()
    for tid in (folder(vmid) / "cgroup.threads").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            lines = Path(f"/proc/{tid}/status").read_text().splitlines()
            fields = dict(line.split(":", 1) for line in lines if ":" in line)
            found[f"{tid} {fields['Name'].strip()}"] = cpus_of(fields["Cpus_allowed_list"]) & there
    assert found, f"no thread is in the scope of {vmid}"
    return found


def held(vmid: int) -> set[int]:
    """The CPUs that all threads of a guest are held on; they must be the same for each."""
    different = {frozenset(mask) for mask in masks(vmid).values()}
    assert len(different) == 1, f"guest {vmid}: {masks(vmid)}"
    return set(different.pop())


def folder(vmid: int) -> Path:
    """The control group in which systemd keeps a guest."""
    return SLICE / f"{vmid}.scope"


def limit(vmid: int) -> set[int] | None:
    """The CPUs to which a guest's scope is limited; None where it is not."""
    file = folder(vmid) / "cpuset.cpus"
    text = file.read_text().strip() if file.exists() else ""
    return cpus_of(text) if text else None


def unlimited(vmid: int) -> bool:
    """Whether a guest's scope may use every CPU that there may ever be."""
    found = limit(vmid)
    possible = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return found is None or found == cpus_of(possible)


def effective(vmid: int) -> set[int] | None:
    """What of its limit the kernel gives to a guest's scope; None where there is no limit."""
    if limit(vmid) is None:
        return None
    return cpus_of((folder(vmid) / "cpuset.cpus.effective").read_text())


def keeps_masks() -> bool:
    """Whether threads' masks outlive a change of their cpuset: since Linux 6.2."""
    major, minor = (int(number) for number in os.uname().release.split(".")[:2])
    return (major, minor) >= (6, 2)


def scope(vmid: int) -> str:
    """The control group of a guest."""
    return Path(f"/proc/{pid(vmid)}/cgroup").read_text().strip().rpartition(":")[2]


def began_on(vmid: int) -> set[int]:
    """What a guest's process was allowed at its first instruction."""
    (mask,) = struct.unpack("Q", (GUESTS / f"{vmid}.record").read_bytes()[:8])
    return {cpu for cpu in range(64) if mask >> cpu & 1}


def ran_on(vmid: int) -> set[int]:
    """Where the guest's threads have run since they began or `forget_where` was called."""
    record = (GUESTS / f"{vmid}.record").read_bytes()
    everything = 0
    for (mask,) in struct.iter_unpack("Q", record[8:-8]):
        everything |= mask
    return {cpu for cpu in range(64) if everything >> cpu & 1}


def rounds(vmid: int) -> int:
    """How many rounds of its load a guest has done."""
    (count,) = struct.unpack("Q", (GUESTS / f"{vmid}.record").read_bytes()[-8:])
    return int(count)


def forget_where(vmid: int) -> None:
    """Begin anew to note where a guest runs."""
    with (GUESTS / f"{vmid}.record").open("r+b") as record:
        size = record.seek(0, os.SEEK_END)
        record.seek(8)
        record.write(bytes(size - 16))


def grow(vmid: int) -> None:
    """Have a guest start one thread and one child more, and let them run."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        os.kill(pid(vmid), number)
    names = " ".join(masks(vmid))
    deadline = time.monotonic() + 60
    while not ("worker" in names and "helper" in names):
        assert time.monotonic() < deadline, f"neither thread nor child came: {names}"
        time.sleep(0.1)
        names = " ".join(masks(vmid))


@contextmanager
def container(vmid: int, cpus: set[int]) -> Iterator[Path]:
    """A container as far as the kernel knows one: a control group with CPUs (pve-container)."""
    root = Path("/sys/fs/cgroup")
    (root / "cgroup.subtree_control").write_text("+cpuset")
    (root / "lxc").mkdir(exist_ok=True)
    (root / "lxc/cgroup.subtree_control").write_text("+cpuset")
    group = root / f"lxc/{vmid}"
    group.mkdir()
    try:
        file = group / "cpuset.cpus"
        file.write_text(",".join(map(str, sorted(cpus))))
        yield file
    finally:
        group.rmdir()


def node_cpus(number: int) -> set[int]:
    """The CPUs of a NUMA node."""
    return cpus_of(Path(f"/sys/devices/system/node/node{number}/cpulist").read_text())


def node_share(vmid: int, number: int) -> float:
    """What part of a guest's own memory is on a NUMA node: numa_maps, proc_pid_numa_maps(5)."""
    pages = Counter[str]()
    for line in Path(f"/proc/{pid(vmid)}/numa_maps").read_text().splitlines():
        if " anon=" in line:
            parts = (word.partition("=") for word in line.split() if re.match(r"N\d+=", word))
            pages.update({name: int(count) for name, _, count in parts})
    return pages[f"N{number}"] / max(1, pages.total())
