"""The session a forwarder keeps: it hears of what is new, and while it is there what the forwarder has claimed is its own.

A session of its own, because both end with it: when the process is killed, the server knows within moments.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from secrets import randbelow

import psycopg
from psycopg import AsyncConnection

from bridge.errors import JournalUnavailable
from bridge.journal.postgresql.server import Server
from bridge.journal.postgresql.sql import LISTEN

# Shared: after a lost connection the server may believe in our last session for a while.
_LIVE = "SELECT pg_advisory_lock_shared(%s)"
_LEAVE = "SELECT pg_advisory_unlock_all()"
# Seconds for a server to hear that we go; it notices anyway.
_PATIENCE = 1.0


class Presence:
    """Opened by the first call that needs it, and again after it was lost."""

    def __init__(self, server: Server) -> None:
        self.holder = 1 + randbelow(2**63 - 1)
        """Who claims: the number of the lock that says that we live."""
        self._server = server
        self._connection: AsyncConnection | None = None
        self._descriptor = -1
        self._closed = False
        self._entering = asyncio.Lock()
        self._heard = asyncio.Event()

    async def enter(self) -> None:
        """Return when the session is there. Raises JournalUnavailable."""
        async with self._entering:
            if self._connection is not None or self._closed:
                return
            connection = await self._server.dedicated()
            try:
                await connection.execute(_LIVE, (self.holder,))
                await connection.execute(LISTEN)
            except psycopg.Error as error:
                await connection.close()
                raise self._server.unavailable(error) from error
            except BaseException:
                await connection.close()
                raise
            self._connection, self._descriptor = connection, connection.fileno()
            asyncio.get_running_loop().add_reader(self._descriptor, self._hear, connection)
            self._heard.set()  # what came before was not heard

    async def wait(self, seconds: float) -> None:
        """Return when something was heard since the last wait returned, and at the latest after about so long."""
        with suppress(JournalUnavailable):  # then who waits looks by himself
            await self.enter()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._heard.wait()
        self._heard.clear()

    async def close(self) -> None:
        """Never raises. Whoever waits, waits no longer; what we hold is nobody's, and the server knows before we go."""
        self._closed = True
        async with self._entering:
            connection = self._connection
            self._leave()
            if connection is not None:
                leaving = asyncio.ensure_future(connection.execute(_LEAVE))
                await asyncio.wait({leaving}, timeout=_PATIENCE)
                connection.pgconn.finish()
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)

    def _hear(self, connection: AsyncConnection) -> None:
        self._heard.set()
        try:
            connection.pgconn.consume_input()
            while connection.pgconn.notifies():
                continue
        except psycopg.Error:
            self._leave()
            connection.pgconn.finish()

    def _leave(self) -> None:
        """Who waits looks by himself, and enters again."""
        if self._connection is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)  # a lost connection does not tell it any more
            self._connection = None
        self._heard.set()
