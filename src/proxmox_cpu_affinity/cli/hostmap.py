"""A host as text: its packages, nodes and cache groups, and who holds which CPU. Pure.

One letter a CPU, the CPUs of a core together:

    package 0  node 0  cache group 0  AA AA .. --

On a terminal the letters have colours as well. Out of scope: latencies; a picture of those is
render.heatmap's.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from string import ascii_letters

from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.ids import NodeId, Vmid
from proxmox_cpu_affinity.model.topology import Topology

FREE, UNUSABLE, SHARED = ".", "-", "*"
LETTERS = "".join(sorted(ascii_letters, key=lambda c: (c.islower(), c)))

_COLOURS = (31, 32, 33, 34, 35, 36, 91, 92, 93, 94, 95, 96)
_DIM, _REVERSED = 2, 7
_SIGNS = {FREE: _DIM, UNUSABLE: _DIM, SHARED: _REVERSED}
_HEAD = re.compile(r"(?:package [0-9]+ +node [0-9]+ +cache group [0-9]+)? +")
_NAMED = re.compile(r"(?<!\S)(\S)(?= [0-9])")


def host_map(
    topology: Topology, held: Mapping[Vmid, CpuSet], usable: CpuSet, *, width: int
) -> list[str]:
    """The lines of the map and its legend; `width` in columns bounds a line where it can. There are
    52 letters; of more guests some have the same, which stand together in the legend."""
    letters = {vmid: LETTERS[i % len(LETTERS)] for i, vmid in enumerate(held)}
    signs = _signs(topology, held, usable, letters)
    lines = level_lines(
        topology, lambda cpus: "".join(signs[cpu] for cpu in cpus), width=width, align=False
    )
    used = set("".join(signs.values()))
    meanings = {FREE: "free", UNUSABLE: "not for guests", SHARED: "several guests"}
    together = sorted(letters.items(), key=lambda one: LETTERS.index(one[1]))
    words = [f"{letter} {vmid}" for vmid, letter in together]
    words += [f"{sign} {meaning}" for sign, meaning in meanings.items() if sign in used]
    return [*lines, "", *legend(words, width)]


def colours(lines: Sequence[str]) -> Iterator[list[tuple[str, int | None]]]:
    """The lines of a map, each as words with the code of their colour, or None."""
    end = lines.index("")
    for line in lines[:end]:
        head = _HEAD.match(line)
        begin = head.end() if head else 0
        yield [(line[:begin], None), *((sign, _colour(sign)) for sign in line[begin:])]
    for line in lines[end:]:
        words = _NAMED.split(line)  # each second one is a guest's letter
        yield [(word, _colour(word) if i % 2 else None) for i, word in enumerate(words)]


def _colour(sign: str) -> int | None:
    if sign in LETTERS:
        return _COLOURS[LETTERS.index(sign) % len(_COLOURS)]
    return _SIGNS.get(sign)


def level_lines(
    topology: Topology, drawn: Callable[[CpuSet], str], *, width: int, align: bool
) -> list[str]:
    """A line, or more where `width` demands it, for each cache group: what it lies in, and its
    cores as drawn. With `align`, all cores are padded to the widest."""
    labels, cores = [], []
    for (package, node, group), here in _levels(topology).items():
        labels.append((f"package {package}", f"node {node}", f"cache group {group}"))
        cores.append([drawn(core & here) for core in topology.cores if core.overlaps(here)])
    sizes = [max(map(len, column)) for column in zip(*labels, strict=True)]
    widest = max(len(core) for words in cores for core in words) if align else 0
    lines = []
    for label, words in zip(labels, cores, strict=True):
        head = "  ".join(part.ljust(size) for part, size in zip(label, sizes, strict=True))
        rows = _wrapped([word.ljust(widest) for word in words], width - len(head) - 2)
        lines.append(f"{head}  {rows[0]}".rstrip())
        lines += [(" " * (len(head) + 2) + row).rstrip() for row in rows[1:]]
    return lines


def _levels(topology: Topology) -> dict[tuple[int, NodeId, int], CpuSet]:
    """The CPUs of each package, node and cache group together, in order."""
    levels: dict[tuple[int, NodeId, int], CpuSet] = {}
    for place in sorted(topology.places, key=lambda p: (p.package, p.node, p.llc)):
        level = (place.package, place.node, place.llc)
        levels[level] = levels.get(level, EMPTY) | CpuSet(1 << place.cpu)
    return levels


def _signs(
    topology: Topology,
    held: Mapping[Vmid, CpuSet],
    usable: CpuSet,
    letters: Mapping[Vmid, str],
) -> dict[int, str]:
    """The sign of each online CPU."""
    signs: dict[int, str] = {cpu: FREE if cpu in usable else UNUSABLE for cpu in topology.online}
    seen = EMPTY
    for vmid, cpus in held.items():
        for cpu in cpus & topology.online:
            signs[cpu] = SHARED if cpu in seen else letters[vmid]
        seen |= cpus
    return signs


def _wrapped(words: Sequence[str], width: int) -> list[str]:
    """Words in rows of equal numbers, so that columns stand below each other."""
    size = max(map(len, words)) + 1
    per_row = max(1, (width + 1) // size)
    if len(words) > per_row >= 4:
        per_row -= per_row % 4
    return [" ".join(words[i : i + per_row]) for i in range(0, len(words), per_row)]


def legend(words: Sequence[str], width: int) -> list[str]:
    """The words, as many on a line as fit."""
    lines = [""]
    for word in words:
        joined = f"{lines[-1]}   {word}" if lines[-1] else word
        if len(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines
