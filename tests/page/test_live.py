"""The page on a simulated node with real processes: what it shows, and that it follows."""

import re

import pytest
from playwright.sync_api import Browser, expect

from proxmox_cpu_affinity.sim import node as sim
from proxmox_cpu_affinity.sim.hosts import generate, parse_spec
from proxmox_cpu_affinity.sim.node import Node
from proxmox_cpu_affinity.sim.settings import GuestKind
from tests.integration.conftest import short_root
from tests.integration.running import Running, add_guest
from tests.page.browser import PATIENCE, Watched
from tests.page.conftest import pretended
from tests.page.pretended import lay_out

SERVICE_ENDS = (
    "ERR_CONNECTION_REFUSED",
    "ERR_CONNECTION_RESET",
    "ERR_EMPTY_RESPONSE",
    "ERR_INCOMPLETE_CHUNKED_ENCODING",
    "Failed to fetch",
)


def started(node: Node, service: Running, *vmids: int) -> None:
    for vmid in vmids:
        add_guest(node, vmid, options={"name": f"guest-{vmid}"})
        node.do("start", vmid)
    service.confirms(*vmids)


def guest_row(vmid: int) -> str:
    return f'tr[data-vmid="{vmid}"]'


def test_it_shows_the_guests_and_where_they_are(
    node: Node, service: Running, view: Watched
) -> None:
    started(node, service, 100, 101)
    view.live(service.port)
    for vmid in (100, 101):
        guest = service.guest(vmid)
        row = view.page.locator(guest_row(vmid))
        expect(row).to_contain_text(f"guest-{vmid}")
        expect(row).to_contain_text("full · threads")
        expect(row.locator("button")).to_have_accessible_name(
            re.compile(f"^[A-Z] {vmid} guest-{vmid}$")
        )
        expect(row.locator(".cpus")).to_have_text(str(guest["cpus"]))
        cell = view.page.locator(f'#map [data-cpu="{guest["cpus"]}"]')
        expect(cell).to_contain_text(str(vmid))
        expect(cell).to_have_attribute(
            "aria-label", f"CPU {guest['cpus']}, guest {vmid} guest-{vmid}"
        )


def test_a_guest_that_starts_appears_and_one_that_stops_goes(
    node: Node, service: Running, view: Watched
) -> None:
    add_guest(node, 100)
    view.live(service.port)
    row = view.page.locator(guest_row(100))
    expect(row).to_contain_text("stopped")
    node.do("start", 100)
    expect(row).to_contain_text("full · threads", timeout=PATIENCE)
    expect(view.page.locator("#map .cell", has_text="100")).to_have_count(1)
    expect(view.page.locator("#event-list")).to_contain_text("VM 100")
    expect(view.page.locator("#facts")).to_contain_text("1 running, 1 confined")
    node.do("stop", 100)
    expect(row).to_contain_text("stopped", timeout=PATIENCE)
    expect(view.page.locator("#map .cell", has_text="100")).to_have_count(0)


def test_pointing_at_either_side_lights_up_the_other(
    node: Node, service: Running, view: Watched
) -> None:
    started(node, service, 100, 101)
    view.live(service.port)
    cpu = service.guest(100)["cpus"]
    cell = view.page.locator(f'#map [data-cpu="{cpu}"]')
    row = view.page.locator(guest_row(100))
    row.hover()
    expect(cell).to_have_class("cell on")
    view.page.locator("h1").hover()
    expect(cell).to_have_class("cell")
    cell.hover()
    expect(row).to_have_class("guest on")
    expect(view.page.locator("#reading")).to_contain_text(f"CPU {cpu} · core")
    expect(view.page.locator("#reading")).to_contain_text("load", timeout=PATIENCE)


def test_a_guest_opens_its_explanation_by_keyboard(
    node: Node, service: Running, view: Watched
) -> None:
    started(node, service, 100)
    view.live(service.port)
    view.page.locator('#map .cell[tabindex="0"]').focus()
    view.page.keyboard.press("End")
    view.page.keyboard.press("Home")
    cpu = int(str(service.guest(100)["cpus"]))
    for _ in range(cpu):
        view.page.keyboard.press("ArrowRight")
    expect(view.page.locator(f'#map [data-cpu="{cpu}"]')).to_be_focused()
    expect(view.page.locator(guest_row(100))).to_have_class("guest on")
    view.page.keyboard.press("Enter")
    button = view.page.locator(f"{guest_row(100)} button")
    expect(button).to_be_focused()
    expect(button).to_have_attribute("aria-expanded", "true")
    answer = service.get("/api/v1/decisions")
    reason = next(d["reason"] for d in answer.list if d["vmid"] == 100 and d["current"])
    expect(view.page.locator("tr.why")).to_contain_text(str(reason))
    view.page.keyboard.press("Enter")
    expect(view.page.locator("tr.why")).to_have_count(0)


