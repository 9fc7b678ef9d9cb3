"""The page at 4 and at 512 CPUs, on a phone and on a desk, in light and dark, on made-up hosts.

What it says of structure, names and contrast holds for real hosts too; see pretended.
"""

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page

from tests.page.axe import RUN, axe_script
from tests.page.browser import Watched, watched

WIDTHS = (360, 1440)
WEIGHT_MAX = 150_000  # bytes of all that is not an answer of the API

# Ink on both ends of every guest's colour, painted, so that any notation becomes bytes.
CELL_CONTRASTS = """() => {
  const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const linear = (byte) =>
    byte / 255 <= .04045 ? byte / 255 / 12.92 : ((byte / 255 + .055) / 1.055) ** 2.4;
  const light = (colour) => {
    context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    const [r, g, b] = context.getImageData(0, 0, 1, 1).data;
    return .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  };
  const found = [];
  for (const part of document.querySelectorAll('#map .cell > i')) {
    const ink = light(getComputedStyle(part.parentElement).color);
    const gradient = getComputedStyle(part).backgroundImage;
    for (const colour of gradient.match(/(oklch|rgb|color)\\([^)]*\\)/g)) {
      const [low, high] = [ink, light(colour)].sort((a, b) => a - b);
      found.push((high + .05) / (low + .05));
    }
  }
  return found;
}"""


def settled(view: Watched, port: int) -> Page:
    view.live(port)
    view.page.wait_for_selector("tr.guest td .good")
    return view.page


@pytest.mark.parametrize("width", WIDTHS)
def test_every_cpu_has_its_cell_and_nothing_hangs_over(
    browser: Browser, large: tuple[int, int], width: int
) -> None:
    cpus, port = large
    with watched(browser, width=width) as view:
        page = settled(view, port)
        cells = page.locator("#map .cell")
        numbers = cells.evaluate_all("all => all.map((each) => Number(each.dataset.cpu))")
        assert sorted(numbers) == list(range(cpus))
        topology = page.evaluate("fetch('api/v1/topology').then((answer) => answer.json())")
        for kind in ("packages", "nodes", "cache_groups", "cores"):
            selector = {"packages": ".package", "nodes": ".numa", "cores": ".core"}.get(
                kind, '[aria-label^="L3 group"]'
            )
            assert page.locator(f"#map {selector}").count() == len(topology[kind]), kind
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#map .cell:has(i)").count() >= cpus // 2


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_names_and_contrast(
    browser: Browser,
    large: tuple[int, int],
    dark: bool,  # noqa: FBT001
) -> None:
    _, port = large
    with watched(browser, width=1440, dark=dark) as view:
        page = settled(view, port)
        page.locator("tr.guest button").first.click()
        page.wait_for_selector("tr.why table")
        page.fill("#try-vcpus", "2")
        page.get_by_role("button", name="Where would it go?").click()
        page.wait_for_selector("#try-answer strong, #try-answer .bad")
        page.locator("#heat-map").scroll_into_view_if_needed()
        page.wait_for_selector("#heat-map svg")
        page.evaluate(axe_script())
        assert page.evaluate(RUN) == []
        contrasts = page.evaluate(CELL_CONTRASTS)
        assert len(contrasts) > 2
        assert min(contrasts) >= 4.5


def test_names_and_contrast_on_a_phone_and_in_the_question_for_the_token(
    browser: Browser, large: tuple[int, int]
) -> None:
    _, port = large
    with watched(browser, width=360, height=740, dark=True) as view:
        page = settled(view, port)
        page.get_by_role("button", name="What would placing all anew change?").click()
        page.get_by_role("button", name="Place all anew", exact=True).click()
        page.wait_for_selector("#ask[open]")
        page.evaluate(axe_script())
        assert page.evaluate(RUN) == []


def test_it_is_light_and_paints_soon(
    browser: Browser,
    large: tuple[int, int],
    record_property: Callable[[str, object], None],
) -> None:
    """The weight is asserted; the time, which is the machine's, is named."""
    cpus, port = large
    with watched(browser, width=1440) as view:
        weights: dict[str, int] = {}
        view.page.on(
            "requestfinished",
            lambda request: (
                weights.update({request.url: request.sizes()["responseBodySize"]})
                if "/api/" not in request.url
                else None
            ),
        )
        page = settled(view, port)
        own = {url: size for url, size in weights.items() if not url.endswith("/")}
        assert any(url.endswith("page.js") for url in own), own
        assert sum(own.values()) < WEIGHT_MAX
        paint = page.evaluate(
            "performance.getEntriesByType('paint').map((each) => [each.name, each.startTime])"
        )
        times = {name: f"{time:.0f} ms" for name, time in paint}
        index = next(size for url, size in weights.items() if url.endswith("/"))
        record_property(
            f"{cpus} CPUs",
            f"first paint after {times.get('first-paint', 'an unknown time')}; page"
            f" {sum(own.values()) / 1000:.0f} kB and its tables {index / 1000:.0f} kB",
        )
