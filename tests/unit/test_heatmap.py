"""The heat map: valid SVG with one cell a pair, legible labels, bounded size, told figures."""

import random
import re
from array import array
from collections.abc import Iterator
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats.cpuinfo import CPUINFO
from proxmox_cpu_affinity.formats.sysfs import topology
from proxmox_cpu_affinity.model.cpuset import EMPTY, CpuSet
from proxmox_cpu_affinity.model.ids import Cpu, Vmid
from proxmox_cpu_affinity.model.latency import LatencyMatrix, Method, Verdict
from proxmox_cpu_affinity.model.topology import Topology
from proxmox_cpu_affinity.render.grid import Grid
from proxmox_cpu_affinity.render.heatmap import TOOLTIPS_MAX, heatmap_svg
from proxmox_cpu_affinity.render.scale import LEVELS, Scale, colour, is_dark, stops
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec

SVG = "{http://www.w3.org/2000/svg}"
SPECS = ("1x1x1x1", "1x1x2x1", "1x2x4x2", "2x2x4x2+nodes=2", "1x8x8x2", "2x16x8x1")


def host(spec: str, model: str = "Some CPU") -> Topology:
    files = generate(parse_spec(spec))
    files[CPUINFO] = f"model name\t: {model}"
    return topology(files)


def matrix_of(
    it: Topology, *, share: float = 1.0, verdict: Verdict = Verdict.TRUSTED, seed: int = 1
) -> LatencyMatrix:
    """Near pairs around 20 ns, far ones around 100, all different; a share of them measured."""
    chance = random.Random(seed)
    count = len(it.online)
    ns, measured = array("d", bytes(8 * count * count)), bytearray(count * count)
    for i, first in enumerate(it.places):
        for j, second in enumerate(it.places[:i]):
            base = 20 if first.llc == second.llc else 100
            value, known = base * chance.uniform(1, 1.5), chance.random() < share
            for cell in (i * count + j, j * count + i):
                ns[cell], measured[cell] = value, known
    spread = array("d", bytes(8 * count * count))
    return LatencyMatrix(tuple(it.online), ns, spread, bytes(measured), verdict)


