"""The process that appends for a receiver: whatever becomes of it, what was acknowledged is stored, and it goes on."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from processes import is_alive, kill
from service import until

from bridge.errors import JournalUnavailable
from bridge.journal.sqlite import writing
from bridge.journal.sqlite.journal import SqliteJournal
from bridge.model import Delivery, Selection

Make: TypeAlias = Callable[..., Delivery]


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[SqliteJournal]:
    found = SqliteJournal(tmp_path / "journal.db", receiving=True)
    yield found
    await found.close()


def pid(journal: SqliteJournal) -> int:
    assert journal._writer is not None and journal._writer._companion is not None
    return journal._writer._companion._process.pid


async def why_not(appending: Awaitable[bool]) -> str:
    with pytest.raises(JournalUnavailable) as refused:
        await appending
    return str(refused.value)


async def test_a_receiver_appends_by_a_process_of_its_own_and_others_do_not(
    journal: SqliteJournal, make_delivery: Make, tmp_path: Path
) -> None:
    assert await journal.append(make_delivery("evt_1"))
    assert pid(journal) != os.getpid()
    other = SqliteJournal(tmp_path / "journal.db")
    assert not await other.append(make_delivery("evt_1")), "it is there"
    assert other._writer is None
    await other.close()


async def test_one_that_was_killed_is_started_again(journal: SqliteJournal, make_delivery: Make) -> None:
    await journal.append(make_delivery("evt_1"))
    kill(pid(journal))
    said = await why_not(journal.append(make_delivery("evt_2")))
    assert said == f"{journal._path}: the process that writes it was ended by signal 9"
    assert await journal.append(make_delivery("evt_2"))
    assert {entry.id for entry in await journal.find(Selection(), limit=9)} == {"evt_1", "evt_2"}


async def test_whenever_it_is_killed_what_was_acknowledged_is_stored(
    journal: SqliteJournal, make_delivery: Make
) -> None:
    acknowledged: set[str] = set()
    refused = 0
    await journal.append(make_delivery("first"))

    async def receive(worker: int) -> None:
        nonlocal refused
        for n in range(150):
            try:
                await journal.append(make_delivery(f"{worker}.{n}"))
            except JournalUnavailable:
                refused += 1
            else:
                acknowledged.add(f"{worker}.{n}")

    async def kill_it_again_and_again() -> None:
        for goal in (200, 500, 900):
            await until(lambda goal=goal: len(acknowledged) > goal)  # type: ignore[misc]  # a default is how a loop binds
            if journal._writer is not None and journal._writer._companion is not None:
                kill(pid(journal))

    await asyncio.gather(*map(receive, range(10)), kill_it_again_and_again())
    assert acknowledged <= {entry.id for entry in await journal.find(Selection(), limit=10_000)}
    assert refused, "it was killed while it had something to do"
    assert len(acknowledged) > 1000


async def test_one_that_stands_still_is_replaced(
    journal: SqliteJournal, make_delivery: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    await journal.append(make_delivery("evt_1"))
    monkeypatch.setattr(writing, "_PATIENCE", 0.3)
    stopped = pid(journal)
    os.kill(stopped, signal.SIGSTOP)
    said = await why_not(journal.append(make_delivery("evt_2")))
    assert said == f"{journal._path}: nothing was written for 0.3 s"
    assert not is_alive(stopped)
    monkeypatch.undo()
    assert await journal.append(make_delivery("evt_2"))


async def test_where_none_can_be_started_it_says_so_and_tries_again(
    journal: SqliteJournal, make_delivery: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    said = await why_not(journal.append(make_delivery("evt_1")))
    assert said == f"{journal._path}: no process to write it can be started: No such file or directory"
    monkeypatch.undo()
    assert await journal.append(make_delivery("evt_1"))


async def test_what_is_wrong_with_the_file_is_told_as_it_is(journal: SqliteJournal, make_delivery: Make) -> None:
    await journal.append(make_delivery("evt_1"))
    journal._path.unlink()
    assert await why_not(journal.append(make_delivery("evt_2"))) == (
        f"{journal._path}: was removed or replaced while it was open"
    )
    assert await journal.append(make_delivery("evt_2")), "with a new one"


async def test_a_disk_that_is_full_is_no_end_of_it(journal: SqliteJournal, make_delivery: Make) -> None:
    await journal.append(make_delivery("evt_1"))
    resource.prlimit(pid(journal), resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    said = await why_not(journal.append(make_delivery("large", body=bytes(2 << 20))))
    assert str(journal._path) in said
    resource.prlimit(pid(journal), resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert await journal.append(make_delivery("large", body=bytes(2 << 20)))


async def test_it_ends_with_the_journal(tmp_path: Path, make_delivery: Make) -> None:
    journal = SqliteJournal(tmp_path / "journal.db", receiving=True)
    waiting = [asyncio.create_task(journal.append(make_delivery(f"{n}"))) for n in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await journal.close()
    assert await asyncio.gather(*waiting) == [True] * 20
    assert journal._writer is not None and journal._writer._companion is None
    assert os.listdir(tmp_path) == ["journal.db"], "and its log is in it"  # noqa: PTH208 - not in an async function
