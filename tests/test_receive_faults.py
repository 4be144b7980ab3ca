"""A journal that can't store: the provider is asked to come again, `/readyz` says why, and it is over when the cause is gone."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from disk import fill, make_room, small_disk
from receiving import IDS, PROVIDERS, Answer, Receiving, another, ask, listening, receiving, request

from bridge import admin as admin_module
from bridge.admin import Admin
from bridge.journal.sqlite.journal import SqliteJournal
from bridge.model import Selection
from bridge.settings import Settings

BUSY = {"stripe": 503, "slack": 503, "intercom": 429}


@pytest.fixture(autouse=True)
def _asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_module, "_CHECK_EVERY", 0.0)


class Bridge:
    """A receiver and the private application, each with a journal of its own over one file, as in their processes."""

    def __init__(self, received: Receiving, admins: SqliteJournal, admin_port: int) -> None:
        self.received, self.admins = received, admins
        self._admin_port = admin_port
        self._n = 0

    async def ready(self) -> Answer:
        return await ask(self._admin_port, request("GET", "/readyz"))

    async def post_to_each(self) -> dict[str, Answer]:
        """A delivery never seen before to every source, all at once: so a lock is waited for only once."""
        self._n += 1
        bodies = [another(name, self._n).ljust(50_000) for name in PROVIDERS]
        answers = await asyncio.gather(*map(self.received.post, PROVIDERS, bodies))
        return dict(zip(PROVIDERS, answers, strict=True))

    async def refuses(self, reason: str) -> None:
        """Everything, in the words for each provider, and nobody but the operator is told why."""
        failed = [self._failed(name) for name in PROVIDERS]
        for name, answered in (await self.post_to_each()).items():
            assert (answered.status, answered.body) == (BUSY[name], b""), name
            assert int(answered.headers["retry-after"]) > 0
        assert [self._failed(name) for name in PROVIDERS] == [before + 1 for before in failed]
        logged = [line for line in self.received.log() if line["event"] == "delivery.failed"]
        assert {line["source"] for line in logged if reason in line["reason"]} == set(PROVIDERS)

    async def says(self, reason: str) -> None:
        said = await self.ready()
        assert (said.status, reason in said.body.decode()) == (503, True), said.body
        assert said.body.startswith(b"deliveries can't be stored: ")

    def _failed(self, source: str) -> float:
        return self.received.count("bridge_deliveries_total", source=source, outcome="failed")

    async def stores(self) -> None:
        assert {each.status for each in (await self.post_to_each()).values()} == {200}
        assert await self.stored() >= {f"{IDS[name]}x{self._n}" for name in PROVIDERS}
        assert (await self.ready()).status == 200

    async def stored(self) -> set[str]:
        """As somebody sees it who has not looked before."""
        store = SqliteJournal(self.received.folder / "bridge.db")
        entries = await store.find(Selection(), limit=1000)
        await store.close()
        return {entry.id for entry in entries}


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Bridge]:
    async with receiving(folder) as received:
        admins = SqliteJournal(folder / "bridge.db")
        admin = Admin(
            settings=Settings,
            journal=lambda: admins,
            unready=lambda: (),
            held=lambda: "",
            receiving=lambda: True,
            metrics_directory="",
            clock=lambda: received.now,
        )
        async with listening(web.AppRunner(admin.application())) as port:
            bridge = Bridge(received, admins, port)
            await bridge.stores()
            assert received.log() == [], "a journal that is made for the first time is no news"
            yield bridge
            told = [line["event"] for line in received.log() if line["event"] != "delivery.rejected"]
            assert set(told) <= {"delivery.failed", "journal.created", "journal.back"}
            assert "delivery.failed" not in told or told[-1] == "journal.back"
        await admins.close()


@pytest.fixture
async def bridge(tmp_path: Path) -> AsyncIterator[Bridge]:
    folder = tmp_path / "journal"
    folder.mkdir()
    async with running(folder) as found:
        yield found


async def test_while_another_program_locks_the_journal(bridge: Bridge) -> None:
    with locked(bridge):
        await bridge.refuses("locked by another process")
        await bridge.says("locked by another process")
    await bridge.stores()


async def test_it_says_itself_that_it_can_t_store_and_that_it_can_again(bridge: Bridge) -> None:
    """Over another connection than the one that asks whether it is ready."""
    with locked(bridge):
        await asyncio.gather(bridge.post_to_each(), bridge.post_to_each())
        [told] = bridge.received.unable
        assert told.endswith("bridge.db: locked by another process")
    await bridge.stores()
    assert bridge.received.unable == [told, ""]


async def test_it_looks_itself_whether_it_can_store_again(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not ready, nobody sends it anything that would tell."""
    monkeypatch.setattr("bridge.receive._LOOK_AGAIN", 0.01)
    watching = asyncio.create_task(bridge.received.receiver.watch())
    with locked(bridge):
        await bridge.post_to_each()
        await asyncio.sleep(0.05)
        assert bridge.received.unable[-1] != ""
    async with asyncio.timeout(20):
        while bridge.received.unable[-1] != "":
            await asyncio.sleep(0.01)
    watching.cancel()


