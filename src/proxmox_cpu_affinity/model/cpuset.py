"""A set of CPUs as an immutable value; its only text form is the kernel's list form (cpuset(7))."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from proxmox_cpu_affinity.model.errors import SyntaxFault
from proxmox_cpu_affinity.model.ids import Cpu

CPUS_MOST = 8192
"""The most CPUs that Linux can be built for on x86 (CONFIG_NR_CPUS)."""

CPU_LIMIT = 65536
"""CPU numbers from here on are a typing error, not a machine."""


@dataclass(frozen=True, slots=True)
class CpuSet:
    """A set of CPUs, kept as a bit mask: bit n is CPU n. Operations are O(CPUs / 64)."""

    mask: int = 0

    def __post_init__(self) -> None:
        if self.mask < 0:
            raise ValueError("a CPU set has no negative mask")

    @staticmethod
    def of(cpus: Iterable[int]) -> "CpuSet":
        """The set of these CPUs, in any order and number. ValueError for a negative one."""
        mask = 0
        for cpu in cpus:
            mask |= 1 << cpu
        return CpuSet(mask)

    @staticmethod
    def parse(text: str) -> "CpuSet":
        """The set a cpulist spells: `0-3,8`, also with blanks around parts; empty text, empty set.

        Strides (`0-31:2/8`), words and reversed ranges are a SyntaxFault that names the part:
        neither sysfs nor PVE writes them.
        """
        mask = 0
        if not text.strip():
            return CpuSet(0)
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            low = _number(first, part)
            high = _number(last, part) if dash else low
            if high < low:
                raise SyntaxFault(f"CPU range {part.strip()!r} runs backwards")
            mask |= ((1 << (high - low + 1)) - 1) << low
        return CpuSet(mask)

    def __str__(self) -> str:
        return ",".join(
            str(low) if low == high else f"{low}-{high}" for low, high in self._ranges()
        )

    def _ranges(self) -> Iterator[tuple[int, int]]:
        mask, base = self.mask, 0
        while mask:
            skip = (mask & -mask).bit_length() - 1
            mask >>= skip
            run = (~mask & (mask + 1)).bit_length() - 1
            yield base + skip, base + skip + run - 1
            mask >>= run
            base += skip + run

    def __iter__(self) -> Iterator[Cpu]:
        for low, high in self._ranges():
            for cpu in range(low, high + 1):
                yield Cpu(cpu)

    def __len__(self) -> int:
        return self.mask.bit_count()

    def __bool__(self) -> bool:
        return self.mask != 0

    def __contains__(self, cpu: int) -> bool:
        return cpu >= 0 and bool(self.mask >> cpu & 1)

    def __or__(self, other: "CpuSet") -> "CpuSet":
        return CpuSet(self.mask | other.mask)

    def __and__(self, other: "CpuSet") -> "CpuSet":
        return CpuSet(self.mask & other.mask)

    def __sub__(self, other: "CpuSet") -> "CpuSet":
        return CpuSet(self.mask & ~other.mask)

    def __le__(self, other: "CpuSet") -> bool:
        """Whether every CPU of this set is in the other."""
        return not self.mask & ~other.mask

    def overlaps(self, other: "CpuSet") -> bool:
        return bool(self.mask & other.mask)

    def first(self) -> Cpu:
        """The lowest CPU; ValueError for the empty set."""
        if not self.mask:
            raise ValueError("the empty set has no first CPU")
        return Cpu((self.mask & -self.mask).bit_length() - 1)


EMPTY = CpuSet(0)


def _number(text: str, part: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise SyntaxFault(f"{part.strip()!r} is no CPU number or range", hint="write it like 0-3,8")
    number = int(text)
    if number >= CPU_LIMIT:
        raise SyntaxFault(f"CPU number {number} is out of range (below {CPU_LIMIT})")
    return number
