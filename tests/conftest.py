"""Fixtures everyone shares. `journal` is every journal in turn: a new one is a function that makes a place for it, and
its name in `JOURNALS`.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import postgres
import pytest
from commands import standing_in

from bridge import journal as journals
from bridge.journal import Journal
from bridge.model import Delivery
from bridge.stand_in import StandIn

T0 = 1_767_225_600_000  # the first moment of 2026

# An empty place for a journal, given a folder that is empty too: the URL, for as long as the place is there.
Place: TypeAlias = Callable[[Path], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[str]:
    yield f"sqlite:///{folder}/journal.db"


@asynccontextmanager
async def sqlite_receiving(folder: Path) -> AsyncIterator[str]:
    """The same, opened as a receiver does."""
    yield f"sqlite:///{folder}/receiving.db"


@asynccontextmanager
async def postgresql(folder: Path) -> AsyncIterator[str]:
    del folder
    with postgres.schema() as url:
        yield url


def is_receiving(url: str) -> bool:
    return url.endswith("/receiving.db")


JOURNALS: list[Place] = [sqlite, sqlite_receiving, postgresql]


@pytest.fixture(params=JOURNALS, ids=lambda place: place.__name__)
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.param
    return found


@pytest.fixture
async def journal_url(place: Place, tmp_path: Path) -> AsyncIterator[str]:
    async with place(tmp_path) as url:
        yield url


@pytest.fixture
async def open_journal(journal_url: str) -> AsyncIterator[Callable[[], Awaitable[Journal]]]:
    """Each call opens the same journal once more, as another process would."""
    opened: list[Journal] = []

    async def open_() -> Journal:
        opened.append(await journals.open(journal_url, receiving=is_receiving(journal_url)))
        return opened[-1]

    yield open_
    for each in opened:
        await each.close()


@pytest.fixture
async def journal(open_journal: Callable[[], Awaitable[Journal]]) -> Journal:
    return await open_journal()


@pytest.fixture
def make_delivery() -> Callable[..., Delivery]:
    """A delivery with this id; the other fields can be given by name."""

    def make(id: str = "evt_1", **fields: Any) -> Delivery:
        usual: dict[str, Any] = {
            "source": "stripe",
            "provider": "stripe",
            "prefix": "stripe",
            "type": "customer.created",
            "occurred_at": T0 - 1500,
            "received_at": T0,
            "headers": {"stripe-signature": "t=1767225600,v1=00"},
            "body": b'{"id":"evt_1"}',
            "payload": {"id": "evt_1"},
        }
        return Delivery(id=id, **(usual | fields))

    return make


@pytest.fixture
def delivery(make_delivery: Callable[..., Delivery]) -> Delivery:
    return make_delivery()


@pytest.fixture(scope="module")
def cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL of the module's own, which its tests may stop and set as they like."""
    started = postgres.Cluster()
    started.start()
    yield started
    started.stop()


@pytest.fixture
async def api() -> AsyncIterator[StandIn]:
    """The Event API, as a dev server has it."""
    async with standing_in() as found:
        yield found


@pytest.fixture
def no_complaint(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An exception in a callback, or one that nobody asked for, is told by a log alone."""
    yield
    gc.collect()  # a connection that was left open complains now
    assert [each.getMessage() for each in caplog.get_records("call") if each.name == "asyncio"] == []
