"""Debian's Chromium, and a page in it that is listened to: what it asks for and complains of."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

PATIENCE = 60_000.0  # ms that no assertion is about: for what is waited for
FLAGS = (
    "--no-sandbox",  # root may have none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LISTEN = """
window.violations = [];
addEventListener('securitypolicyviolation', (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


def chromium() -> Path | None:
    found = shutil.which("chromium", path="/usr/bin:/usr/local/bin")
    return Path(found) if found else None


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser with a profile of its own, which is removed. It never fetches one."""
    program = chromium()
    if program is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page and what was heard of it. `allowed`: words of complaints that a test provokes.

    Without slots: Playwright keeps attributes of its own on an object whose methods it calls.
    """

    page: Page
    allowed: tuple[str, ...] = ()
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", self._asked)
        self.page.add_init_script(LISTEN)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "about"):
            self.hosts.add(address.hostname or "")

    def open(self, port: int) -> None:
        self.page.goto(f"http://127.0.0.1:{port}/")

    def live(self, port: int) -> None:
        """Open, and wait until the page has fetched all and hears of what happens."""
        self.open(port)
        self.page.wait_for_selector("html[data-ready]")
        self.page.wait_for_selector('#live[data-state="live"]')

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def check(self) -> None:
        """Nothing left the host, no policy was violated, and there was nothing to complain of."""
        assert self.hosts <= {"127.0.0.1"}, self.hosts
        assert self.page.evaluate("window.violations ?? []") == []
        unexpected = [
            said for said in self.complaints if not any(word in said for word in self.allowed)
        ]
        assert unexpected == []


@contextmanager
def watched(
    browser: Browser, *, width: int = 1280, height: int = 900, dark: bool = False
) -> Iterator[Watched]:
    """A page in a context of its own; checked at its end."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
    )
    try:
        made = Watched(context.new_page())
        yield made
        made.check()
    finally:
        context.close()
