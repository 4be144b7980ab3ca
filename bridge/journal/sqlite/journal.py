"""The journal in one SQLite file, for one machine: any number of processes, one of them the forwarder.

A process has two connections, each with a thread of its own. What the bridge has promised someone, an append or a replay,
goes through the one that waits for the disk (`synchronous=FULL`); a receiver appends through a process that has such a one
(see `writer`). The other (`NORMAL`) survives a crash of the process, and a power cut may undo its last moments: a settlement
undone so is sent again with the same ids. It also moves what lies in the write-ahead log into the database, so that no append
waits for that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from bridge.clock import wall_clock
from bridge.errors import JournalUnavailable
from bridge.journal import Census, History
from bridge.journal.group_commit import GroupCommit
from bridge.journal.rows import Row, check, row_of
from bridge.journal.sqlite import appends, reads, writes
from bridge.journal.sqlite.bell import Bell
from bridge.journal.sqlite.file import CHECKPOINT_AFTER, SqliteFile
from bridge.journal.sqlite.place import Reservation, exists, fault_of, file_of, one_to_try, path_of, shown
from bridge.journal.sqlite.steps import Steps
from bridge.journal.sqlite.writing import Writer
from bridge.model import Attempt, Delivery, Entry, Selection, Settlement

__all__ = ["SqliteJournal", "at", "exists", "fault_of", "file_of", "rehearse", "shown"]

T = TypeVar("T")

# Seconds between two looks, where nothing is due, for what was received in the future.
_HASTEN_EVERY = 1.0
# Bytes that are written for a row beside its body, and for a change of it: about, to tell when a checkpoint is due.
_ROW, _CHANGE = 2_048, 1_024


class SqliteJournal:
    """See `bridge.journal.Journal` for what each method promises."""

    def __init__(self, path: Path, *, receiving: bool = False) -> None:
        """For a running loop. The first call creates the file where there is none, for its owner alone.

        `receiving`: to append is a process's of its own.
        """
        self._path = path.resolve()  # SQLite follows a link, and keeps the -wal beside what it leads to
        self._durable = SqliteFile(self._path, synchronous="FULL")
        self._quick = SqliteFile(self._path, synchronous="NORMAL")
        self._threads = {file: ThreadPoolExecutor(1, "journal") for file in (self._durable, self._quick)}
        self._writer = Writer(self._path) if receiving else None
        self._bell = Bell(self._path)
        self._commits = GroupCommit(self._write, committed=self._committed, check_open=self._check_open)
        self._written = 0
        self._steps = Steps(wall_clock)
        self._hasten_from = 0.0
        self._reservation = Reservation(self._path)
        self._closed = False

    def append(self, delivery: Delivery) -> Coroutine[None, None, bool]:
        # Not `async`: while it waits for the disk, only the row is held, and not the payload.
        return self._commits.append(row_of(delivery), size=len(delivery.body))

    async def adopt(self, histories: Sequence[History]) -> int:
        adopted = await self._on(self._durable, partial(appends.adopt, histories=histories))
        if adopted:
            self._bell.ring()
        return adopted

    async def claim(self, limit: int, *, lease: int, now: int | None = None) -> Sequence[Entry]:
        claim = partial(writes.claim, limit=limit, now=_time(now), lease=lease)
        if back := self._steps.back():
            await self._on(self._quick, partial(writes.set_back, by=back, now=_time(now)))
        entries = await self._on(self._quick, claim)
        if not entries and time.monotonic() >= self._hasten_from:
            self._hasten_from = time.monotonic() + _HASTEN_EVERY
            if await self._on(self._quick, partial(writes.hasten, now=_time(now))):
                entries = await self._on(self._quick, claim)
        return entries

    async def settle(self, settlements: Sequence[Settlement], *, now: int | None = None) -> int:
        check(settlements)
        self._steps.see()
        return await self._tidy(partial(writes.settle, settlements=settlements, now=_time(now))) if settlements else 0

    async def recover(self) -> int:
        recovered = await self._on(self._quick, writes.recover)
        if recovered:
            self._bell.ring()
        return recovered

    async def replay(self, seqs: Sequence[int], *, new_ids: bool = False, now: int | None = None) -> int:
        replayed = await self._on(self._durable, partial(writes.replay, seqs=seqs, now=_time(now), new_ids=new_ids))
        if replayed:
            self._bell.ring()
        return replayed

    async def find(
        self, selection: Selection, *, limit: int, beyond: int | None = None, oldest_first: bool = False
    ) -> Sequence[Entry]:
        return await self._on(
            self._quick,
            partial(reads.find, selection=selection, limit=limit, beyond=beyond, oldest_first=oldest_first),
        )

    async def load(self, seq: int) -> Entry | None:
        return await self._on(self._quick, partial(reads.load, seq=seq))

    async def attempts(self, seq: int) -> Sequence[Attempt]:
        return await self._on(self._quick, partial(reads.attempts, seq=seq))

    async def census(self, *, now: int | None = None) -> Census:
        return await self._on(self._quick, partial(reads.census, now=_time(now)))

    async def prune(self, *, bodies: int, ids: int, limit: int, now: int | None = None) -> int:
        return await self._tidy(partial(writes.prune, bodies=bodies, ids=ids, limit=limit, now=_time(now)))

    async def wait(self, seconds: float) -> None:
        self._check_open()
        await self._bell.wait(seconds)

    async def reserve(self, *, alone: bool = False) -> None:
        del alone  # whoever has it is
        self._check_open()
        self._reservation.take()

    async def identity(self) -> str:
        return str(self._path)

    async def check(self) -> None:
        await self._on(self._durable, writes.probe)

    async def close(self) -> None:
        """Never raises. What was accepted is committed first."""
        if self._closed:
            return
        self._closed = True
        await self._commits.drain()
        if self._writer is not None:
            await self._writer.stop()
        self._bell.close()
        for file, thread in self._threads.items():
            await self._submit(file, file.close)
            thread.shutdown()
        self._reservation.give_back()

    def _write(self, rows: Sequence[Row]) -> asyncio.Future[frozenset[int]]:
        self._written += sum(len(row[-2]) + _ROW for row in rows)
        if self._writer is not None:
            return asyncio.ensure_future(self._writer.append(rows))
        return self._submit(self._durable, lambda: self._durable.run(partial(appends.append, rows=rows)))

    def _committed(self) -> None:
        self._bell.ring()
        self._checkpoint_if_due()

    def _checkpoint_if_due(self) -> None:
        if self._written >= CHECKPOINT_AFTER and not self._closed:  # closing does one
            self._written = 0
            self._submit(self._quick, self._quick.checkpoint)  # nobody waits for it

    async def _on(self, file: SqliteFile, job: Callable[..., T]) -> T:
        self._check_open()
        return await self._submit(file, lambda: file.run(job))

    async def _tidy(self, job: Callable[..., int]) -> int:
        """For the forwarder's writing, which is followed by a checkpoint where one is due."""
        changed = await self._on(self._quick, job)
        self._written += changed * _CHANGE
        self._checkpoint_if_due()
        return changed

    def _submit(self, file: SqliteFile, job: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads[file], job)

    def _check_open(self) -> None:
        if self._closed:
            raise JournalUnavailable(f"{self._path}: closed")


def at(url: str, *, connections: int, create: bool, receiving: bool) -> SqliteJournal:
    """As `bridge.journal.at`."""
    del connections, create
    return SqliteJournal(path_of(url), receiving=receiving)


async def rehearse(url: str) -> None:
    """As `bridge.journal.rehearse`."""
    with one_to_try(url) as path:
        store = SqliteJournal(path)
        try:
            await store.check()
        finally:
            await store.close()


def _time(now: int | None) -> int:
    """All who use the file are on one machine, so its clock is theirs."""
    return wall_clock() if now is None else now