def drawn(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def tooltips(root: ElementTree.Element) -> list[str]:
    return [e.text or "" for e in root.iter(f"{SVG}title") if (e.text or "").startswith("CPU ")]


def painted(svg: str, grid: Grid) -> int:
    """Cells that the coloured strokes of a large map cover."""
    strokes = re.findall(r'<path d="([^"]*)" stroke="#', svg)
    lengths = [int(n) for path in strokes for n in re.findall(r"h(\d+)", path)]
    assert all(length % grid.cell == 0 for length in lengths)
    return sum(lengths) // grid.cell


@pytest.mark.parametrize("spec", SPECS)
def test_every_pair_has_its_cell(spec: str) -> None:
    it = host(spec)
    count = len(it.online)
    svg = heatmap_svg(it, matrix_of(it))
    if count <= TOOLTIPS_MAX:
        cells = tooltips(drawn(svg))
        assert len(cells) == len(set(cells)) == count * (count - 1)
    else:
        assert painted(svg, Grid.over(it, tuple(it.online))) == count * (count - 1) // 2
        assert svg.count("matrix(0 1 1 0 0 0)") == 1  # the other half is its mirror image


def test_cells_tell_both_cpus_and_the_latency() -> None:
    it = host("1x2x2x1")
    matrix = matrix_of(it)
    said = set(tooltips(drawn(heatmap_svg(it, matrix))))
    for first in it.online:
        for second in it.online:
            whole = f"CPU {first}, CPU {second}: {matrix.between(first, second):.1f} ns"
            assert (whole in said) == (first != second)


@pytest.mark.parametrize(("spec", "limit"), [("1x8x8x2", 300_000), ("2x16x8x2", 3_000_000)])
def test_size_is_bounded_where_no_two_neighbours_are_alike(spec: str, limit: int) -> None:
    it = host(spec)
    guests = {Vmid(100 + i): CpuSet.of([i, i + 1, i + 64]) for i in range(60)}
    svg = heatmap_svg(it, matrix_of(it, share=0.5), affinity=guests)
    drawn(svg)
    assert len(svg.encode()) < limit


@pytest.mark.parametrize("spec", ["1x2x2x1", "2x2x4x2", "1x8x8x2"])
def test_a_place_in_it_can_be_told_its_pair(spec: str) -> None:
    """The cells' group says where each CPU's row and column begin; so does every tooltip."""
    it = host(spec)
    root = drawn(heatmap_svg(it, matrix_of(it)))
    cells = next(group for group in root.iter(f"{SVG}g") if group.get("id") == "pca-cells")
    cpus, at = (cells.get(f"data-{name}", "").split() for name in ("cpus", "at"))
    size = cells.get("data-cell")
    assert sorted(map(int, cpus)) == list(it.online)
    begins = dict(zip(map(int, at), cpus, strict=True))
    single = [rect for rect in cells.findall(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert len(single) == (len(cpus) * (len(cpus) - 1) if len(cpus) <= TOOLTIPS_MAX else 0)
    for rect in single:
        first, second = (begins[int(rect.get(axis, ""))] for axis in ("y", "x"))
        assert (rect.findtext(f"{SVG}title") or "").startswith(f"CPU {first}, CPU {second}: ")
        assert rect.get("width") == rect.get("height") == size


def test_a_bare_one_is_the_same_without_its_style() -> None:
    it = host("1x2x2x1")
    whole, bare = (heatmap_svg(it, matrix_of(it), bare=bare) for bare in (False, True))
    assert "<style>" in whole
    assert "style" not in bare
    assert re.sub(r"<style>.*?</style>\n", "", whole) == bare


def test_title_and_figures() -> None:
    it = host("2x1x4x2", model="Fast <&> CPU \"X\" 'Y'")
    matrix = matrix_of(it)
    root = drawn(heatmap_svg(it, matrix))
    figures = matrix.summary()
    title, counts, span, how = texts(root)[:4]
    assert title == it.model_name == "Fast <&> CPU \"X\" 'Y'"
    assert root.findtext(f"{SVG}title") == title
    assert counts == "2 Sockets | 16 CPUs"
    assert span == (
        f"min {figures.low:.1f} ns | max {figures.high:.1f} ns | "
        f"median {figures.median:.1f} ns | mean {figures.mean:.1f} ns"
    )
    assert "compare-exchange" in how
    assert "predicted" not in how


def test_one_of_each_is_singular_and_one_cpu_has_no_scale() -> None:
    it = host("1x1x1x1")
    svg = heatmap_svg(it, matrix_of(it))
    assert texts(drawn(svg))[1] == "1 Socket | 1 CPU"
    assert "pca-ramp)" not in svg


def test_a_host_without_a_name_has_a_title() -> None:
    it = host("1x1x2x1", model="")
    assert texts(drawn(heatmap_svg(it, matrix_of(it))))[0] == "Latencies between CPUs"


def test_conditions_are_told_and_escaped() -> None:
    it = host("1x1x2x1")
    base = matrix_of(it, verdict=Verdict.UNSTABLE)
    matrix = LatencyMatrix(
        base.cpus, base.ns, base.spread, base.measured, base.verdict, Method.MSG, ("a < b & c",)
    )
    root = drawn(heatmap_svg(it, matrix))
    assert "a < b & c" in (root.findtext(f"{SVG}desc") or "")
    assert "unstable" in texts(root)[3]
    assert "messages" in texts(root)[3]


def test_a_virtual_machine_is_told() -> None:
    it = topology(generate(parse_spec("1x1x2x1+vm")))
    assert any("virtual machine" in text for text in texts(drawn(heatmap_svg(it, matrix_of(it)))))


@pytest.mark.parametrize("spec", ["1x2x2x1", "1x8x8x1"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_predicted_cells_are_recognisable(spec: str, share: float) -> None:
    it = host(spec)
    matrix = matrix_of(it, share=share)
    svg = heatmap_svg(it, matrix)
    how = texts(drawn(svg))[3]
    mixed = 0 < matrix.share_measured() < 1
    assert mixed == (share == 0.5)
    assert ("hatched" in how) == mixed
    assert ('stroke="url(#pca-hatch)"' in svg) == mixed
    assert ("not measured" in how) == (share == 0)
    if mixed:
        path = re.findall(r'<path d="([^"]*)" stroke="url', svg)[0]
        cell = Grid.over(it, tuple(it.online)).cell
        hatched = sum(int(n) for n in re.findall(r"h(\d+)", path)) // cell
        assert hatched == matrix.measured.count(0) // 2 - len(it.online) / 2


@pytest.mark.parametrize("spec", SPECS)
def test_values_stand_in_the_cells_up_to_32_cpus(spec: str) -> None:
    it = host(spec)
    count = len(it.online)
    root = drawn(heatmap_svg(it, matrix_of(it)))
    groups = [g for g in root.iter(f"{SVG}g") if g.get("pointer-events") == "none"]
    values = [text for group in groups for text in texts(group)]
    assert len(values) == (count * (count - 1) if count <= 32 else 0)
    assert all(float(value) > 0 for value in values)


def distances(grid: Grid) -> Iterator[tuple[int, int]]:
    for before, here in pairwise(grid.labelled()):
        yield grid.at[here] - grid.at[before], max(len(str(grid.cpus[i])) for i in (before, here))


@pytest.mark.parametrize("spec", [*SPECS, "2x16x8x2", "4x16x8x2", "1x8x1x1", "1x64x1x2+nodes=16"])
def test_labels_do_not_touch(spec: str) -> None:
    it = host(spec)
    grid = Grid.over(it, tuple(it.online))
    labels = list(grid.labelled())
    assert labels[0] == 0
    assert all(gap >= max(digits * grid.font * 0.55, grid.font) for gap, digits in distances(grid))
    if len(it.online) <= 32:
        assert len(labels) == len(it.online)
    else:
        assert len(labels) >= len(it.online) / 32


@pytest.mark.parametrize("spec", [*SPECS, "2x16x8x2"])
def test_texts_are_legible_where_the_picture_is_as_wide_as_a_column(spec: str) -> None:
    """They were of one size: on a host of 512 CPUs 5 px high on the page."""
    it = host(spec)
    root = drawn(heatmap_svg(it, matrix_of(it)))
    shrunk = min(1.0, 640 / int(root.get("width", "0")))
    grid = Grid.over(it, tuple(it.online))
    assert grid.font * shrunk >= 7
    head = root.findall(f"{SVG}g")[0]
    [zoom] = map(float, re.findall(r"[\d.]+", head.get("transform", "")))
    assert 11 * zoom * shrunk >= 9


def test_groups_are_apart_by_level() -> None:
    it = host("2x2x2x2+nodes=2+gaps=3")
    grid = Grid.over(it, tuple(it.online))
    assert sorted(grid.cpus) == list(it.online)
    gap: dict[str, set[int]] = {}
    for i in range(1, len(grid.cpus)):
        a, b = it.place(grid.cpus[i - 1]), it.place(grid.cpus[i])
        level = "package" if a.package != b.package else "node" if a.node != b.node else "none"
        gap.setdefault(level, set()).add(grid.at[i] - grid.at[i - 1] - grid.cell)
    assert gap["none"] == {0}
    assert 0 < max(gap["node"]) < min(gap["package"])


def test_smt_siblings_are_neighbours() -> None:
    it = host("1x2x4x2")
    grid = Grid.over(it, tuple(it.online))
    for first, second in zip(grid.cpus[::2], grid.cpus[1::2], strict=True):
        assert it.siblings(first) == CpuSet.of([second])


def test_rows_follow_the_matrix_whatever_its_order() -> None:
    it = host("1x1x3x1")
    ns = array("d", (0, 10, 20, 10, 0, 40, 20, 40, 0))
    cpus = (Cpu(2), Cpu(0), Cpu(1))
    matrix = LatencyMatrix(cpus, ns, array("d", bytes(72)), bytes([1] * 9), Verdict.TRUSTED)
    said = tooltips(drawn(heatmap_svg(it, matrix)))
    assert said[0] == "CPU 0, CPU 1: 40.0 ns"
    assert said[1] == "CPU 0, CPU 2: 10.0 ns"


def test_cpus_that_went_offline_come_last_and_are_named() -> None:
    before, after = host("1x2x4x1"), host("1x2x4x1+offline=0,5")
    svg = heatmap_svg(after, matrix_of(before))
    assert Grid.over(after, tuple(before.online)).cpus[-2:] == (0, 5)
    assert "offline" in texts(drawn(svg))


@pytest.mark.parametrize("spec", ["1x2x4x2", "1x8x8x2"])
def test_guests_have_strips_and_a_legend(spec: str) -> None:
    it = host(spec)
    guests = {Vmid(200): CpuSet.parse("0-3"), Vmid(101): CpuSet.parse("3,8"), Vmid(7000): EMPTY}
    root = drawn(heatmap_svg(it, matrix_of(it), affinity=guests))
    legend = [text for text in texts(root) if re.match(r"\d+: ", text)]
    assert legend == ["101: 3,8", "200: 0-3", "7000: none"]
    strips = [
        (group.findtext(f"{SVG}title"), len(list(group.iter(f"{SVG}rect"))))
        for group in root.iter(f"{SVG}g")
        if (group.findtext(f"{SVG}title") or "").startswith("guest ")
    ]
    assert {said for said, _ in strips} == {"guest 101", "guest 200"}
    assert sum(rects for _, rects in strips) >= 2 * 4
    colours = {g.get("fill") for g in root.iter(f"{SVG}g") if g.find(f"{SVG}title") is not None}
    assert len(colours - {None}) == 2


def test_no_guests_is_said_and_nothing_without_affinity() -> None:
    it = host("1x1x2x1")
    assert "no guests" in texts(drawn(heatmap_svg(it, matrix_of(it), affinity={})))
    assert "guest" not in heatmap_svg(it, matrix_of(it))


def test_long_cpulists_are_cut_and_whole_in_their_tooltip() -> None:
    it = host("1x8x8x2")
    scattered = CpuSet.of(range(0, 128, 2))
    root = drawn(heatmap_svg(it, matrix_of(it), affinity={Vmid(100): scattered}))
    (entry,) = [t for t in root.iter(f"{SVG}text") if (t.text or "").startswith("100: ")]
    assert (entry.text or "").endswith("…")
    assert entry.findtext(f"{SVG}title") == f"100: {scattered}"


@pytest.mark.parametrize("spec", SPECS)
def test_everything_is_inside_the_picture(spec: str) -> None:
    it = host(spec)
    guests = {Vmid(100 + i): CpuSet.of([i]) for i in range(30)}
    root = drawn(heatmap_svg(it, matrix_of(it), affinity=guests))
    grid = Grid.over(it, tuple(it.online))
    moves = [g.get("transform", "") for g in root.findall(f"{SVG}g")]
    _, (left, top), (_, below, *_) = (map(int, re.findall(r"\d+", move)) for move in moves)
    assert left + grid.size <= int(root.get("width", "0"))
    assert top + grid.size < below < int(root.get("height", "0"))
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"


def test_a_picture_is_the_same_twice_and_needs_nothing_from_elsewhere() -> None:
    it = host("1x2x4x2")
    svg = heatmap_svg(it, matrix_of(it), affinity={Vmid(100): CpuSet.of([0])})
    assert svg == heatmap_svg(it, matrix_of(it), affinity={Vmid(100): CpuSet.of([0])})
    assert re.findall(r"(?:https?:)?//[^\"]+", svg) == ["http://www.w3.org/2000/svg"]
    assert " style=" not in svg
    assert "<script" not in svg


latencies = st.lists(st.floats(0, 1e7), min_size=1, max_size=300)


@given(latencies)
def test_farther_is_never_a_nearer_colour(values: list[float]) -> None:
    scale = Scale.over(values)
    levels = scale.levels(sorted(values), scale.edges())
    assert levels == sorted(levels)
    assert all(0 <= level < LEVELS for level in levels)
    ticks = [scale.at(i / 8) for i in range(9)]
    assert ticks == sorted(ticks)
    assert ticks[0] >= scale.low
    assert ticks[-1] == scale.high


def test_wild_values_do_not_take_the_contrast() -> None:
    values = [20.0 + i % 7 for i in range(1000)]
    scale = Scale.over([*values, 90000.0])
    assert scale.clipped
    assert scale.high < 100
    assert not Scale.over(values).clipped


def test_clusters_below_a_few_siblings_keep_their_contrast() -> None:
    scale = Scale.over([4.0] * 8 + [30.0] * 100 + [36.0] * 100 + [40.0] * 100)
    near, middle, far = scale.levels([30.0, 36.0, 40.0], scale.edges())
    assert middle - near > LEVELS / 10
    assert far - middle > LEVELS / 10


def test_ramp_darkens_evenly_and_text_stands_out() -> None:
    assert colour(0) == stops()[0]
    assert colour(LEVELS - 1) == stops()[-1]
    dark = [is_dark(level) for level in range(LEVELS)]
    assert dark == sorted(dark)
    assert dark[0] is False
    assert dark[-1] is True