async def test_a_lock_that_is_soon_released_is_waited_for(bridge: Bridge) -> None:
    with locked(bridge):
        posted = asyncio.create_task(bridge.post_to_each())
        done, _ = await asyncio.wait([posted], timeout=0.1)
        assert not done
    assert {each.status for each in (await posted).values()} == {200}


@contextmanager
def locked(bridge: Bridge) -> Iterator[None]:
    other = sqlite3.connect(bridge.received.folder / "bridge.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.close()


async def test_when_the_file_was_removed(bridge: Bridge) -> None:
    """A commit to it would succeed, and be gone with the process."""
    for file in bridge.received.folder.glob("bridge.db*"):
        file.unlink()
    await bridge.refuses("was removed")
    await bridge.says("was removed")
    await bridge.stores()
    events = [line["event"] for line in bridge.received.log()]
    assert events.count("journal.created") == 1, "whoever restores the old one must know that there is a new one"


async def test_while_the_directory_is_missing(bridge: Bridge) -> None:
    folder = bridge.received.folder
    shutil.rmtree(folder)
    await bridge.refuses("was removed")
    await bridge.refuses(f"the directory {folder} is missing")
    await bridge.says("was removed")
    await bridge.says(f"the directory {folder} is missing")
    folder.mkdir()
    await bridge.stores()


async def test_while_the_file_is_no_journal(bridge: Bridge) -> None:
    """Put back from a backup, say, that was none."""
    for file in bridge.received.folder.glob("bridge.db*"):
        file.unlink()
    file = bridge.received.folder / "bridge.db"
    file.write_bytes(b"whatever its name says\n" * 1000)
    await bridge.refuses("was removed or replaced")
    await bridge.refuses("not a SQLite database")
    await bridge.says("was removed or replaced")
    await bridge.says("not a SQLite database")
    file.unlink()
    await bridge.stores()


async def test_while_the_file_may_not_grow(bridge: Bridge) -> None:
    """What a full disk looks like, where none can be had."""
    store = bridge.received.store
    assert isinstance(store, SqliteJournal)
    await store._on(store._durable, lambda db: db.execute("PRAGMA max_page_count = 1").fetchone())
    await bridge.refuses("the disk is full")
    await store._on(store._durable, lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchone())
    await bridge.stores()


async def test_while_the_disk_is_full() -> None:
    with small_disk() as folder:
        async with running(folder) as bridge:
            for _ in range(2):  # what is in order after a refusal can be refused again
                fill(folder)
                await bridge.refuses("the disk is full")
                await bridge.says("the disk is full")
            make_room(folder)
            await bridge.stores()
