"""The latency matrix as a picture: SVG text made from the topology, the matrix, the guests' CPUs.

Colours are presentation attributes, so the picture is whole also where a content security policy
forbids styles; its one style element only adds a dark variant. Where cells lie is grid's business,
which colour they have scale's.
"""

from collections.abc import Iterable, Iterator, Mapping
from html import escape

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.model.ids import Vmid
from proxmox_cpu_affinity.model.latency import ONLY_PREDICTED, LatencyMatrix, Method, Verdict
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.render.grid import CHAR_WIDTH, ROOMY, Block, Grid
from proxmox_cpu_affinity.render.scale import Scale, colour, is_dark, stops
from proxmox_cpu_affinity.render.words import counted

TOOLTIPS_MAX = 48
"""Up to so many CPUs every cell has a tooltip; above, each colour has one."""

_PAD = 24
_STRIP = 12  # px across the guests' strip
_BAR = 300  # px of the scale
_LEGEND_CHAR = 7.2  # px of a character, fonts differ
_INK, _SOFT = 'class="t" fill="#1d2326"', 'class="s" fill="#545b5f"'
_DARK = (
    "@media (prefers-color-scheme: dark){.b{fill:#15191c}.t{fill:#ece9e4}.s{fill:#b3aea6}"
    ".d{fill:#2b3136}.l{stroke:#6d757c}}"
)
# Okabe and Ito's palette without black and yellow, then lighter and darker ones of its hues.
_GUESTS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"),
    *("#003f63", "#8a5f00", "#7fd0b8", "#7a2f58", "#b9def5", "#f2a97c"),
)
_METHODS = {
    Method.CAS: "one way, compare-exchange on one line",
    Method.RW: "one way, a writer and a reader on two lines",
    Method.MSG: "one-way messages",
}


def heatmap_svg(
    topology: Topology,
    matrix: LatencyMatrix,
    *,
    affinity: Mapping[Vmid, CpuSet] | None = None,
    bare: bool = False,
) -> str:
    """A whole SVG document: title, figures, scale, cells, and the guests' CPUs if given. A `bare`
    one has no style element, for pages whose policy forbids it: their own style has _DARK's rules.

    Latencies are in ns one way. CPUs of the matrix that are not online come last. O(n²); about
    100 KB for 128 CPUs, less than 3 MB for 512.
    """
    grid = Grid.over(topology, matrix.cpus)
    blocks = grid.blocks(topology)
    scale = Scale.over(_pairs(matrix))
    title = topology.model_name or "Latencies between CPUs"
    lines = _lines(topology, matrix)
    beside = 6 if affinity is None else 10 + _STRIP  # px from the cells to their labels
    away = (beside + grid.label_width + 6, beside + grid.font + 5)  # ... to the blocks' marks
    zoom = grid.zoom
    marks = int(18 * zoom) if blocks else 0
    head = 60 + 18 * len(lines)
    left, top = _PAD + away[0] + marks, int((head + 40) * zoom) + away[1] + marks
    texts = (10.5 * len(title), *(6.9 * len(line) for line in lines), _BAR + 150)
    width = int(max(left + grid.size + _PAD, zoom * (2 * _PAD + max(texts))))
    below = top + grid.size + int(_PAD * zoom)
    legend, legend_height = _legend(affinity, int(width / zoom) - 2 * _PAD)
    height = below + int(legend_height * zoom)
    size = f'width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-size="12"',
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape('. '.join([*lines, *_conditions(matrix)]))}</desc>",
        *(() if bare else (f"<style>{_DARK}</style>",)),
        *_definitions(),
        f'<rect class="b" {size} rx="8" fill="#fcfcfa"/>',
        f'<g transform="scale({zoom:g})">',
        *_head(title, lines),
        *(_scale_bar(scale, head, hatched=_is_mixed(matrix)) if len(grid.cpus) > 1 else ()),
        "</g>",
        f'<g id="pca-cells" transform="translate({left} {top})" {_where(grid)}>',
        *_cells(grid, matrix, scale),
        *_labels(grid, beside),
        *_marks(blocks, *away, font=round(11 * zoom, 1)),
        *_strips(grid, affinity or {}),
        "</g>",
        f'<g transform="translate({int(_PAD * zoom)} {below}) scale({zoom:g})">',
        *legend,
        "</g>",
        "</svg>\n",
    ]
    return "\n".join(parts)


