"""The page's files: what is served, under which policy, and nothing else of the disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxmox_cpu_affinity.service import assets
from proxmox_cpu_affinity.sim.settings import GuestKind
from tests.integration.conftest import make_node
from tests.integration.running import Running

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
FILES = {"/page.css": "text/css", "/page.js": "text/javascript", "/icon.svg": "image/svg+xml"}


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    for node in make_node(GuestKind.STANDIN):
        with Running(node) as running:
            yield running


@pytest.mark.parametrize(("path", "kind"), FILES.items())
def test_files_are_served_as_they_lie_under_their_policy(
    service: Running, path: str, kind: str
) -> None:
    answer = service.get(path, tcp=True)
    file = assets.FOLDER / path[1:]
    assert (answer.status, answer.body) == (200, file.read_bytes())
    assert answer.headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-cache"


def test_the_log_says_where_the_page_is(service: Running) -> None:
    """With PCA_PORT=0 nothing else did but a file that nobody knows."""
    assert f"; its page is http://127.0.0.1:{service.port}/\n" in service.log


def test_the_index_is_filled_in_under_the_same_policy(service: Running) -> None:
    answer = service.get("/", tcp=True)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["Cache-Control"] == "no-store"
    assert b"{{" not in answer.body
    assert b"No guest of this node is known." in answer.body


@pytest.mark.parametrize("path", FILES)
def test_what_is_the_same_is_not_sent_again(service: Running, path: str) -> None:
    tag = service.get(path).headers["ETag"]
    again = service.ask("GET", path, headers={"If-None-Match": tag})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["ETag"] == tag
    assert again.headers["Content-Security-Policy"] == POLICY
    other = service.ask("GET", path, headers={"If-None-Match": '"other"'})
    assert other.status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/index.html",
        "/page",
        "/page/",
        "/../http.py",
        "/%2e%2e/http.py",
        "/page.css/../../http.py",
        "/http.py",
        "/page.css%00",
        "//page.css",
    ],
)
def test_nothing_else_is_served(service: Running, path: str) -> None:
    assert service.get(path).status == 404


def test_it_may_not_be_written_to(service: Running) -> None:
    assert service.ask("POST", "/page.js", {}, tcp=True).status == 405


@pytest.mark.parametrize("host", ["127.0.0.1:8245", "localhost:8245", "localhost:9000", "[::1]:80"])
def test_the_page_works_at_its_address_and_through_a_tunnel(service: Running, host: str) -> None:
    """A page asks its own origin, which its browser names: whatever port a tunnel ends at."""
    headers = {"Host": host, "Origin": f"http://{host}"}
    for path in ("/", "/page.js", "/api/v1/status"):
        assert service.ask("GET", path, tcp=True, headers=headers).status == 200
    acting = {**headers, "Authorization": f"Bearer {service.token}"}
    assert service.ask("POST", "/api/v1/reassign", {}, tcp=True, headers=acting).status == 200
    wrong = {**headers, "Authorization": "Bearer wrong"}
    assert service.ask("POST", "/api/v1/reassign", {}, tcp=True, headers=wrong).status == 401


def test_another_page_on_this_host_may_read_nothing_and_act_never(service: Running) -> None:
    """A page of another port of localhost is another origin: its browser lets it read no answer,
    for none allows it to, and it has no token."""
    headers = {"Host": f"localhost:{service.port}", "Origin": "http://localhost:1"}
    answer = service.ask("GET", "/api/v1/status", tcp=True, headers=headers)
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert service.ask("POST", "/api/v1/reassign", {}, tcp=True, headers=headers).status == 401


def test_only_files_of_known_kinds_are_served(tmp_path: Path) -> None:
    for name in ("index.html", "icon.svg", "notes.txt", ".hidden.css~", "page.js"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.css").mkdir()
    paths = [path for path, _ in assets.found(tmp_path)]
    assert paths == ["/icon.svg", "/", "/page.js"]
