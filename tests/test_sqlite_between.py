"""What another process does between our looking and our taking, in a SQLite journal. A race meets it by chance; here it
happens every time.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest

from bridge.journal.sqlite import file, writes
from bridge.journal.sqlite.file import SqliteFile
from bridge.journal.sqlite.journal import SqliteJournal
from bridge.model import Attempt, Delivery, Entry, Outcome, Settlement, State

Act: TypeAlias = Callable[[sqlite3.Connection], object]
Between: TypeAlias = Callable[[Act], None]

T0 = 1_767_225_600_000
LEASE = 60_000
FAILED = Attempt(at=T0, outcome=Outcome.RAISED)


@pytest.fixture
async def journal(tmp_path: Path, make_delivery: Callable[..., Delivery]) -> AsyncIterator[SqliteJournal]:
    """With four entries: a, b, c, d."""
    journal = SqliteJournal(tmp_path / "journal.db")
    await asyncio.gather(*(journal.append(make_delivery(name)) for name in "abcd"))
    yield journal
    await journal.close()


@pytest.fixture
def between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Between:
    """Has another connection act before the next transaction of the journal begins."""
    real = file.transaction

    def plan(act: Act) -> None:
        def transaction(db: sqlite3.Connection) -> AbstractContextManager[None]:
            monkeypatch.setattr(writes, "transaction", real)
            other = SqliteFile(tmp_path / "journal.db", synchronous="NORMAL")
            other.run(act)
            other.close()
            return real(db)

        monkeypatch.setattr(writes, "transaction", transaction)

    return plan


def take(limit: int) -> Act:
    return partial(writes.claim, limit=limit, now=T0, lease=LEASE)


def take_and_settle(state: State) -> Act:
    """One of them."""

    def act(db: sqlite3.Connection) -> None:
        [entry] = writes.claim(db, limit=1, now=T0, lease=LEASE)
        writes.settle(db, [settled(entry, state)], now=T0)

    return act


def settled(entry: Entry, state: State) -> Settlement:
    wait = 0 if state is State.PENDING else None
    return Settlement(seq=entry.seq, token=entry.token, state=state, wait=wait, attempt=FAILED)


async def claimed(journal: SqliteJournal, limit: int) -> list[tuple[str, int]]:
    """Their ids and attempts, after a look whether the journal agrees."""
    entries = await journal.claim(limit, now=T0, lease=LEASE)
    for entry in entries:
        assert await journal.load(entry.seq) == entry
    return [(entry.id, entry.attempts) for entry in entries]


async def test_what_another_took_is_not_taken(journal: SqliteJournal, between: Between) -> None:
    between(take(1))
    assert await claimed(journal, 3) == [("b", 0), ("c", 0)]


async def test_where_another_took_all_there_is_a_second_look(journal: SqliteJournal, between: Between) -> None:
    between(take(3))
    assert await claimed(journal, 3) == [("d", 0)]
    assert await claimed(journal, 3) == []


async def test_what_another_tried_is_looked_at_again(journal: SqliteJournal, between: Between) -> None:
    between(take_and_settle(State.PENDING))
    assert await claimed(journal, 2) == [("b", 0)]
    assert await claimed(journal, 9) == [("a", 1), ("c", 0), ("d", 0)]


async def test_what_another_finished_and_a_person_replayed_is_looked_at_again(
    journal: SqliteJournal, between: Between
) -> None:
    def act(db: sqlite3.Connection) -> None:
        take_and_settle(State.DEAD)(db)
        writes.replay(db, [1], now=T0, new_ids=True)

    between(act)
    assert await claimed(journal, 1) == [("a", 0)]
    entry = await journal.load(1)
    assert entry is not None and (entry.replays, entry.generation) == (1, 1)


async def test_what_was_settled_meanwhile_is_not_recovered(journal: SqliteJournal, between: Between) -> None:
    entries = await journal.claim(2, now=T0, lease=LEASE)
    between(partial(writes.settle, settlements=[settled(entries[0], State.FORWARDED)], now=T0))
    assert await journal.recover() == 1
    assert (await journal.census()).counts[State.PENDING] == 3


async def test_what_was_replayed_meanwhile_is_not_pruned(journal: SqliteJournal, between: Between) -> None:
    entries = await journal.claim(2, now=T0, lease=LEASE)
    await journal.settle([settled(entry, State.DEAD) for entry in entries])
    between(partial(writes.replay, seqs=[entries[0].seq], now=T0, new_ids=False))
    assert await journal.prune(bodies=0, ids=0, now=T0 + 1, limit=10) == 2  # a body, then its row
    kept = await journal.load(entries[0].seq)
    assert kept is not None and kept.body is not None
    assert (await journal.census()).counts == {"pending": 3, "forwarded": 0, "skipped": 0, "dead": 0}
