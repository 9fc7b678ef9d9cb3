"""What people met who looked at the page with their own eyes: each defect with its test."""

import re
from math import dist

import pytest
from playwright.sync_api import Browser, Route, expect

from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running
from tests.page.browser import PATIENCE, Watched, watched
from tests.page.conftest import pretended
from tests.page.test_live import SERVICE_ENDS, guest_row, started
from tests.page.test_sizes import settled
from tests.page.tunnel import Tunnel

# The twelve colours of guests as they are painted, idle and busy, in sRGB from 0 to 1.
COLOURS = """() => {
  const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const painted = (colour) => {
    context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((byte) => byte / 255);
  };
  const cell = document.querySelector('#map .cell').cloneNode();
  document.querySelector('#map').append(cell);
  return [...Array(12).keys()].map((number) => {
    const part = document.createElement('i');
    part.className = `g${number}`;
    cell.replaceChildren(part);
    return getComputedStyle(part).backgroundImage.match(/oklch\\([^)]*\\)/g).map(painted);
  });
}"""
# What is left of linear RGB to who has no cones for green (Viénot, Brettel, Mollon 1999).
DEUTAN = ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0))
ALL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
Matrix = tuple[tuple[float, float, float], ...]
# Linear RGB to cones' answers, and these to OKLab (Ottosson 2020).
CONES: Matrix = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
OKLAB: Matrix = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def times(matrix: Matrix, vector: list[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def seen_as(srgb: list[float], eyes: Matrix) -> list[float]:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in srgb]
    left = [min(1.0, max(0.0, value)) for value in times(eyes, linear)]
    return times(OKLAB, [value ** (1 / 3) for value in times(CONES, left)])


def nearest(colours: list[list[float]], eyes: Matrix) -> float:
    """The least distance of two of these colours in OKLab; 0.02 is about what can be seen."""
    seen = [seen_as(colour, eyes) for colour in colours]
    return min(dist(one, other) for i, one in enumerate(seen) for other in seen[:i])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_guests_colours_can_be_told_apart(browser: Browser, service: Running, scheme: str) -> None:
    """Idle ones differed by 0.015, and busy ones not at all to who cannot tell red from green."""
    with watched(browser, dark=scheme == "dark") as view:
        view.live(service.port)
        view.page.wait_for_selector("#map .cell")
        pairs = view.page.evaluate(COLOURS)
        assert len({str(pair) for pair in pairs}) == 12
        busy, idle = ([pair[i] for pair in pairs] for i in (0, 1))
        assert nearest(busy, ALL) > 0.05
        assert nearest(busy, DEUTAN) > 0.025
        assert nearest(idle, ALL) > 0.025


@pytest.mark.parametrize("width", [360, 700, 900, 1320])
def test_a_long_name_leaves_the_other_columns_in_sight(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """A name of 63 letters, as long as they may be, pushed all that is said of guests away."""
    monkeypatch.setenv("PRETENDED_NAME", "w" * 63)
    with pretended(4) as port, watched(browser, width=width) as view:
        page = settled(view, port)
        expect(page.locator(".name", has_text="w" * 63)).to_be_visible()
        panel = page.locator("#guests .panel")
        assert panel.evaluate("(it) => it.scrollWidth <= it.clientWidth")


def test_nothing_empty_lies_above_the_guests_on_a_phone(browser: Browser, service: Running) -> None:
    """The table's head is for screen readers there; an empty strip was left of it."""
    with watched(browser, width=360) as view:
        view.live(service.port)
        panel = view.page.locator("#guests .panel").bounding_box()
        rows = view.page.locator("#guest-rows").bounding_box()
        assert panel is not None
        assert rows is not None
        assert rows["y"] - panel["y"] < 8


def test_the_focused_cpu_is_told_from_the_others_of_its_guest(browser: Browser) -> None:
    """All of them had the same outline: nobody knew where the arrow keys had come to."""
    with pretended(16) as port, watched(browser) as view:
        page = settled(view, port)
        page.locator('#map .cell[tabindex="0"]').focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#map .cell.on")).not_to_have_count(0)
        assert page.locator("#map .cell.on").count() > 1
        outlines = page.locator("#map .cell.on").evaluate_all(
            "(all) => all.map((it) => [it === document.activeElement,"
            " `${getComputedStyle(it).outlineColor} ${getComputedStyle(it).outlineOffset}`])"
        )
        assert len({look for focused, look in outlines if focused}) == 1
        assert len({look for _, look in outlines}) == 2


def test_what_is_read_is_in_sight_however_high_the_map_is(browser: Browser) -> None:
    """It stands below the map, which is higher than a phone."""
    with pretended(128) as port, watched(browser, width=360, height=640) as view:
        page = settled(view, port)
        page.locator("#map .cell").first.hover()
        expect(page.locator("#reading")).to_contain_text("core")
        expect(page.locator("#reading")).to_be_in_viewport()


def test_two_cache_groups_stand_side_by_side_on_a_phone(browser: Browser) -> None:
    """Half of its width was empty, and the page of a host of 512 CPUs twice as long."""
    with pretended(512) as port, watched(browser, width=360) as view:
        page = settled(view, port)
        tops = page.locator('[aria-label^="L3 group"]').evaluate_all(
            "(all) => all.map((it) => it.getBoundingClientRect().top)"
        )
        assert len(set(tops)) == len(tops) / 2


def test_the_cross_stands_out_from_every_colour(service: Running, view: Watched) -> None:
    """It was dark on dark in one half of the picture."""
    view.live(service.port)
    view.page.locator("#heat-map").scroll_into_view_if_needed()
    view.page.wait_for_selector("#heat-map svg")
    view.page.locator("#heat-map").focus()
    strokes = view.page.locator("#heat-map .cross").evaluate_all(
        "(all) => all.map((it) => getComputedStyle(it).stroke)"
    )
    assert strokes == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]


def test_a_lost_connection_is_said_wherever_one_has_scrolled_to(
    browser: Browser, service: Running
) -> None:
    with watched(browser, height=300) as view:
        view.allowed = SERVICE_ENDS
        view.live(service.port)
        service.end()
        state = view.page.locator("#live")
        expect(state).to_have_text("Connection lost; trying again", timeout=PATIENCE)
        view.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        expect(state).to_be_in_viewport()


def test_what_could_not_be_fetched_is_said_and_asked_for_again(
    node: Node, service: Running, view: Watched
) -> None:
    """The page said "Live" above guests of long ago."""
    view.allowed = ("500",)
    view.live(service.port)
    problem = {"status": 500, "content_type": "application/json", "body": '{"detail": "no luck"}'}
    view.page.route("**/api/v1/guests", lambda route: route.fulfill(**problem))
    started(node, service, 100)
    stale = view.page.locator("#stale")
    expect(stale).to_contain_text("no luck", timeout=PATIENCE)
    view.page.unroute("**/api/v1/guests")
    expect(stale).to_be_empty(timeout=PATIENCE)
    expect(view.page.locator(guest_row(100))).to_contain_text("full")


def test_the_heat_map_is_fetched_when_the_connection_is_back(
    service: Running, view: Watched
) -> None:
    """A stream that goes on where it was tells nothing that would have it fetched."""
    view.allowed = (*SERVICE_ENDS, "ERR_FAILED")
    view.page.route("**/heatmap.svg*", lambda route: route.abort())
    tunnel = Tunnel(service.port)
    view.live(tunnel.port)
    heat = view.page.locator("#heat-map")
    heat.scroll_into_view_if_needed()
    expect(heat).to_contain_text("could not be fetched")
    view.page.unroute("**/heatmap.svg*")
    tunnel.cut()
    expect(view.page.locator("#live")).to_have_attribute("data-state", "lost", timeout=PATIENCE)
    tunnel.mend()
    expect(view.page.locator("#live")).to_have_attribute("data-state", "live", timeout=PATIENCE)
    expect(heat.locator("svg")).to_be_visible(timeout=PATIENCE)
    tunnel.cut()


def test_the_progress_of_a_measurement_is_followed(service: Running, view: Watched) -> None:
    """No event tells of it: "0 of 8128 pairs" stood there until the end."""
    asked = []

    def measuring(route: Route) -> None:
        asked.append(1)
        answer = route.fetch()
        status = answer.json()
        status["matrix"] |= {"measuring": True, "pairs_done": len(asked), "pairs_all": 8128}
        route.fulfill(response=answer, json=status)

    view.page.route("**/api/v1/status", measuring)
    view.live(service.port)
    facts = view.page.locator("#facts")
    expect(facts).to_contain_text(re.compile(r"measuring \d+ of 8128 pairs"))
    expect(facts).to_contain_text(re.compile(r"measuring [3-9] of 8128 pairs"), timeout=PATIENCE)


def test_an_older_answer_never_overtakes_a_newer_one(service: Running, view: Watched) -> None:
    """Calls that come close together are one; they were never made while more kept coming, and
    two could be under way at once."""
    view.live(service.port)
    counts = view.page.evaluate("""async () => {
      const { together } = await import('/dom.js');
      const pause = (ms) => new Promise((done) => setTimeout(done, ms));
      let [made, now, most] = [0, 0, 0];
      const call = together(async () => {
        made += 1; now += 1; most = Math.max(most, now); await pause(90); now -= 1;
      }, 60);
      for (let i = 0; i < 40; i += 1) { call(); await pause(20); }
      const meanwhile = made;
      await pause(400);
      return { meanwhile, most, now };
    }""")
    assert counts["meanwhile"] > 1
    assert (counts["most"], counts["now"]) == (1, 0)


def test_the_preview_says_what_a_move_saves_and_shows_where_it_goes(
    node: Node, service: Running, view: Watched
) -> None:
    """Guests that share a CPU, beside one that has become free."""
    started(node, service, 100, 101, 102)
    shared, own = service.guest(102)["cpus"], {100: 101, 101: 100}
    beside = next(v for v in own if service.guest(v)["cpus"] == shared)
    alone = own[beside]
    free = service.guest(alone)["cpus"]
    view.live(service.port)
    node.do("stop", alone)
    expect(view.page.locator(guest_row(alone))).to_contain_text("stopped", timeout=PATIENCE)
    view.page.get_by_role("button", name="What would placing all anew change?").click()
    moves = view.page.locator("#preview-answer tbody tr")
    expect(moves).to_have_count(1, timeout=PATIENCE)
    cells = moves.first.locator("td").all_inner_texts()
    assert cells[1:3] == [shared, free]
    assert float(cells[3].split()[0]) > 0
    moves.first.hover()
    expect(view.page.locator(f'#map [data-cpu="{free}"]')).to_contain_class("here")
    view.page.locator("h1").hover()
    expect(view.page.locator("#map .here")).to_have_count(0)


def test_without_scripts_the_heat_map_is_a_picture(browser: Browser, service: Running) -> None:
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{service.port}/")
        box = page.locator("#heat img").bounding_box()
        assert box is not None
        assert box["height"] > 100
        assert not page.locator("#heat-reading").is_visible()
    finally:
        context.close()
