"""The page as it is without scripts: everything is there, and no text is read as HTML."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_cpu_affinity.formats import wire
from proxmox_cpu_affinity.render.page import Sight, page_html
from proxmox_cpu_affinity.service import assets

TEMPLATE = (assets.FOLDER / assets.INDEX).read_text(encoding="utf-8")
GUEST = wire.GuestView(
    vmid=100,
    name="web",
    managed=True,
    reason="",
    policy="shared",
    vcpus=2,
    running=True,
    pid=7,
    cpus="0-1",
    applied="0-1",
    outcome="full",
    confinement="scope",
    threads=5,
    faults=[],
    warnings=[],
    nodes=[0],
    score=0.062,
    bound=0.05,
    drift=2,
)
SIGHT = Sight(
    time="2026-01-02 03:04:05 UTC",
    status=wire.Status(
        version="1.2.3",
        uptime_s=1.0,
        node="pve",
        model_name="A processor",
        cpus=4,
        usable="0-3",
        packages=1,
        nodes=1,
        cache_groups=2,
        strategy="balanced",
        manage="tag",
        width="auto",
        confinement="scope",
        guests_running=1,
        guests_confined=1,
        overlap="",
        matrix=wire.MatrixState("trusted", 1.0, measuring=False, pairs_done=0, pairs_all=0,
                                conditions=[]),
        warnings=["a warning"],
        score=wire.ScoreView(0.0312, 0.03, 0.0012, 0.1, 0.2, 0.3),
    ),
    topology=wire.TopologyView(
        model_name="A processor",
        virtual=False,
        possible="0-3",
        present="0-3",
        online="0-3",
        isolated="",
        cpus=[wire.CpuView(cpu, cpu, cpu, cpu // 2, 0, 0, 0, "performance") for cpu in range(4)],
        cores=["0", "1", "2", "3"],
        cache_groups=["0-1", "2-3"],
        packages=["0-3"],
        nodes=[wire.NodeView(0, "0-3", 1024, {"0": 10})],
        notes=[],
    ),
    guests=[GUEST],
)  # fmt: skip


class Reader(HTMLParser):
    """The tags and the texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(f"{tag} {' '.join(name for name, _ in attrs)}")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", " ".join(read(page).texts))


def test_it_says_who_is_where_and_how_well() -> None:
    text = text_of(page_html(TEMPLATE, SIGHT))
    for said in (
        *("100 web", "shared", "0-1", "6.2 % / 5.0 %", "full · scope · put back 2 times"),
        *("As placed 3.1 %", "Least possible 3.0 %", "Without pinning 10.0 %", "a warning"),
        *("A processor · 1 package · 1 node · 2 L3 groups · 4 CPUs", "100 (0-1)"),
        *("1 running, 1 confined", "2026-01-02 03:04:05 UTC", "proxmox-cpu-affinity 1.2.3"),
    ):
        assert said in text, said


def test_guests_that_are_not_held_say_why() -> None:
    bare = replace(GUEST, cpus="", outcome="", score=None, bound=None, drift=0)
    for guest, said in (
        (replace(bare, refused="no CPU is left"), "not placed: no CPU is left"),
        (replace(bare, running=False), "stopped"),
        (bare, "not placed yet"),
        (replace(bare, managed=False, reason="it is a template"), "it is a template"),
    ):
        assert said in text_of(page_html(TEMPLATE, replace(SIGHT, guests=[guest])))


def test_a_node_without_guests_says_so() -> None:
    empty = replace(SIGHT, guests=[], status=replace(SIGHT.status, score=None))
    text = text_of(page_html(TEMPLATE, empty))
    assert "No guest of this node is known." in text
    assert "No guest is placed." in text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=40))
def test_no_text_is_read_as_html(text: str) -> None:
    plain = read(page_html(TEMPLATE, SIGHT))
    guest = replace(GUEST, name=text, refused=text)
    status = replace(SIGHT.status, node=text, model_name=text or "x", warnings=[text])
    odd = read(page_html(TEMPLATE, replace(SIGHT, status=status, guests=[guest])))
    assert odd.tags == plain.tags


def test_a_name_that_looks_like_a_place_stays_a_name() -> None:
    page = page_html(TEMPLATE, replace(SIGHT, guests=[replace(GUEST, name="{{version}}")]))
    assert "{{version}}" in text_of(page)


def test_a_place_that_nobody_knows_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        page_html("{{nobody}}", SIGHT)


def test_the_page_asks_for_nothing_from_elsewhere_and_has_nothing_inline() -> None:
    files = dict(assets.found())
    assert {"/", "/page.js", "/page.css"} <= files.keys()
    for path, file in files.items():
        text = file.read_text(encoding="utf-8")
        outside = re.findall(r"https?://[^\s\"')]+", text)
        assert set(outside) <= {"http://www.w3.org/2000/svg"}, path
    for tag in read(TEMPLATE).tags:
        name, *attributes = tag.split()
        assert name != "style"
        assert not any(each.startswith("on") or each == "style" for each in attributes), tag
