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
from bridge.journal.postgresql.sql import JOURNAL, LISTEN, WORK

# That this holder lives, and that somebody works on this journal. Shared: after a lost connection the server may believe in
# our last session for a while.
_LIVE = f"SELECT pg_advisory_lock_shared({{}}), pg_advisory_lock_shared({WORK}, {JOURNAL}::integer)"
_LEAVE = "SELECT pg_advisory_unlock_all()"
# Seconds for a server to answer.
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
                await _say(connection, _LIVE.format(self.holder), LISTEN)
            except psycopg.Error as error:
                raise self._server.unavailable(error) from error
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
                with suppress(psycopg.Error):
                    await _say(connection, _LEAVE)
                connection.pgconn.finish()

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


async def _say(connection: AsyncConnection, *statements: str) -> None:
    """One after the other. The connection is closed where that fails, or takes too long; then psycopg.Error is raised."""

    async def say() -> None:
        for statement in statements:
            await connection.execute(statement.encode())

    saying = asyncio.ensure_future(say())
    said = False
    try:
        await asyncio.wait({saying}, timeout=_PATIENCE)
        said = saying.done()
    finally:
        if not said:  # closed before it is cancelled: there is nobody to ask to stop, and nothing to wait for
            connection.pgconn.finish()
            saying.cancel()
            await asyncio.gather(saying, return_exceptions=True)
    if saying.cancelled():
        raise psycopg.errors.ConnectionTimeout
    if (error := saying.exception()) is not None:
        connection.pgconn.finish()
        raise error
