"""The SQLite journal's file: who may read it, where it is, how its schema grows."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
from conftest import T0

from bridge import journal as journals
from bridge.errors import JournalUnavailable
from bridge.journal.sqlite.file import migrate
from bridge.journal.sqlite.journal import SqliteJournal
from bridge.journal.sqlite.schema import MIGRATIONS
from bridge.journal.sqlite.steps import Steps
from bridge.model import Delivery, Settlement, State

LEASE, TWO_HOURS = 60_000, 2 * 3_600_000
OPENER = """
import asyncio, sys
from pathlib import Path
from bridge.journal.sqlite.journal import SqliteJournal

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(20):
        journal = SqliteJournal(Path(sys.argv[1], f"{n}.db"))
        await journal.check()
        await journal.close()

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


def dump(db: sqlite3.Connection) -> list[tuple[object, ...]]:
    schema = db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").fetchall()
    return [*schema, *db.execute("SELECT * FROM tally").fetchall(), *db.execute("PRAGMA user_version").fetchall()]


def memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


async def test_the_files_are_for_their_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        journal = SqliteJournal(path)
        await journal.wait(0)
        await journal.check()
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("journal.db", "journal.db-wal", "journal.db-shm", "journal.db-wake"), 0o600)
    await journal.close()
    assert [file.name for file in path.parent.iterdir()] == ["journal.db"]


async def test_a_link_leads_to_the_same_journal(sqlite: SqliteJournal, path: Path, delivery: Delivery) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    other = SqliteJournal(link)
    assert await other.append(delivery)
    await other.close()
    assert not await sqlite.append(delivery)


async def test_a_relative_path_is_meant_where_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delivery: Delivery
) -> None:
    monkeypatch.chdir(tmp_path)
    journal = SqliteJournal(Path("journal.db"))
    monkeypatch.chdir("/")
    assert await journal.append(delivery)
    await journal.close()
    assert (tmp_path / "journal.db").exists()


def test_every_earlier_schema_becomes_the_one_of_a_new_file() -> None:
    fresh = memory()
    migrate(fresh)
    for released in range(1, len(MIGRATIONS) + 1):
        old = memory()
        migrate(old, MIGRATIONS[:released])
        migrate(old)
        assert dump(old) == dump(fresh)
        old.close()
    fresh.close()


def test_a_migration_that_fails_leaves_the_schema_as_it_was() -> None:
    fresh, db = memory(), memory()
    migrate(fresh)
    with pytest.raises(sqlite3.OperationalError):
        migrate(db, (*MIGRATIONS, ("CREATE TABLE more (n)", "CREATE TABLE tally (n)")))
    assert dump(db) == dump(fresh)
    migrate(db, (*MIGRATIONS, ("CREATE TABLE more (n)",)))
    assert dump(db)[-1] == (len(MIGRATIONS) + 1,)
    db.close()
    fresh.close()


@pytest.mark.parametrize("version", [0, 1])
def test_a_database_of_another_program_is_refused_and_left_as_it_is(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.executescript(f"CREATE TABLE invoices (n); PRAGMA user_version = {version}")
    before = path.read_bytes()

    async def use(call: Callable[[SqliteJournal], Awaitable[object]]) -> None:
        journal = SqliteJournal(path)
        with pytest.raises(JournalUnavailable, match=r"journal.db: a SQLite database of another program"):
            await call(journal)
        await journal.close()

    for call in (SqliteJournal.check, SqliteJournal.census):
        asyncio.run(use(call))
    assert path.read_bytes() == before


async def test_one_that_cannot_be_opened_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(JournalUnavailable, match="is missing"):
        await journals.open(f"sqlite:///{tmp_path}/missing/journal.db")
    assert threading.active_count() == before


async def test_the_schema_of_a_newer_release_is_refused(path: Path, delivery: Delivery) -> None:
    journal = SqliteJournal(path)
    await journal.append(delivery)
    await journal._on(journal._quick, lambda db: db.execute("PRAGMA user_version = 99"))
    await journal.close()
    with pytest.raises(JournalUnavailable, match=r"journal.db: its schema is number 99, .* run the newer release"):
        await SqliteJournal(path).census()


async def test_a_sqlite_too_old_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 32, 3))
    with pytest.raises(JournalUnavailable, match=r"journal.db: SQLite 3\.33 is needed"):
        await SqliteJournal(path).census()


