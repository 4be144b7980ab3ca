"""The journal in a PostgreSQL database, for any number of machines that receive and forward.

What is due, and whose lease has ended, is told by the database's clock. What the bridge has promised someone, an append or a
replay, is durable as the server is configured (`synchronous_commit`), and on its disk at least; what a forwarder does is not waited for: after a power
cut of the server its last moments are forwarded again, with the same ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from functools import partial

from psycopg import AsyncConnection

from bridge.errors import JournalUnavailable
from bridge.journal import Census, History
from bridge.journal.group_commit import GroupCommit
from bridge.journal.postgresql import appends, reads, writes
from bridge.journal.postgresql.presence import Presence
from bridge.journal.postgresql.schema import check_known, migrate, schema_number
from bridge.journal.postgresql.server import Job, Server, T
from bridge.journal.postgresql.url import fault_of, file_of, shown
from bridge.journal.rows import Row, check, row_of
from bridge.model import Attempt, Delivery, Entry, Selection, Settlement

__all__ = ["PostgresqlJournal", "at", "exists", "fault_of", "file_of", "rehearse", "shown"]

# Seconds a statement may take that a provider waits for, or a scrape. Slack gives up on us after three.
_WITHIN = 2.0
# Seconds between two rings: who hears one looks for everything that is due.
_BETWEEN_RINGS = 0.01


class PostgresqlJournal:
    """See `bridge.journal.Journal` for what each method promises."""

    def __init__(self, url: str, *, connections: int, create: bool = True) -> None:
        """For a running loop. The first call connects, and makes the tables where there are none, or with `create` False fails.

        `connections`: at most so many, and one more for who waits. Raises ValueError on what is no URL.
        """
        self._server = Server(url, most=connections, create=create)
        self._presence = Presence(self._server)
        self._commits = GroupCommit(self._write, committed=self._ring, check_open=self._check_open, patience=_WITHIN)
        self._pruning = writes.Pruning()
        self._unheard = False
        self._ringing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def append(self, delivery: Delivery) -> Coroutine[None, None, bool]:
        # Not `async`: while it waits for the disk, only the row is held, and not the payload.
        return self._commits.append(row_of(delivery), size=len(delivery.body))

    async def adopt(self, histories: Sequence[History]) -> int:
        adopted = await self._on(partial(appends.adopt, histories=histories)) if histories else 0
        if adopted:
            self._ring()
        return adopted

    async def claim(self, limit: int, *, lease: int, now: int | None = None) -> Sequence[Entry]:
        self._check_open()
        await self._presence.enter()
        holder = self._presence.holder
        return await self._on(partial(writes.claim, limit=limit, lease=lease, holder=holder, now=now))

    async def settle(self, settlements: Sequence[Settlement], *, now: int | None = None) -> int:
        check(settlements)
        return await self._on(partial(writes.settle, settlements=settlements, now=now)) if settlements else 0

    async def recover(self) -> int:
        recovered = await self._on(partial(writes.recover, holder=self._presence.holder))
        if recovered:
            self._ring()
        return recovered

    async def replay(self, seqs: Sequence[int], *, new_ids: bool = False, now: int | None = None) -> int:
        replayed = await self._on(partial(writes.replay, seqs=seqs, new_ids=new_ids, now=now))
        if replayed:
            self._ring()
        return replayed

    async def find(
        self, selection: Selection, *, limit: int, beyond: int | None = None, oldest_first: bool = False
    ) -> Sequence[Entry]:
        return await self._on(
            partial(reads.find, selection=selection, limit=limit, beyond=beyond, oldest_first=oldest_first)
        )

    async def load(self, seq: int) -> Entry | None:
        return await self._on(partial(reads.load, seq=seq))

    async def attempts(self, seq: int) -> Sequence[Attempt]:
        return await self._on(partial(reads.attempts, seq=seq))

    async def census(self, *, now: int | None = None) -> Census:
        return await self._on(partial(reads.census, now=now), within=_WITHIN)

    async def prune(self, *, bodies: int, ids: int, limit: int, now: int | None = None) -> int:
        return await self._on(partial(self._pruning.step, bodies=bodies, ids=ids, limit=limit, now=now))

    async def wait(self, seconds: float) -> None:
        self._check_open()
        await self._presence.wait(seconds)

    async def reserve(self, *, alone: bool = False) -> None:
        """For any number of services; for one who wants to be alone, as long as none starts."""
        self._check_open()
        if alone and await self._on(reads.at_work):
            raise JournalUnavailable(f"{self._server.name}: a bridge is running on it: stop it first")

    async def identity(self) -> str:
        return await self._on(reads.identity)

    async def check(self) -> None:
        await self._on(appends.probe, within=_WITHIN)

    async def close(self) -> None:
        """Never raises. What was accepted is committed first."""
        if self._closing.is_set():
            return
        self._closing.set()
        await self._commits.drain()
        if self._ringing is not None:
            await self._ringing
        await self._presence.close()
        await self._server.close()

    def _write(self, rows: Sequence[Row]) -> asyncio.Future[frozenset[int]]:
        return asyncio.ensure_future(self._server.run(partial(appends.append, rows=rows), within=_WITHIN))

    async def _on(self, job: Job[T], *, within: float | None = None) -> T:
        self._check_open()
        return await self._server.run(job, within=within)

    def _ring(self) -> None:
        """Tell all who wait, soon: not in the transaction itself, for those that notify are committed one after the other."""
        self._unheard = True
        if self._ringing is None or self._ringing.done():
            self._ringing = asyncio.create_task(self._ring_out())

    async def _ring_out(self) -> None:
        while self._unheard:
            self._unheard = False
            with suppress(JournalUnavailable):  # then they look by themselves
                await self._server.run(writes.ring, within=_WITHIN)
            with suppress(TimeoutError):
                async with asyncio.timeout(_BETWEEN_RINGS):
                    await self._closing.wait()

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise JournalUnavailable(f"{self._server.name}: closed")


def at(url: str, *, connections: int, create: bool, receiving: bool) -> PostgresqlJournal:
    """As `bridge.journal.at`."""
    del receiving
    return PostgresqlJournal(url, connections=connections, create=create)


def exists(url: str) -> bool:
    """As `bridge.journal.exists`: only a connection could tell."""
    del url
    return True


async def rehearse(url: str) -> None:
    """As `bridge.journal.rehearse`."""
    server = Server(url, most=1, migrated=True)
    try:
        await server.run(_rehearse, within=_WITHIN)
    finally:
        await server.close()


async def _rehearse(connection: AsyncConnection) -> None:
    if await schema_number(connection):
        await check_known(connection)
        await appends.probe(connection)
        return
    async with connection.transaction(force_rollback=True):
        await migrate(connection)
        await appends.probe(connection)
