"""The pictures in docs/page, for people: the page at four sizes, in light and dark.

Made on hosts that are made up (pretended): what they show is the page, not a measurement.
"""

import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from tests.page.browser import launched, watched
from tests.page.conftest import HOSTS, pretended

FOLDER = Path(__file__).parents[2] / "docs/page"
WIDTH, HEIGHT_MAX = 1440, 1350
COLOURS = 256  # of a picture's palette: text stays clean, files stay small
METHOD = Image.Quantize.MAXCOVERAGE  # the usual one makes different guests alike


def picture(browser: Browser, port: int, file: Path, *, dark: bool, width: int = WIDTH) -> None:
    with watched(browser, width=width, height=HEIGHT_MAX, dark=dark) as view:
        view.live(port)
        page = view.page
        page.wait_for_selector("tr.guest td .good")
        page.wait_for_selector("#map .cell[style*=load]")
        page.locator("#heat").scroll_into_view_if_needed()  # it is fetched when it can be seen
        page.wait_for_selector("#heat-map svg")
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(1000)  # the bars have grown
        if width == WIDTH:
            page.locator("tr.guest").nth(1).hover()
        height = min(page.evaluate("document.documentElement.scrollHeight"), HEIGHT_MAX)
        data = page.screenshot(clip={"x": 0, "y": 0, "width": width, "height": height})
    image = Image.open(io.BytesIO(data)).convert("RGB")
    few = image.quantize(COLOURS, METHOD, kmeans=4, dither=Image.Dither.NONE)
    few.save(file, optimize=True)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with launched() as browser:
        for cpus in HOSTS:
            with pretended(cpus) as port:
                for theme in ("light", "dark"):
                    file = FOLDER / f"{cpus}-cpus-{theme}.png"
                    picture(browser, port, file, dark=theme == "dark")
                if cpus == 16:
                    picture(browser, port, FOLDER / "phone.png", dark=False, width=360)


if __name__ == "__main__":
    main()
