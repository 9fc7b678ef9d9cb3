"""One reader of the events over HTTP: server-sent events, kept alive, ended with the service."""

import asyncio
import socket

from aiohttp import web

from proxmox_cpu_affinity.formats.endpoints import EVENT_STREAM
from proxmox_cpu_affinity.service.stream import Stream

HEARTBEAT = 15.0  # seconds without an event until a comment is sent
RETRY_MS = 2000  # after which a browser comes back
_BUFFER = 32 * 1024  # bytes that the kernel may hold for a reader, and this process


async def tell(request: web.Request, stream: Stream) -> web.StreamResponse:
    """Send events until the reader goes, is too slow, or the service ends."""
    transport = request.transport
    if transport is None:  # from aiohttp 3.9 on a handler is begun all the same
        raise ConnectionResetError("the reader has gone already")
    with stream.reader(request.headers.get("Last-Event-ID"), dropped=transport.abort) as reader:
        peer = transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        assert isinstance(transport, asyncio.WriteTransport)
        transport.set_write_buffer_limits(high=_BUFFER)
        answer = web.StreamResponse(headers={"Cache-Control": "no-store"})
        answer.content_type = EVENT_STREAM
        answer.charset = "utf-8"
        await answer.prepare(request)
        text = f"retry: {RETRY_MS}\n\n{reader.missed()}"
        while text:
            await answer.write(text.encode())
            text = await reader.next(HEARTBEAT)
        await answer.write_eof()
        return answer
