"""Connections to the public listener: how many a stranger may hold, how long, and in how much memory.

Nothing is proven of one that still owes us the head of a request. Where room runs short, whoever has owed it for longest
gives way: a provider's is here within milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.hdrs import SERVER
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from bridge import log

# Bytes of one head. Providers' have less than 2 KiB; aiohttp alone would take a megabyte.
_LONGEST_HEAD = 32 << 10
# Bytes of all heads that are not whole yet. Parsed they take about twice as much.
_MOST_HEADS = 32 << 20
# Seconds a head has, at least; at most twice that.
_HEAD_WITHIN = 15.0
# Seconds between two looks whether all have left.
_LOOK_AGAIN = 0.05
_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Server(web.Server):
    """aiohttp's, which takes as many connections as come and waits for a request without end. `most`: connections."""

    def __init__(
        self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], *, most: int, **options: Any
    ) -> None:
        super().__init__(answer, **options)
        self._most = most
        self._owing: dict[RequestHandler, int] = {}
        """Bytes of its head from each connection that owes us one, who has owed it for longest first."""
        self._held = 0
        self.leaves = False
        """Whether each answer is the last one on its connection."""
        self._crowded_out = log.Sparing("connection.crowded_out")

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    async def take_leave(self, *, idle: float, busy: float) -> None:
        """Each answer is the last one on its connection from here on. After `idle` seconds those without a request are
        closed. Returns when none is left, and after `busy` seconds at the latest: aiohttp would read no body to its end.
        """
        self.leaves = True
        began = self._loop.time()
        while self._connections and (passed := self._loop.time() - began) < busy:
            if passed >= idle:
                for connection in self.connections:
                    asks = connection._request_in_progress or connection._messages  # noqa: SLF001 - nothing else tells
                    if not asks and not self._owing.get(connection):
                        self._drop(connection)
            await asyncio.sleep(_LOOK_AGAIN)

    async def drop_the_silent(self, *, within: float = _HEAD_WITHIN) -> None:
        """For ever: close connections that do not bring the head they owe. Whoever opened as many as we may have, and said
        nothing, would keep every provider out.
        """
        seen: dict[RequestHandler, int] = {}
        while True:
            await asyncio.sleep(within)
            owing = {each: each._request_count for each in self._owing}  # noqa: SLF001 - nothing else tells
            for connection in [each for each, count in owing.items() if seen.get(each) == count]:
                self._drop(connection)
            seen = owing

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._owing[handler] = 0
        if len(self._connections) > self._most:
            self._loop.call_soon(self._make_room, "connections")  # it may be this very one, which is not quite made

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.whole(handler)

    def partly(self, handler: RequestHandler, size: int) -> None:
        """So much more came of a head that is not whole."""
        self._owing[handler] = held = self._owing.get(handler, 0) + size
        self._held += size
        if held > _LONGEST_HEAD:
            if handler.transport is not None:
                handler.transport.write(_TOO_LONG)
            self._drop(handler)
        while self._held > _MOST_HEADS:
            self._make_room("heads")

    def whole(self, handler: RequestHandler) -> None:
        """It owes us none now."""
        self._held -= self._owing.pop(handler, 0)

    def _make_room(self, of: str) -> None:
        if self._owing:
            self._crowded_out.warning(reason=of)
            self._drop(next(iter(self._owing)))

    def _drop(self, handler: RequestHandler) -> None:
        self.whole(handler)
        handler.force_close()

    def _make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return _Request(message, payload, protocol, writer, task, self._loop)


class Runner(web.AppRunner):
    """Serves an application by such a server."""

    __slots__ = ("_dropping", "_most")

    def __init__(self, application: web.Application, *, most: int, **options: Any) -> None:
        super().__init__(application, **options)
        self._most = most

    async def _make_server(self) -> Server:
        await super()._make_server()  # it is started
        handle: Any = self._app._handle  # noqa: SLF001 - as aiohttp makes its own
        server = Server(handle, most=self._most, request_factory=self._app._make_request, **self._kwargs)  # noqa: SLF001 - as above
        self._dropping = asyncio.create_task(server.drop_the_silent())
        return server

    async def _cleanup_server(self) -> None:
        self._dropping.cancel()
        await super()._cleanup_server()


class _Connection(RequestHandler):
    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        server = self._manager
        if not isinstance(server, Server):  # the connection is gone
            return
        waiting = self._waiter is not None and not self._waiter.done()
        if waiting or not self._request_count:
            server.partly(self, len(data))
            return
        server.whole(self)
        if self._current_request is not None:
            self._give_up_a_body(self._current_request)

    def _give_up_a_body(self, request: web.BaseRequest) -> None:
        """What is wrong behind the head of a request is another message for aiohttp: the body would be waited for in vain."""
        malformed = self._messages and not isinstance(self._messages[-1][0], RawRequestMessage)
        if malformed and not request.content.is_eof():
            request._cancel(web.RequestPayloadError())  # noqa: SLF001 - as aiohttp does where a connection is lost

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The usual one, of aiohttp, quotes what was sent."""
        super().handle_error(request, status, exc, message)
        response = web.Response(status=status, text=f"{HTTPStatus(status).phrase}\n")
        response.force_close()
        return response


class _Request(web.BaseRequest):
    @property
    def keep_alive(self) -> bool:
        """Behind an offer to upgrade the parser loses count of what is whose."""
        server = self._protocol._manager  # noqa: SLF001 - nothing else tells; None: the connection is gone
        leaves = isinstance(server, Server) and server.leaves
        return not (self._message.should_close or self._message.upgrade or leaves)

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """Nobody needs to know which versions of Python and aiohttp to look up."""
        response.headers.pop(SERVER, None)
