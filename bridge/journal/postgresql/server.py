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
from bridge.journal.postgresql.schema import migrate, schema_number
from bridge.journal.postgresql.sql import SESSION
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
    errors.ReadOnlySqlTransaction: "can't be written: read-only",
    errors.QueryCanceled: "ran over `statement_timeout`",
    errors.LockNotAvailable: "locked by another transaction",
    errors.ConnectionTimeout: "does not answer",
    errors.DataCorrupted: "damaged: restore it from a backup",
    errors.IndexCorrupted: "an index is damaged: REINDEX, or restore it from a backup",
}
# Nothing was done, and the connection is of no more use: it is gone, or it leads to a server that only reads.
_LOST = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.ReadOnlySqlTransaction)
# What stands before the reason, in libpq's words and psycopg's.
_REASON = re.compile(
    r" failed: |connection is bad: |failed to resolve host .*?: (?:\[Errno -?[0-9]+\] )?|: (?=connection timeout expired)|^(?=connection timeout)"
)
# What holds every text: the second takes all bytes as they come.
_ENCODINGS = ("UTF8", "SQL_ASCII")
_CLASHED = (errors.DeadlockDetected, errors.SerializationFailure)


class Server:
    """At most `most` connections at a time: who comes then waits.

    A connection is `_opening`, and while it is made ready `_preparing`; then it is `_busy` with a job, or `_idle`. `_running`
    are the tasks of jobs and openings, which go on when their callers leave.
    """

    def __init__(
        self,
        url: str,
        *,
        most: int,
        create: bool = True,
        migrated: bool = False,
        dice: Callable[[], float] = random,
    ) -> None:
        """`create`: make tables where there are none. `migrated`: leave them as they are. Raises ValueError on what is no URL."""
        self.name = shown(url)
        self._conninfo = make_conninfo("", **parameters(url))
        self._dice = dice
        self._most = most
        self._room = asyncio.Semaphore(most)
        self._idle: list[AsyncConnection] = []
        self._busy: set[AsyncConnection] = set()
        self._preparing: set[AsyncConnection] = set()
        self._freed = asyncio.Event()
        self._connecting = asyncio.Lock()
        self._opening: asyncio.Task[AsyncConnection] | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._create = create
        self._migrated = migrated
        self._pause = _FIRST
        self._not_before = 0.0
        self._why = ""

    async def run(self, job: Job[T], *, within: float | None = None) -> T:
        """What the job returns, on a connection in autocommit. `within`: seconds, waiting for a connection included.

        It goes on when its caller is cancelled: a connection in the middle of something is of no use to the next.
        """
        task = asyncio.ensure_future(self._run(job))
        self._note(task)
        await asyncio.wait({task}, timeout=within)
        if task.done():
            return task.result()
        task.cancel()  # asks the server to stop, and waits for it: the connection is not used again before
        raise self._unavailable(f"does not answer within {within:g} s")

    async def dedicated(self) -> AsyncConnection:
        """A connection for the caller alone, who closes it: beyond `most`, or one of those where the server grants no more."""
        connection, _ = await self._take(beyond=True)
        self._busy.discard(connection)
        return connection

    async def _connect(self) -> tuple[AsyncConnection, bool]:
        """A new connection, and whether it was there already; the schema is up to date. One is opened at a time."""
        async with self._connecting:
            left = self._opening is not None and self._opening.done()  # by those who could not wait for it
            if left and self._opening is not None and self._opening.exception() is not None:
                self._opening = None  # what was in its way then says nothing of now
            if self._opening is None:
                if asyncio.get_running_loop().time() < self._not_before:
                    raise JournalUnavailable(self._why)
                self._opening = asyncio.ensure_future(self._open())
                self._note(self._opening)
            await asyncio.wait({self._opening}, timeout=_PATIENCE)
            if not self._opening.done():  # it goes on, for the next one
                raise self._unavailable("does not answer")
            opened, self._opening = self._opening, None
            return opened.result(), left

    async def close(self) -> None:
        """Never raises. What is running is waited for, but not for long."""
        if self._running:
            await asyncio.wait(self._running, timeout=_PATIENCE)
        for connection in (*self._busy, *self._preparing):
            connection.pgconn.finish()
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=_PATIENCE)
        opening = self._opening
        if opening is not None and opening.done() and not opening.cancelled() and opening.exception() is None:
            opening.result().pgconn.finish()
        while self._idle:
            await self._idle.pop().close()

    async def _run(self, job: Job[T]) -> T:
        clashes = 0
        async with self._room:
            while True:
                connection, is_old = await self._take()
                try:
                    return await job(connection)
                except psycopg.Error as error:
                    lost = connection.closed or isinstance(error, _LOST)
                    if lost:
                        await connection.close()
                    clashed = isinstance(error, _CLASHED)
                    clashes += clashed
                    # Old: the server was restarted while it was not needed.
                    if (lost and is_old) or (clashed and clashes < _CLASHES):
                        continue
                    if isinstance(
                        error, errors.UndefinedTable
                    ):  # somebody dropped them: the next connection makes them
                        self._migrated = False
                        for each in (connection, *self._idle):
                            await each.close()
                        self._idle.clear()
                    raise self.unavailable(error) from error
                except asyncio.CancelledError:  # it took too long: the next one had better not meet what was in the way
                    connection.pgconn.finish()
                    raise
                finally:
                    self._give_back(connection)

    async def _take(self, *, beyond: bool = False) -> tuple[AsyncConnection, bool]:
        """A connection, and whether it was there already. `beyond`: rather a new one."""
        while beyond or not self._idle:
            beyond = False
            try:
                connection, is_old = await self._connect()
            except JournalUnavailable:
                if not self._busy and not self._idle:
                    raise
                # The server grants no more than we have: one of those will do.
                while self._busy and not self._idle:
                    self._freed.clear()
                    await self._freed.wait()
                continue
            self._busy.add(connection)
            return connection, is_old
        connection = self._idle.pop()
        self._busy.add(connection)
        return connection, True

    def _give_back(self, connection: AsyncConnection) -> None:
        self._busy.discard(connection)
        self._freed.set()
        self._keep(connection)

    def _keep(self, connection: AsyncConnection) -> None:
        is_idle = not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE
        if is_idle and len(self._idle) + len(self._busy) < self._most:
            self._idle.append(connection)
        else:
            connection.pgconn.finish()

    async def _open(self) -> AsyncConnection:
        try:
            connection = await AsyncConnection.connect(self._conninfo, autocommit=True, prepare_threshold=0)
        except psycopg.Error as error:
            raise self._postponed(_why_not(error)) from error
        except UnicodeError:  # the name of a host that can't be asked for
            raise self._postponed("no such host") from None
        self._preparing.add(connection)
        try:
            await self._prepare(connection)
        except psycopg.Error as error:
            await connection.close()
            raise self._postponed(_cause(error)) from error
        except JournalUnavailable as unavailable:
            await connection.close()
            raise self._postponed(str(unavailable)) from unavailable
        except BaseException:
            connection.pgconn.finish()
            raise
        finally:
            self._preparing.discard(connection)
        self._pause, self._not_before = _FIRST, 0.0
        return connection

    async def _prepare(self, connection: AsyncConnection) -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding not in _ENCODINGS:
            raise JournalUnavailable(f"its encoding is {encoding}, which can't hold every text: create it with UTF8")
        await connection.execute(SESSION)
        if self._migrated:
            return
        if not self._create and not await schema_number(connection):
            raise JournalUnavailable("there is no journal yet; `bridge serve` makes it")
        if await migrate(connection):
            log.info("journal.created", server=self.name)
        self._migrated = True

    def _postponed(self, why: str) -> JournalUnavailable:
        """Until then, nobody tries to connect."""
        unavailable = self._unavailable(why)
        self._why = str(unavailable)
        self._not_before = asyncio.get_running_loop().time() + self._pause * (0.5 + self._dice())
        self._pause = min(self._pause * 2, _LONGEST)
        return unavailable

    def unavailable(self, error: psycopg.Error) -> JournalUnavailable:
        """The same, in our words."""
        return self._unavailable(_cause(error))

    def _unavailable(self, why: str) -> JournalUnavailable:
        return JournalUnavailable(f"{self.name}: {why}")

    def _note(self, task: asyncio.Task[Any]) -> None:
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(_hear)


def _hear(task: asyncio.Task[Any]) -> None:
    """What came of it is known, also where nobody waits for it any more."""
    if not task.cancelled():
        task.exception()


def _why_not(error: psycopg.Error) -> str:
    """Why there is no connection: what libpq says of each server, less where it is, which stands in front."""
    # Of several hosts: all of them in lines of their own, behind the last one's.
    first, _, each = str(error).partition("\nMultiple connection attempts failed")
    said = [line for line in (each or first).splitlines() if _REASON.search(line)]
    reasons = [_REASON.split(line)[-1].removeprefix("FATAL:").strip() for line in said]
    return "; ".join(dict.fromkeys(reasons)) or "can't be connected to"


def _cause(error: psycopg.Error) -> str:
    for kind, words in _WORDS.items():
        if isinstance(error, kind):
            return words
    # PostgreSQL's own texts name tables, but those about data may quote what was to be stored.
    if isinstance(error, psycopg.DataError) or error.diag.message_primary is None:
        return f"{type(error).__name__}" if error.sqlstate else "the connection was lost"
    return error.diag.message_primary
