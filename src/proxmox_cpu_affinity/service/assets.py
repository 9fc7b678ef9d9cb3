"""The page's files: served as they lie in `page/`, one path each, nothing else of the disk; the
index filled in with what is, for those without scripts.

Out of scope: what is in them.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "Cache-Control": "no-cache",  # asked for each time, answered with 304 while it is the same
}


def found(folder: Path = FOLDER) -> Iterator[tuple[str, Path]]:
    """Each file with the path it is served at; the index is at `/`."""
    for file in sorted(folder.iterdir()):
        if file.suffix in KINDS and file.is_file():
            yield "/" if file.name == INDEX else f"/{file.name}", file


def index(
    fill: Callable[[str], Awaitable[str]], file: Path = FOLDER / INDEX
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The index, filled in anew each time: it is never kept."""

    async def answer(request: web.Request) -> web.StreamResponse:
        del request
        template = await asyncio.to_thread(file.read_text, encoding="utf-8")
        headers = {**HEADERS, "Cache-Control": "no-store"}
        return web.Response(text=await fill(template), content_type="text/html", headers=headers)

    return answer


def handler(file: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A file as it lies there."""

    async def answer(request: web.Request) -> web.StreamResponse:
        content = await asyncio.to_thread(file.read_bytes)
        tag = hashlib.sha256(content).hexdigest()[:16]
        headers = {**HEADERS, "ETag": f'"{tag}"'}
        if any(each.value == tag for each in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(
            body=content, content_type=KINDS[file.suffix], charset="utf-8", headers=headers
        )

    return answer