def _where(grid: Grid) -> str:
    """For who wants to know what lies under a pointer: the CPUs in their order, the px at which the
    row and the column of each begin, and the px of a cell."""
    cpus, at = (" ".join(map(str, values)) for values in (grid.cpus, grid.at))
    return f'data-cpus="{cpus}" data-at="{at}" data-cell="{grid.cell}"'


def _pairs(matrix: LatencyMatrix) -> list[float]:
    count = len(matrix.cpus)
    return [ns for i in range(count) for ns in matrix.ns[i * count + i + 1 : (i + 1) * count]]


def _is_mixed(matrix: LatencyMatrix) -> bool:
    """Whether some cells are measured and some predicted."""
    return 0 < matrix.share_measured() < 1


def _lines(topology: Topology, matrix: LatencyMatrix) -> list[str]:
    """What is written below the title."""
    figures = matrix.summary()
    share = matrix.share_measured()
    how = _METHODS[matrix.method] if share else "predicted from the topology, not measured"
    if _is_mixed(matrix):
        how += f" | {min(99, max(1, round(100 * (1 - share))))} % predicted (hatched)"
    if matrix.verdict is Verdict.UNSTABLE:
        how += " | unstable: the host was busy"
    span = (
        f"min {figures.low:.1f} ns | max {figures.high:.1f} ns | "
        f"median {figures.median:.1f} ns | mean {figures.mean:.1f} ns"
    )
    counts = f"{counted(len(topology.packages), 'Socket')} | {counted(figures.cpus, 'CPU')}"
    virtual = ["on a virtual machine, where latencies mean little"] if topology.virtual else []
    return [counts, span, how, *virtual]


def _conditions(matrix: LatencyMatrix) -> list[str]:
    """What the lines do not say already."""
    return [text for text in matrix.conditions if text != ONLY_PREDICTED]


def _definitions() -> Iterator[str]:
    colours = stops()
    yield '<defs><linearGradient id="pca-ramp">'
    for i, each in enumerate(colours):
        yield f'<stop offset="{i / (len(colours) - 1):g}" stop-color="{each}"/>'
    yield "</linearGradient>"
    yield (
        '<pattern id="pca-hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><path d="M1 0v6" stroke="#fff" stroke-width="1.2" '
        'stroke-opacity=".5"/><path d="M2.2 0v6" stroke="#000" stroke-width="1.2" '
        'stroke-opacity=".35"/></pattern></defs>'
    )


