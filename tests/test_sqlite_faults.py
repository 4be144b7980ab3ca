"""A SQLite journal whose disk, or somebody at it, does what nobody wants: nothing is acknowledged that is not stored, the
reason is one clear line, and it goes on by itself when the cause is gone."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from bridge.errors import JournalUnavailable
from bridge.journal.sqlite.file import SqliteFile
from bridge.journal.sqlite.journal import SqliteJournal
from bridge.model import Delivery, Selection

Make: TypeAlias = Callable[..., Delivery]

T0 = 1_767_225_600_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "journal.db"


@pytest.fixture
async def sqlite(path: Path) -> AsyncIterator[SqliteJournal]:
    journal = SqliteJournal(path)
    await asyncio.gather(journal.census(), journal.check())  # both connections are open
    yield journal
    await journal.close()


async def ids(journal: SqliteJournal) -> list[str]:
    return [entry.id for entry in await journal.find(Selection(), limit=1000, oldest_first=True)]


async def execute(journal: SqliteJournal, file: SqliteFile, statement: str) -> int:
    def run(db: sqlite3.Connection) -> int:
        (answer,) = db.execute(statement).fetchone() or (0,)
        return int(answer)

    return await journal._on(file, run)


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def replace(path: Path, other: Path) -> None:
    """As a backup is put back: a log that is left belongs to the file that is gone."""
    for suffix in ("-wal", "-shm"):
        path.with_name(f"{path.name}{suffix}").unlink()
    other.replace(path)


async def none_is_acknowledged(journal: SqliteJournal, make_delivery: Make, match: str) -> None:
    """A batch of three, of which all are told the same."""
    names = ["lost 1", "lost 2", "lost 3"]
    answers = await asyncio.gather(*(journal.append(make_delivery(name)) for name in names), return_exceptions=True)
    assert [type(answer) for answer in answers] == [JournalUnavailable] * 3
    for answer in answers:
        assert re.search(match, str(answer)) and "\n" not in str(answer)


async def test_a_journal_that_was_removed_acknowledges_nothing_and_begins_anew(
    sqlite: SqliteJournal, path: Path, make_delivery: Make
) -> None:
    assert await sqlite.append(make_delivery("before"))
    empty(path.parent)
    await none_is_acknowledged(sqlite, make_delivery, r"journal\.db: was removed or replaced")
    assert await sqlite.append(make_delivery("after"))
    with pytest.raises(JournalUnavailable, match="was removed"):  # the other connection finds out for itself
        await sqlite.census()
    assert await ids(sqlite) == ["after"]


async def test_a_journal_that_was_replaced_acknowledges_nothing_and_uses_the_new_one(
    sqlite: SqliteJournal, path: Path, make_delivery: Make
) -> None:
    other = SqliteJournal(path.with_name("other.db"))
    await other.append(make_delivery("restored"))
    await other.close()
    await sqlite.check()
    replace(path, path.with_name("other.db"))
    await none_is_acknowledged(sqlite, make_delivery, "was removed or replaced")
    with pytest.raises(JournalUnavailable, match="was removed or replaced"):
        await sqlite.census()
    assert await sqlite.append(make_delivery("after"))
    assert await ids(sqlite) == ["restored", "after"]


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
async def test_a_log_that_was_removed_alone_is_found_out(path: Path, make_delivery: Make, suffix: str) -> None:
    journal = SqliteJournal(path)
    await journal._submit(
        journal._quick, journal._quick.close
    )  # nobody else holds the file: one connection is one process
    assert await journal.append(make_delivery("before"))
    path.with_name(f"journal.db{suffix}").unlink()
    await none_is_acknowledged(journal, make_delivery, "was removed or replaced")
    assert await journal.append(make_delivery("after"))
    stored = await ids(journal)
    assert stored[0] == "before" and stored[-1] == "after"
    await journal.close()


async def test_a_check_finds_out_that_the_journal_was_removed(sqlite: SqliteJournal, path: Path) -> None:
    await sqlite.check()
    os.unlink(path)  # noqa: PTH108 - Path.unlink() is refused in a coroutine, where it does no harm
    with pytest.raises(JournalUnavailable, match="was removed"):
        await sqlite.check()
    await sqlite.check()


async def test_a_directory_that_was_removed_is_named_until_it_is_back(
    sqlite: SqliteJournal, path: Path, make_delivery: Make
) -> None:
    await sqlite.check()
    shutil.rmtree(path.parent)
    await none_is_acknowledged(sqlite, make_delivery, "was removed")
    await none_is_acknowledged(sqlite, make_delivery, rf"the directory {path.parent} is missing")
    path.parent.mkdir()
    assert await sqlite.append(make_delivery("after"))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        db.close()


async def test_a_journal_that_stays_locked_acknowledges_nothing_until_it_is_free(
    sqlite: SqliteJournal, path: Path, make_delivery: Make
) -> None:
    with locked(path):
        async with asyncio.timeout(3):  # what Slack waits
            await none_is_acknowledged(sqlite, make_delivery, r"journal\.db: locked by another process")
    assert await sqlite.append(make_delivery("after"))
    assert await ids(sqlite) == ["after"]


async def test_a_lock_that_ends_soon_is_only_waited_for(
    sqlite: SqliteJournal, path: Path, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("bridge.journal.sqlite.file.sleep", lambda _: loop.call_soon_threadsafe(looked.set))
    with locked(path):
        appending = asyncio.create_task(sqlite.append(delivery))
        await looked.wait()
    assert await appending


async def test_a_full_database_acknowledges_nothing_until_there_is_room(
    sqlite: SqliteJournal, make_delivery: Make
) -> None:
    assert await sqlite.append(make_delivery("before"))
    used = await execute(sqlite, sqlite._durable, "PRAGMA page_count")
    await execute(sqlite, sqlite._durable, f"PRAGMA max_page_count = {used}")
    large = make_delivery("large", body=b"x" * 100_000)
    with pytest.raises(JournalUnavailable, match=r"journal\.db: the disk is full"):
        await sqlite.append(large)
    with pytest.raises(JournalUnavailable, match="the disk is full"):
        await sqlite.check()
    await execute(sqlite, sqlite._durable, "PRAGMA max_page_count = 1000000")
    assert await sqlite.append(large)
    assert await ids(sqlite) == ["before", "large"]


def command(*words: str | Path) -> bool:
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk):
        pytest.skip("may not mount a disk: the next test has to do")
    yield disk
    assert command("umount", disk) or command("umount", "-l", disk)


async def acknowledged(journal: SqliteJournal, deliveries: Iterable[Delivery]) -> tuple[list[str], str]:
    """Those that are before one is refused, and why that is."""
    stored: list[str] = []
    for each in deliveries:
        try:
            await journal.append(each)
        except JournalUnavailable as unavailable:
            return stored, str(unavailable)
        stored.append(each.id)
    return stored, ""


async def why_not_ready(journal: SqliteJournal) -> str:
    try:
        await journal.check()
    except JournalUnavailable as unavailable:
        return str(unavailable)
    return ""


async def test_a_full_disk_acknowledges_nothing_until_there_is_room(small_disk: Path, make_delivery: Make) -> None:
    journal = SqliteJournal(small_disk / "journal.db")
    large, reason = await acknowledged(journal, (make_delivery(f"{n}", body=b"x" * 10_000) for n in range(200)))
    small, reason_too = await acknowledged(journal, (make_delivery(f"small {n}", body=b"") for n in range(200)))
    ready = await why_not_ready(journal)
    stored = await ids(journal)
    assert command("mount", "-o", "remount,size=8m", small_disk)
    after = await journal.append(make_delivery("after"))
    ready_again = await why_not_ready(journal) == ""
    await journal.close()
    assert all(each.endswith("journal.db: the disk is full") for each in (reason, reason_too, ready))
    assert large
    assert stored == large + small
    assert after and ready_again


async def test_a_file_that_may_not_grow_acknowledges_nothing_until_it_may(
    sqlite: SqliteJournal, make_delivery: Make
) -> None:
    """A full disk seen through another error: `EFBIG` where that is `ENOSPC`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        large = (make_delivery(f"{n}", body=b"x" * 10_000) for n in range(50))
        stored, reason = await acknowledged(sqlite, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "journal.db: SQLITE_IOERR_WRITE" in reason
    assert stored
    assert await ids(sqlite) == stored
    assert await sqlite.append(make_delivery("after"))


async def test_a_read_only_journal_says_so_and_is_opened_again(sqlite: SqliteJournal, make_delivery: Make) -> None:
    await execute(sqlite, sqlite._durable, "PRAGMA query_only = ON")
    await none_is_acknowledged(sqlite, make_delivery, r"journal\.db: can't be written: read-only")
    assert await sqlite.append(make_delivery("after"))


def damage(path: Path) -> None:
    """All but the first page."""
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


async def test_a_damaged_journal_says_so(path: Path, make_delivery: Make) -> None:
    journal = SqliteJournal(path)
    await asyncio.gather(*(journal.append(make_delivery(f"{n}")) for n in range(100)))
    await journal.close()
    damage(path)
    journal = SqliteJournal(path)
    await none_is_acknowledged(journal, make_delivery, r"journal\.db: damaged: restore it")
    await journal.close()


def no_database(path: Path) -> None:
    path.write_bytes(b"as long as a database's header, at the least" * 99)


def no_directory(path: Path) -> None:
    path.parent.rmdir()


def no_directory_but_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (no_database, "not a SQLite database"),
        (Path.mkdir, "can't be opened: is it a file"),
        (no_directory, "the directory .* is missing"),
        (no_directory_but_a_file, "the directory .* is missing"),
    ],
)
async def test_one_that_cannot_be_opened_says_why(path: Path, spoil: Callable[[Path], object], reason: str) -> None:
    spoil(path)
    with pytest.raises(JournalUnavailable, match=rf"journal\.db: {reason}"):
        await SqliteJournal(path).census()
