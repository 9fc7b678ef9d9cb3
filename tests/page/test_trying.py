"""Trying without doing, and doing with the token: asked for once, kept in memory only."""

from urllib.parse import urlencode

from playwright.sync_api import expect

from proxmox_cpu_affinity.model.cpuset import CpuSet
from proxmox_cpu_affinity.sim.node import Node
from tests.integration.running import Running
from tests.page.browser import Watched
from tests.page.test_live import guest_row, started

HELD = "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"


def test_the_form_says_where_a_guest_would_go(node: Node, service: Running, view: Watched) -> None:
    started(node, service, 100)
    view.live(service.port)
    view.page.fill("#try-vcpus", "1")
    view.page.get_by_role("button", name="Where would it go?").click()
    answer = view.page.locator("#try-answer")
    asked = urlencode({"vcpus": 1, "policy": "shared", "sockets": 1, "numa": 0})
    trial = service.get(f"/api/v1/try?{asked}").json
    expect(answer).to_contain_text(f"CPUs {trial['cpus']}")
    expect(answer).to_contain_text(str(trial["reason"]))
    for cpu in CpuSet.parse(str(trial["cpus"])):
        expect(view.page.locator(f'#map [data-cpu="{cpu}"]')).to_contain_class("here")
    before = service.guest(100)["cpus"]
    assert before == service.guest(100)["cpus"]
    assert len(service.get("/api/v1/guests").list) == 1


def test_the_form_says_why_a_guest_would_not_be_placed(service: Running, view: Watched) -> None:
    view.live(service.port)
    view.page.fill("#try-vcpus", "4000")
    view.page.select_option("#try-policy", "dedicated")
    view.page.get_by_role("button", name="Where would it go?").click()
    expect(view.page.locator("#try-answer .bad, #try-answer .warn").first).to_be_visible()


def test_the_preview_says_what_placing_all_anew_would_change(
    node: Node, service: Running, view: Watched
) -> None:
    started(node, service, 100)
    view.live(service.port)
    view.page.get_by_role("button", name="What would placing all anew change?").click()
    answer = view.page.locator("#preview-answer")
    moves = service.get("/api/v1/preview").json["moves"]
    assert isinstance(moves, list)
    expect(answer).to_contain_text("No guest would move." if not moves else str(moves[0]["vmid"]))
    expect(answer).to_contain_text("The average vCPU of the host loses")


def test_a_wrong_token_is_refused_and_said_and_the_right_one_acts_without_being_kept(
    node: Node, service: Running, view: Watched
) -> None:
    view.allowed = ("401",)
    started(node, service, 100)
    view.live(service.port)
    view.page.locator(f"{guest_row(100)} button").click()
    again = view.page.get_by_role("button", name="Place 100 anew")
    again.click()
    field, refused = view.page.locator("#ask-token"), view.page.locator("#ask-refused")
    field.fill("wrong")
    view.page.get_by_role("button", name="Do it").click()
    expect(refused).to_have_text("The service refused this token.")
    expect(field).to_be_focused()
    assert "placed anew" not in view.text("#event-list")
    field.fill(service.token)
    view.page.get_by_role("button", name="Do it").click()
    expect(view.page.locator("#ask")).to_be_hidden()
    expect(view.page.locator("#event-list")).to_contain_text("placed anew")
    again.click()
    expect(field).to_be_hidden()
    assert service.token not in str(view.page.evaluate(HELD))
    view.page.keyboard.press("Escape")
    expect(view.page.locator("#ask")).to_be_hidden()
    view.page.reload()
    view.page.wait_for_selector("html[data-ready]")
    view.page.locator(f"{guest_row(100)} button").click()
    again.click()
    expect(field).to_be_visible()