async def test_processes_that_open_new_files_at_once_all_get_them(tmp_path: Path) -> None:
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", OPENER, str(tmp_path), stdin=pipe, stdout=pipe)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None and await process.stdout.readline() == b"ready\n"
    await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0]


async def test_what_was_received_by_a_clock_that_was_ahead_does_not_wait_for_it(
    sqlite: SqliteJournal, make_delivery: Callable[..., Delivery]
) -> None:
    """Also where whoever claims did not see it: it was busy, or not there yet."""
    assert not await sqlite.claim(1, lease=LEASE, now=T0)
    sqlite._hasten_from = 0
    await sqlite.append(make_delivery("received", received_at=T0 + TWO_HOURS))
    await sqlite.append(make_delivery("postponed"))
    for entry in await sqlite.claim(1, lease=LEASE, now=T0):
        await sqlite.settle([Settlement(seq=entry.seq, token=entry.token, state=State.PENDING, wait=5000)], now=T0)
    assert [entry.id for entry in await sqlite.claim(10, lease=LEASE, now=T0)] == ["received"]


async def test_when_the_clock_is_set_back_everything_waits_as_long_as_it_was_to(
    path: Path, make_delivery: Callable[..., Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what was given back without a try, and what is held."""
    clock = [T0 + TWO_HOURS]
    monkeypatch.setattr("bridge.journal.sqlite.journal.wall_clock", lambda: clock[0])
    sqlite = SqliteJournal(path)
    for name in ("soon", "later", "held"):
        await sqlite.append(make_delivery(name, received_at=T0))
    for entry, wait in zip(await sqlite.claim(3, lease=LEASE), (5000, 3_600_000), strict=False):
        await sqlite.settle([Settlement(seq=entry.seq, token=entry.token, state=State.PENDING, wait=wait)])

    async def due(after: int) -> list[str]:
        clock[0] = T0 + after
        return [entry.id for entry in await sqlite.claim(10, lease=10 * TWO_HOURS)]

    found = {after: await due(after) for after in (0, 4990, 5100, LEASE - 100, LEASE + 100, 3_600_100)}
    await sqlite.close()
    assert found == {
        0: [],
        4990: [],
        5100: ["soon"],
        LEASE - 100: [],
        LEASE + 100: ["held"],
        3_600_100: ["later"],
    }


async def test_a_step_ahead_that_only_settling_saw_is_known_when_the_clock_is_set_back(
    path: Path, make_delivery: Callable[..., Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [T0]
    monkeypatch.setattr("bridge.journal.sqlite.journal.wall_clock", lambda: clock[0])
    sqlite = SqliteJournal(path)
    await sqlite.append(make_delivery(received_at=T0))
    [entry] = await sqlite.claim(1, lease=LEASE)
    clock[0] = T0 + TWO_HOURS
    await sqlite.settle([Settlement(seq=entry.seq, token=entry.token, state=State.PENDING, wait=5000)])
    clock[0] = T0
    assert not await sqlite.claim(1, lease=LEASE)
    clock[0] = T0 + 5100
    assert await sqlite.claim(1, lease=LEASE)
    await sqlite.close()


def test_a_clock_that_is_slowed_or_set_forward_was_not_set_back() -> None:
    clock, steady = [T0], [100.0]
    steps = Steps(lambda: clock[0], steady=lambda: steady[0])
    steady[0], clock[0] = 110.0, T0 + 9_100
    assert steps.back() == 0
    clock[0] += TWO_HOURS
    assert steps.back() == 0
    clock[0] -= TWO_HOURS
    steps.see()
    assert [steps.back(), steps.back()] == [TWO_HOURS, 0]
