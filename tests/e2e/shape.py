"""The processors a guest is given: packages x cache groups x cores x threads, and NUMA nodes.

QEMU and the kernel number the CPUs in that order, threads of a core side by side. In QEMU's words
a cache group is a die: the L3 of an emulated Intel CPU is shared by a die.
"""

from collections.abc import Iterator
from dataclasses import dataclass

NODE_MIB = 768
FAR, NEAR, LOCAL = 32, 12, 10  # distances of nodes: another package, the same one, itself


@dataclass(frozen=True, slots=True)
class Shape:
    """Numbers of each in the next larger, nodes in all; a node is a number of whole groups."""

    packages: int
    groups: int  # in a package
    cores: int  # in a group
    threads: int  # of a core
    nodes: int = 2

    def __post_init__(self) -> None:
        if min(self.packages, self.groups, self.cores, self.threads, self.nodes) < 1:
            raise ValueError("every number of a shape is at least 1")
        if self.packages * self.groups % self.nodes:
            raise ValueError("a node must hold whole cache groups")

    @staticmethod
    def parse(text: str) -> "Shape":
        """The shape that `2x2x1x2` spells, with two nodes. ValueError."""
        packages, groups, cores, threads = map(int, text.split("x"))
        return Shape(packages, groups, cores, threads)

    def __str__(self) -> str:
        return f"{self.packages}x{self.groups}x{self.cores}x{self.threads}"

    @property
    def cpus(self) -> int:
        return self.packages * self.groups * self.cores * self.threads

    def slices(self, parts: int) -> list[set[int]]:
        """The CPUs in equal parts, in their order."""
        size = self.cpus // parts
        return [set(range(first, first + size)) for first in range(0, self.cpus, size)]

    def node_of(self, group: int) -> int:
        """The node of a cache group, counted over all packages."""
        return group * self.nodes // (self.packages * self.groups)

    def distance(self, one: int, other: int) -> int:
        """Between two nodes, by whether their first cache groups are of one package."""
        if one == other:
            return LOCAL
        each = self.packages * self.groups // self.nodes
        same = one * each // self.groups == other * each // self.groups
        return NEAR if same else FAR

    def for_qemu(self, plugged: int) -> Iterator[str]:
        """QEMU's arguments; CPUs beyond `plugged` are free slots at first."""
        yield from ("-m", str(NODE_MIB * self.nodes), "-smp")
        yield (
            f"cpus={plugged},maxcpus={self.cpus},sockets={self.packages},dies={self.groups},"
            f"cores={self.cores},threads={self.threads}"
        )
        for node in range(self.nodes):
            yield from ("-object", f"memory-backend-ram,id=memory{node},size={NODE_MIB}M")
            yield from ("-numa", f"node,nodeid={node},memdev=memory{node}")
        for group in range(self.packages * self.groups):
            package, die = divmod(group, self.groups)
            place = f"socket-id={package}" + (f",die-id={die}" if self.groups > 1 else "")
            yield from ("-numa", f"cpu,node-id={self.node_of(group)},{place}")
        for one in range(self.nodes):
            for other in range(self.nodes):
                if one != other:
                    value = self.distance(one, other)
                    yield from ("-numa", f"dist,src={one},dst={other},val={value}")
