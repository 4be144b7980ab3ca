"""Stands between a client and a PostgreSQL: speaks TLS, which the server itself need not, turns away, or keeps waiting."""

from __future__ import annotations

import asyncio
import ssl
import struct
from contextlib import suppress
from types import TracebackType
from typing import Self

# What a client may ask before it says who it is: https://www.postgresql.org/docs/current/protocol-message-formats.html
_SSL_REQUEST, _GSSENC_REQUEST = 80877103, 80877104


class Proxy:
    """On loopback, before the server at that port. With `tls`, nobody gets past it in the clear."""

    def __init__(self, to: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.arrivals: list[float] = []
        """When each connection came, by the clock of the loop."""
        self.refusing = False
        self.passing = asyncio.Event()
        """Whoever comes while it is not set waits for it."""
        self.passing.set()
        self._to = to
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def through(self, url: str) -> str:
        """The same URL, by way of here."""
        return url.replace(f":{self._to}/", f":{self.port}/")

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.arrivals.append(asyncio.get_running_loop().time())
        serving = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.refusing:
                return
            await self.passing.wait()
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._forward(reader, writer, await self._greeting(reader, writer))
        finally:
            writer.close()

    async def _greeting(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """The first bytes that are for the server. Raises ConnectionError where they come in the clear and may not."""
        encrypted = False
        while True:
            start = await reader.readexactly(8)
            _, code = struct.unpack("!II", start)
            if code == _SSL_REQUEST and self._tls is not None:
                writer.write(b"S")
                await writer.start_tls(self._tls)
                encrypted = True
            elif code in (_SSL_REQUEST, _GSSENC_REQUEST):
                writer.write(b"N")
            elif encrypted or self._tls is None:
                return start
            else:
                raise ConnectionAbortedError

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, start: bytes) -> None:
        answers, requests = await asyncio.open_connection("127.0.0.1", self._to)
        requests.write(start)
        both = [asyncio.create_task(_pump(reader, requests)), asyncio.create_task(_pump(answers, writer))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            requests.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while piece := await source.read(1 << 16):
        sink.write(piece)
        await sink.drain()
