"""What of a SQLite journal is on the disk when, and what it costs to get it there and back."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from bridge.errors import JournalUnavailable
from bridge.journal.rows import Row
from bridge.journal.sqlite.file import CHECKPOINT_AFTER, SqliteFile
from bridge.journal.sqlite.journal import SqliteJournal
from bridge.model import Attempt, Delivery, Entry, Outcome, Selection, Settlement, State

Make: TypeAlias = Callable[..., Delivery]

T0 = 1_767_225_600_000

# Appends for ever, 16 at a time; a line on stdout for each that returned.
RECEIVER = """
import asyncio, os, sys
from pathlib import Path
from bridge.journal.sqlite.journal import SqliteJournal
from bridge.model import Delivery

async def append(journal, worker):
    for n in range(10**9):
        await journal.append(Delivery(source="s", provider="p", prefix="p", id=f"{worker}.{n}", type="t", occurred_at=0,
                                      received_at=0, headers={}, body=os.urandom(900), payload={}))
        os.write(1, f"{worker}.{n}\\n".encode())

async def main():
    journal = SqliteJournal(Path(sys.argv[1]))
    await asyncio.gather(*(append(journal, worker) for worker in range(16)))

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def sqlite(path: Path) -> AsyncIterator[SqliteJournal]:
    journal = SqliteJournal(path)
    yield journal
    await journal.close()


async def traced(journal: SqliteJournal, file: SqliteFile) -> list[str]:
    """The statements this connection runs from now on."""
    statements: list[str] = []
    await journal._on(file, lambda db: db.set_trace_callback(statements.append))
    return statements


def commits(statements: list[str]) -> int:
    """An append is one statement, which is a transaction of its own; what its trigger does is traced under its name too."""
    return statements.count("COMMIT") + len({each for each in statements if "INTO delivery" in each})


def size(path: Path) -> int:
    return path.stat().st_size


async def test_what_is_promised_waits_for_the_disk_and_the_rest_does_not(
    sqlite: SqliteJournal, delivery: Delivery
) -> None:
    durable, quick = await traced(sqlite, sqlite._durable), await traced(sqlite, sqlite._quick)
    await sqlite.append(delivery)
    await sqlite.check()
    assert (commits(durable), commits(quick)) == (2, 0)
    [entry] = await sqlite.claim(1, now=T0, lease=1)
    attempt = Attempt(at=T0, outcome=Outcome.FORWARDED)
    await sqlite.settle([Settlement(seq=entry.seq, token=entry.token, state=State.FORWARDED, attempt=attempt)])
    assert (commits(durable), commits(quick)) == (2, 2)
    await sqlite.replay([entry.seq], now=T0)
    assert (commits(durable), commits(quick)) == (3, 2)
    assert await sqlite._on(sqlite._durable, lambda db: db.execute("PRAGMA synchronous").fetchone()) == (2,)  # FULL
    assert await sqlite._on(sqlite._quick, lambda db: db.execute("PRAGMA synchronous").fetchone()) == (1,)  # NORMAL


async def test_a_connection_that_was_opened_again_waits_for_the_disk_too(sqlite: SqliteJournal) -> None:
    await sqlite.check()
    await sqlite._submit(sqlite._durable, sqlite._durable.close)
    await sqlite.check()
    assert await sqlite._on(sqlite._durable, lambda db: db.execute("PRAGMA synchronous").fetchone()) == (2,)


async def test_what_arrives_together_is_committed_together(sqlite: SqliteJournal, make_delivery: Make) -> None:
    batches: list[int] = []
    write = sqlite._commits._write

    def noted(rows: Sequence[Row]) -> asyncio.Future[frozenset[int]]:
        batches.append(len(rows))
        return write(rows)

    sqlite._commits._write = noted

    async def receive(worker: int) -> None:
        for n in range(50):
            await sqlite.append(make_delivery(f"{worker}.{n}"))

    await asyncio.gather(*map(receive, range(20)))
    assert sum(batches) == 1000
    assert len(batches) <= 100