def test_names_are_text(view: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may name a guest must not run scripts in an administrator's browser. Our parser
    refuses such a name already; the page does not rely on it."""
    name = '<img src=x onerror="document.title=1">{{node}}'
    monkeypatch.setenv("PRETENDED_NAME", name)
    view.allowed = SERVICE_ENDS
    with pretended(4) as port:
        view.open(port)
        view.page.wait_for_selector("tr.guest .good")
        row = view.page.locator("tr.guest", has_text="{{node}}")
        expect(row.locator(".name")).to_have_text(name)
        row.locator("button").focus()
        view.page.locator("#map .cell.on").hover()
        expect(view.page.locator("#reading")).to_contain_text(name)
        assert view.page.locator("img").count() == 0
        answer = view.page.request.get(f"http://127.0.0.1:{port}/").text()
        assert "<img src=x" not in answer
        assert "&lt;img" in answer


def test_a_cpu_that_goes_offline_goes_grey_and_leaves_the_heat_map(view: Watched) -> None:
    """The files of the node's own sysfs change; the service's scan finds it, and tells. The heat
    map went on pointing at what was CPU 3's row."""
    view.allowed = SERVICE_ENDS
    files = generate(parse_spec("1x1x2x2"))
    sys_files = {f"/{path}": text for path, text in files.items() if path.startswith("sys/")}
    with short_root() as root:
        node = sim.create(root, guest=GuestKind.STANDIN, sys_files=sys_files)
        try:
            with Running(node) as service:
                view.live(service.port)
                cell = view.page.locator('#map [data-cpu="3"]')
                expect(cell).not_to_contain_class("offline")
                heat, reading = view.page.locator("#heat-map"), view.page.locator("#heat-reading")
                heat.scroll_into_view_if_needed()
                heat.locator("svg").wait_for()
                heat.focus()
                for key in ("ArrowDown", "ArrowRight") * 3:
                    view.page.keyboard.press(key)
                expect(reading).to_have_text("CPU 3 itself")
                lay_out(root, parse_spec("1x1x2x2+offline=3"))
                expect(cell).to_contain_class("offline", timeout=PATIENCE)
                expect(cell).to_have_attribute("aria-label", "CPU 3, offline")
                expect(view.page.locator("#event-list")).to_contain_text("online")
                expect(heat.locator("[data-cpus]")).to_have_attribute("data-cpus", "0 2 1")
                heat.blur()
                heat.focus()
                expect(reading).to_have_text("CPU 1 itself")
        finally:
            node.destroy()


def test_it_says_that_the_connection_is_lost_and_comes_back(
    node: Node, service: Running, view: Watched
) -> None:
    view.allowed = SERVICE_ENDS
    started(node, service, 100)
    view.live(service.port)
    service.flags = ("--port", str(service.port))
    service.end()
    state = view.page.locator("#live")
    expect(state).to_have_text("Connection lost; trying again", timeout=PATIENCE)
    add_guest(node, 101)
    service.start()
    node.do("start", 101)
    expect(state).to_have_text("Live", timeout=PATIENCE)
    expect(view.page.locator(guest_row(101))).to_contain_text("full", timeout=PATIENCE)
    expect(view.page.locator(guest_row(100))).to_contain_text("full")


def test_without_scripts_it_is_a_plain_table(
    browser: Browser, node: Node, service: Running
) -> None:
    started(node, service, 100)
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{service.port}/")
        guests = page.locator("#guests table").inner_text()
        assert "guest-100" in guests
        assert "full" in guests
        cpus = str(service.guest(100)["cpus"])
        host = page.locator("#host .plain table")
        assert host.is_visible()
        assert f"100 ({cpus})" in host.inner_text()
        assert not page.locator("#map").is_visible()
        assert not page.locator("#try").is_visible()
        assert "without scripts" in page.locator("#live").inner_text()
    finally:
        context.close()


def test_the_heat_map_reads_the_exact_value(service: Running, view: Watched) -> None:
    view.live(service.port)
    heat = view.page.locator("#heat-map")
    heat.scroll_into_view_if_needed()
    view.page.wait_for_selector("#heat-map svg")
    matrix = service.get("/api/v1/matrix").json
    cpus, ns = matrix["cpus"], matrix["ns"]
    assert isinstance(cpus, list)
    assert isinstance(ns, list)
    heat.focus()
    reading = view.page.locator("#heat-reading")
    if len(cpus) > 1:
        expect(reading).to_contain_text(" ns one way")
        assert "and CPU" in reading.inner_text()
    view.page.keyboard.press("ArrowLeft")
    expect(reading).to_contain_text("itself")


def test_what_the_policy_forbids_is_noticed_by_these_tests(service: Running, view: Watched) -> None:
    """The checks at the end of each test can fail."""
    view.live(service.port)
    view.check()
    view.page.evaluate("document.body.append(document.createElement('style'))")
    view.page.evaluate("document.querySelector('body > style').textContent = 'p { color: red }'")
    service.wait_for(lambda: view.page.evaluate("window.violations.length > 0"))
    with pytest.raises(AssertionError):
        view.check()
    assert any("style-src" in said for said in view.page.evaluate("window.violations"))
    view.page.evaluate("window.violations = []")
    view.allowed = ("Content Security Policy", "style")
