"""Connections to one PostgreSQL: opened when they are needed, kept for the next call, dropped when they can't be trusted.

Every fault leaves here as JournalUnavailable, one line that names the server and the cause; the transaction is then undone.
Who finds the server away is told at once, and the next try to connect is made a little later each time: psycopg_pool, the
usual choice, lets everybody wait until time is up, and does not say why.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from random import random
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from bridge import log
from bridge.errors import JournalUnavailable
from bridge.journal.postgresql.schema import migrate
from bridge.journal.postgresql.url import parameters, shown

T = TypeVar("T")
Job: TypeAlias = Callable[[AsyncConnection], Coroutine[Any, Any, T]]

# Seconds until those who wait for a new connection are told; it is still waited for, for the next ones.
_PATIENCE = 1.5
# Seconds between two tries to connect: the first, and the longest. Several replicas come back within it, not all at once.
_FIRST, _LONGEST = 0.1, 2.0
# How often one is tried that another transaction was in the way of: once more would do.
_CLASHES = 5

_WORDS: dict[type[psycopg.Error], str] = {
    errors.DiskFull: "the disk is full",
    errors.TooManyConnections: "too many connections",
    errors.ReadOnlySqlTransaction: "can't be written: read-only",
    errors.QueryCanceled: "ran over `statement_timeout`",
    errors.LockNotAvailable: "locked by another transaction",
    errors.DataCorrupted: "damaged: restore it from a backup",
    errors.IndexCorrupted: "an index is damaged: REINDEX, or restore it from a backup",
}
# Nothing was done, and the connection is of no more use: it is gone, or it leads to a server that only reads.
_LOST = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.ReadOnlySqlTransaction)
_CLASHED = (errors.DeadlockDetected, errors.SerializationFailure)


class Server:
    """At most `most` connections at a time: who comes then waits."""

    def __init__(self, url: str, *, most: int, migrated: bool = False, dice: Callable[[], float] = random) -> None:
        self.name = shown(url)
        self._conninfo = make_conninfo("", **parameters(url))
        self._dice = dice
        self._room = asyncio.Semaphore(most)
        self._idle: list[AsyncConnection] = []
        self._busy = 0
        self._freed = asyncio.Event()
        self._running: set[asyncio.Task[Any]] = set()
        self._migrated = migrated
        self._pause = _FIRST
        self._not_before = 0.0
        self._why = ""

    async def run(self, job: Job[T], *, within: float | None = None) -> T:
        """What the job returns, on a connection in autocommit. `within`: seconds.

        It goes on when its caller is cancelled: a connection in the middle of something is of no use to the next.
        """
        task = asyncio.ensure_future(self._run(job, within))
        self._note(task)
        return await asyncio.shield(task)

    async def connect(self) -> AsyncConnection:
        """A connection for the caller alone, who closes it. The schema is up to date."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._not_before:
            raise JournalUnavailable(self._why)
        opening = loop.create_task(self._open())
        self._note(opening)
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.shield(opening)
        except TimeoutError:
            raise self._postponed("does not answer") from None
        finally:
            if not opening.done():  # it goes on, for the next one
                opening.add_done_callback(self._opened_late)

    async def close(self) -> None:
        """Never raises. What is running is waited for, but not for long."""
        if self._running:
            await asyncio.wait(self._running, timeout=_PATIENCE)
        for task in self._running:
            task.cancel()
        while self._idle:
            await self._idle.pop().close()

    async def _run(self, job: Job[T], within: float | None) -> T:
        clashes = 0
        async with self._room:
            while True:
                connection, is_old = await self._take()
                try:
                    return await self._do(job, connection, within)
                except psycopg.Error as error:
                    lost = connection.closed or isinstance(error, _LOST)
                    if lost:
                        await connection.close()
                    clashes += isinstance(error, _CLASHED)
                    # Old: the server was restarted while it was not needed.
                    if (lost and is_old) or 0 < clashes < _CLASHES:
                        continue
                    if isinstance(error, errors.UndefinedTable):
                        self._migrated = False
                    raise self.unavailable(error) from error
                finally:
                    self._give_back(connection)

    async def _take(self) -> tuple[AsyncConnection, bool]:
        """A connection, and whether it was there already."""
        while not self._idle:
            try:
                connection = await self.connect()
            except JournalUnavailable:
                if not self._busy:
                    raise
                # The server grants no more than we have: one of those will do.
                self._freed.clear()
                await self._freed.wait()
                continue
            self._busy += 1
            return connection, False
        self._busy += 1
        return self._idle.pop(), True

    def _give_back(self, connection: AsyncConnection) -> None:
        self._busy -= 1
        self._freed.set()
        if not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE:
            self._idle.append(connection)

    async def _do(self, job: Job[T], connection: AsyncConnection, within: float | None) -> T:
        task = asyncio.ensure_future(job(connection))
        done, _ = await asyncio.wait({task}, timeout=within)
        if done:
            return task.result()
        # Asks the server to stop, and may itself have to wait for one that is gone: nobody waits for that here.
        task.cancel()
        ending = asyncio.ensure_future(_end(connection, after=task))
        self._note(ending)
        raise self._unavailable(f"does not answer within {within:g} s")

    async def _open(self) -> AsyncConnection:
        try:
            connection = await AsyncConnection.connect(self._conninfo, autocommit=True, prepare_threshold=0)
        except psycopg.Error as error:
            raise self._postponed(_why_not(error)) from error
        try:
            if not self._migrated:
                if await migrate(connection):
                    log.info("journal.created", server=self.name)
                self._migrated = True
        except psycopg.Error as error:
            await connection.close()
            raise self._postponed(_cause(error)) from error
        except BaseException:
            await connection.close()
            raise
        self._pause, self._not_before = _FIRST, 0.0
        return connection

    def _opened_late(self, opening: asyncio.Task[AsyncConnection]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._idle.append(opening.result())

    def _postponed(self, why: str) -> JournalUnavailable:
        """Until then, nobody tries to connect."""
        unavailable = self._unavailable(why)
        self._why = str(unavailable)
        self._not_before = asyncio.get_running_loop().time() + self._pause * (0.5 + self._dice())
        self._pause = min(self._pause * 2, _LONGEST)
        return unavailable

    def unavailable(self, error: psycopg.Error) -> JournalUnavailable:
        return self._unavailable(_cause(error))

    def _unavailable(self, why: str) -> JournalUnavailable:
        return JournalUnavailable(f"{self.name}: {why}")

    def _note(self, task: asyncio.Task[Any]) -> None:
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # heard, also where nobody waits for it


async def _end(connection: AsyncConnection, *, after: asyncio.Task[Any]) -> None:
    await asyncio.wait({after})
    await connection.close()


def _why_not(error: psycopg.Error) -> str:
    """Why there is no connection: what libpq says of each server, less where it is, which stands in front."""
    said = [line for line in str(error).splitlines() if "failed" in line or "bad" in line or "timeout" in line]
    reasons = [re.split(r" failed: |connection is bad: ", line)[-1].removeprefix("FATAL:").strip() for line in said]
    return "; ".join(dict.fromkeys(filter(None, reasons))) or "can't be connected to"


def _cause(error: psycopg.Error) -> str:
    for kind, words in _WORDS.items():
        if isinstance(error, kind):
            return words
    # PostgreSQL's own texts name tables, but those about data may quote what was to be stored.
    if isinstance(error, psycopg.DataError) or error.diag.message_primary is None:
        return f"{type(error).__name__}" if error.sqlstate else "the connection was lost"
    return error.diag.message_primary