async def test_closing_leaves_no_log_behind(path: Path, make_delivery: Make) -> None:
    journal = SqliteJournal(path)
    appends = []
    for wave in range(2):  # the second arrives while the first is on its way to the disk
        appends += [asyncio.create_task(journal.append(make_delivery(f"{wave}.{n}"))) for n in range(50)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await journal.close()
    assert await asyncio.gather(*appends) == [True] * 100
    assert [file.name for file in path.parent.iterdir()] == ["journal.db"]


async def test_no_other_conflict_passes_for_a_duplicate(sqlite: SqliteJournal, make_delivery: Make) -> None:
    """A duplicate is acknowledged: what is taken for one and is none would be lost."""
    await sqlite.append(make_delivery("a"))
    await sqlite._on(sqlite._durable, lambda db: db.execute("UPDATE sqlite_sequence SET seq = 0"))
    with pytest.raises(JournalUnavailable, match="SQLITE_CONSTRAINT"):
        await sqlite.append(make_delivery("b"))


async def test_what_was_acknowledged_survives_kill_9(path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RECEIVER, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    said = b"".join([await process.stdout.readline() for _ in range(500)])
    process.send_signal(signal.SIGKILL)
    said += await process.stdout.read()
    await process.wait()
    journal = SqliteJournal(path)
    stored = {entry.id for entry in await journal.find(Selection(), limit=10**6)}
    census = await journal.census()
    await journal.close()
    assert set(said.decode().split()) <= stored
    assert census.counts[State.PENDING] == len(stored)


async def test_what_is_forgotten_leaves_no_row(sqlite: SqliteJournal, make_delivery: Make) -> None:
    def rows(db: sqlite3.Connection) -> list[tuple[int]]:
        tables = ("SELECT count(*) FROM delivery", "SELECT count(*) FROM entry", "SELECT count(*) FROM attempt")
        return [db.execute(count).fetchone() for count in tables]

    await asyncio.gather(*(sqlite.append(make_delivery(f"{n}", fault="no JSON")) for n in range(5)))
    assert await sqlite._on(sqlite._quick, rows) == [(5,), (5,), (5,)]
    await sqlite.prune(bodies=T0 + 1, ids=0, now=T0 + 1, limit=4)
    assert await sqlite._on(sqlite._quick, rows) == [(1,), (1,), (1,)]


async def test_checks_need_no_more_room_the_more_there_are(sqlite: SqliteJournal) -> None:
    pages: list[tuple[int]] = []
    for _ in range(4):
        await sqlite.check()
        pages.append(await sqlite._on(sqlite._durable, lambda db: db.execute("PRAGMA page_count").fetchone()))
    assert pages[2] == pages[3]


async def test_settling_moves_the_log_into_the_database(sqlite: SqliteJournal, path: Path, make_delivery: Make) -> None:
    sqlite._written = -(1 << 30)  # appending moves nothing
    await asyncio.gather(*(sqlite.append(make_delivery(f"{n}", body=b"x" * 1000)) for n in range(4800)))
    log = path.with_name("journal.db-wal")
    assert size(path) < 1 << 20 < 4 << 20 < size(log)
    sqlite._written = CHECKPOINT_AFTER - 1
    [entry] = await sqlite.claim(1, now=T0, lease=1)
    await sqlite.settle([Settlement(seq=entry.seq, token=entry.token, state=State.PENDING, wait=0)])
    await sqlite.census()  # behind the checkpoint, on its thread
    assert size(path) > 4 << 20
    before = size(log)
    await asyncio.gather(*(sqlite.append(make_delivery(f"more {n}", body=b"x" * 1000)) for n in range(100)))
    assert size(log) == before, "it is begun anew, and what is there is written over"


async def test_where_nobody_forwards_the_log_does_not_grow_either(
    sqlite: SqliteJournal, path: Path, make_delivery: Make
) -> None:
    """An Event API may be away for a week. Once it was the appends that had to wait then, for 64 MiB at a time."""
    for wave in range(40):
        await asyncio.gather(*(sqlite.append(make_delivery(f"{wave}.{n}", body=b"x" * 60_000)) for n in range(40)))
    await sqlite.census()
    assert size(path) > 64 << 20
    assert size(path.with_name("journal.db-wal")) < 64 << 20


async def test_a_checkpoint_always_finds_a_commit_of_its_own(sqlite: SqliteJournal, make_delivery: Make) -> None:
    """https://www.sqlite.org/wal.html#walresetbug: one that finds nothing to move may lose what others commit."""
    statements = await traced(sqlite, sqlite._quick)
    sqlite._written = -(1 << 30)  # none by itself
    for many in (0, 100, 400):
        large = (make_delivery(f"{many}.{n}", body=b"x" * 60_000) for n in range(many))
        await asyncio.gather(*map(sqlite.append, large))
        await sqlite._submit(sqlite._quick, sqlite._quick.checkpoint)
    steps = [each for each in statements if each.startswith(("UPDATE", "COMMIT", "PRAGMA wal_"))]
    one = "UPDATE tally SET n = n WHERE state = 'pending'"
    assert steps == [
        *[one, "COMMIT", "PRAGMA wal_checkpoint(PASSIVE)"] * 4,
        *[one, "COMMIT", "PRAGMA wal_checkpoint(FULL)"],  # over 16 MiB
    ]


async def steps(journal: SqliteJournal, call: Callable[[], Awaitable[object]]) -> int:
    """What a call costs: instructions of SQLite's machine, which are the same on every computer."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    await journal._on(journal._quick, lambda db: db.set_progress_handler(count, 10))
    await call()
    await journal._on(journal._quick, lambda db: db.set_progress_handler(None, 0))
    return counted * 10


async def test_what_is_finished_makes_nothing_slower(sqlite: SqliteJournal, make_delivery: Make) -> None:
    async def append(n: int) -> None:
        await sqlite.append(make_delivery(f"{n}", received_at=T0 + n))

    async def finish(entries: Sequence[Entry]) -> None:
        attempt = Attempt(at=T0, outcome=Outcome.FORWARDED)
        done = [Settlement(seq=e.seq, token=e.token, state=State.FORWARDED, attempt=attempt) for e in entries]
        assert await sqlite.settle(done) == len(entries)

    async def forward() -> None:
        await finish(await sqlite.claim(10, now=T0 + 10_000, lease=1))

    calls: list[Callable[[], Awaitable[object]]] = [
        forward,
        sqlite.census,
        lambda: sqlite.find(Selection(state=State.PENDING), limit=10),
        lambda: sqlite.find(Selection(state=State.DEAD), limit=10),
        lambda: sqlite.find(Selection(id="5"), limit=10),
        lambda: sqlite.find(Selection(since=T0 + 50, until=T0 + 60), limit=100),
        lambda: sqlite.find(Selection(since=T0 + 50, until=T0 + 60), limit=100, oldest_first=True),
        lambda: sqlite.find(Selection(since=T0 + 2990), limit=100),
        lambda: sqlite.prune(bodies=0, ids=0, now=T0, limit=10),
    ]
    await asyncio.gather(*map(append, range(100)))
    alone = [await steps(sqlite, call) for call in calls]
    await asyncio.gather(*map(append, range(100, 3000)))
    await finish(await sqlite.claim(2900, now=T0 + 10_000, lease=1))
    behind = [await steps(sqlite, call) for call in calls]
    assert [many < 2 * few + 1000 for few, many in zip(alone, behind, strict=True)] == [True] * len(calls)


async def test_what_is_settled_while_it_is_closed_does_not_open_it_again(path: Path, make_delivery: Make) -> None:
    sqlite = SqliteJournal(path)
    await sqlite.append(make_delivery("a"))
    [entry] = await sqlite.claim(1, now=T0, lease=1)
    sqlite._written = CHECKPOINT_AFTER
    sqlite._submit(sqlite._quick, lambda: time.sleep(0.2))  # both have to wait for it
    attempt = Attempt(at=T0, outcome=Outcome.FORWARDED)
    settlement = Settlement(seq=entry.seq, token=entry.token, state=State.FORWARDED, attempt=attempt)
    settling = asyncio.create_task(sqlite.settle([settlement]))
    await asyncio.sleep(0.05)
    await sqlite.close()
    assert await settling == 1
    assert [file.name for file in path.parent.iterdir()] == ["journal.db"]