def _head(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield (
        f'<text {_INK} x="{_PAD}" y="38" font-size="18" font-weight="600">{escape(title)}</text>'
    )
    for i, line in enumerate(lines):
        yield f'<text {_SOFT} x="{_PAD}" y="{60 + 18 * i}">{escape(line)}</text>'


def _scale_bar(scale: Scale, top: int, *, hatched: bool) -> Iterator[str]:
    flat = scale.low == scale.high
    wide, fill = (20, colour(0)) if flat else (_BAR, "url(#pca-ramp)")
    yield f'<rect x="{_PAD}" y="{top}" width="{wide}" height="10" fill="{fill}"/>'
    shares = (0.0,) if flat else (0.0, 0.25, 0.5, 0.75, 1.0)
    ticks = {_short(scale.at(share)): share for share in shares}  # of equal ones the last
    for text, share in ticks.items():
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        more = "≥ " if share == 1 and scale.clipped else ""
        yield (
            f'<text {_SOFT} x="{_PAD + _BAR * share:g}" y="{top + 24}" font-size="11" '
            f'text-anchor="{anchor}">{more}{text}</text>'
        )
    x = _PAD + wide + 8
    yield f'<text {_SOFT} x="{x}" y="{top + 9}">ns</text>'
    if hatched:
        yield f'<rect x="{x + 30}" y="{top}" width="20" height="10" fill="url(#pca-hatch)"/>'
        yield f'<text {_SOFT} x="{x + 56}" y="{top + 9}">predicted</text>'


def _short(ns: float) -> str:
    if ns >= 10000:
        return f"{ns / 1000:.0f}k"
    return f"{ns:.0f}" if ns >= 99.95 else f"{ns:.1f}"


def _cells(grid: Grid, matrix: LatencyMatrix, scale: Scale) -> Iterator[str]:
    count = len(grid.cpus)
    diagonal = "".join(f"M{at} {at}h{grid.cell}v{grid.cell}h-{grid.cell}z" for at in grid.at)
    yield f'<path class="d" d="{diagonal}" fill="#e7e7e2"/>'
    cells = [[row * count + column for column in grid.rows] for row in grid.rows]
    edges = scale.edges()
    levels = [scale.levels([matrix.ns[cell] for cell in row], edges) for row in cells]
    if count <= TOOLTIPS_MAX:
        yield from _single_cells(grid, matrix, levels)
    # A matrix is symmetrical: one half is drawn, and once more mirrored at the diagonal.
    yield f'<g id="pca-half" transform="translate(0 {grid.cell / 2:g})" stroke-width="{grid.cell}">'
    if count > TOOLTIPS_MAX:
        edges = [scale.low, *edges, scale.high]
        for level, path in sorted(grid.runs(levels).items()):
            said = f"{_short(edges[level])} to {_short(edges[level + 1])} ns"
            yield f'<path d="{path}" stroke="{colour(level)}"><title>{said}</title></path>'
    if _is_mixed(matrix):
        missing = [[1 - matrix.measured[cell] for cell in row] for row in cells]
        yield (
            f'<path d="{grid.runs(missing).get(1, "")}" stroke="url(#pca-hatch)" '
            'pointer-events="none"/>'
        )
    yield '</g><use href="#pca-half" transform="matrix(0 1 1 0 0 0)"/>'
    if count <= ROOMY:
        yield from _values(grid, matrix, levels)


def _single_cells(grid: Grid, matrix: LatencyMatrix, levels: list[list[int]]) -> Iterator[str]:
    count = len(grid.cpus)
    size = f'width="{grid.cell}" height="{grid.cell}"'
    for i, first in enumerate(grid.cpus):
        for j, second in enumerate(grid.cpus):
            cell = grid.rows[i] * count + grid.rows[j]
            if i != j:
                more = "" if matrix.measured[cell] else ", predicted"
                yield (
                    f'<rect x="{grid.at[j]}" y="{grid.at[i]}" {size} fill="{colour(levels[i][j])}">'
                    f"<title>CPU {first}, CPU {second}: {matrix.ns[cell]:.1f} ns{more}</title>"
                    "</rect>"
                )


def _values(grid: Grid, matrix: LatencyMatrix, levels: list[list[int]]) -> Iterator[str]:
    count, half = len(grid.cpus), grid.cell / 2
    font = min(13.0, grid.cell * 0.37)
    texts: dict[bool, list[str]] = {True: [], False: []}
    for i, row in enumerate(grid.rows):
        for j, column in enumerate(grid.rows):
            if i != j:
                ns = matrix.ns[row * count + column]
                said = f"{ns:.0f}" if grid.cell < 40 and 10 <= ns < 10000 else _short(ns)
                x, y = grid.at[j] + half, grid.at[i] + half + font * 0.36
                texts[is_dark(levels[i][j])].append(f'<text x="{x:g}" y="{y:g}">{said}</text>')
    for dark, made in texts.items():
        ink = "#fff" if dark else "#000"
        yield f'<g fill="{ink}" font-size="{font:g}" text-anchor="middle" pointer-events="none">'
        yield from made
        yield "</g>"


def _labels(grid: Grid, beside: int) -> Iterator[str]:
    middle = grid.cell / 2
    for anchor in ("middle", "end"):
        yield f'<g {_INK} font-size="{grid.font}" text-anchor="{anchor}">'
        for i in grid.labelled():
            along = grid.at[i] + middle
            if anchor == "middle":
                x, y = along, -beside + 1.0
            else:
                x, y = -beside, along + grid.font * 0.36
            yield f'<text x="{x:g}" y="{y:g}">{grid.cpus[i]}</text>'
        yield "</g>"


def _marks(blocks: Iterable[Block], left: int, top: int, *, font: float) -> Iterator[str]:
    """A line along each node or package, with its name, at the top and at the left."""
    for block in blocks:
        length, middle = block.end - block.start, (block.start + block.end) / 2
        name = next((n for n in block.names if len(n) * font * CHAR_WIDTH <= length), "")
        yield (
            f'<path class="l" d="M{block.start} -{top}h{length}M-{left} {block.start}'
            f'v{length}" stroke="#8a9195" fill="none"/>'
        )
        yield f'<g {_SOFT} font-size="{font:g}" text-anchor="middle">'
        yield f'<text x="{middle:g}" y="-{top + 5}">{name}</text>'
        yield f'<text x="-{middle:g}" y="-{left + 5}" transform="rotate(-90)">{name}</text></g>'


def _strips(grid: Grid, affinity: Mapping[Vmid, CpuSet]) -> Iterator[str]:
    """The guests' CPUs beside both axes; guests that share a CPU share the strip's width."""
    holders: dict[CpuSet, list[int]] = {}  # a set of guests' indexes, as their CPUs see it
    guests = sorted(affinity)
    for cpu in grid.cpus:
        held = CpuSet.of(i for i, vmid in enumerate(guests) if cpu in affinity[vmid])
        holders.setdefault(held, []).append(cpu)
    for held, cpus in holders.items():
        for lane, guest in enumerate(held):
            wide = _STRIP / len(held)
            away = 4 + _STRIP - lane * wide
            yield f'<g fill="{_guest_colour(guest)}"><title>guest {guests[guest]}</title>'
            for start, length in grid.stretches(CpuSet.of(cpus)):
                yield (
                    f'<rect x="{start}" y="{-away:g}" width="{length}" height="{wide:g}"/>'
                    f'<rect x="{-away:g}" y="{start}" width="{wide:g}" height="{length}"/>'
                )
            yield "</g>"


def _legend(affinity: Mapping[Vmid, CpuSet] | None, width: int) -> tuple[list[str], int]:
    """The guests in columns, and the px they take; what is longer than a line is cut."""
    if affinity is None:
        return [], 0
    if not affinity:
        return [f"<text {_SOFT}>no guests</text>"], _PAD
    said = [f"{vmid}: {affinity[vmid] or 'none'}" for vmid in sorted(affinity)]
    room = int((width - 20) / _LEGEND_CHAR)
    column = 20 + _LEGEND_CHAR * (min(max(map(len, said)), room) + 2)
    columns = max(1, int(width / column))
    made = []
    for i, text in enumerate(said):
        x, y = int(i % columns * column), 18 * (i // columns)
        cut = text if len(text) <= room else text[: room - 1] + "…"
        made += [
            f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{_guest_colour(i)}"/>',
            f'<text {_INK} x="{x + 20}" y="{y}">{cut}<title>{text}</title></text>',
        ]
    return made, 18 * ((len(said) + columns - 1) // columns) + _PAD // 4


def _guest_colour(index: int) -> str:
    return _GUESTS[index % len(_GUESTS)]
