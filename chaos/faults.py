"""Three faults that lose deliveries, each of which has been some receiver's: with any of them, chaos has to find losses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any
from unittest.mock import patch

from bridge.clock import wall_clock
from bridge.forward import Forwarder
from bridge.journal import Journal
from bridge.journal.postgresql.journal import PostgresqlJournal
from bridge.journal.sqlite import file
from bridge.journal.sqlite.journal import SqliteJournal
from bridge.model import Attempt, Delivery, Entry, Outcome
from bridge.transform import Result


def synchronous_off() -> None:
    """What is committed is not synced: it does not survive a power cut. Of PostgreSQL's own making where it has the journal."""
    honest = file._configure  # noqa: SLF001 - the fault is put where it would be made
    patch.object(file, "_configure", lambda db, _: honest(db, "OFF")).start()


def answer_first() -> None:
    """What is acknowledged is stored a moment later."""
    for kind in (SqliteJournal, PostgresqlJournal):
        patch.object(kind, "append", _later(kind.append)).start()


def _later(honest: Callable[[Any, Delivery], Coroutine[None, None, bool]]) -> Callable[..., Awaitable[bool]]:
    async def append(journal: Journal, delivery: Delivery) -> bool:
        asyncio.get_running_loop().call_later(0.1, lambda: asyncio.ensure_future(honest(journal, delivery)))
        return True

    return append


def settle_first() -> None:
    """What is settled as forwarded is sent a moment later."""
    honest = Forwarder._finish  # noqa: SLF001 - as above

    async def finish(forwarder: Forwarder, done: Sequence[tuple[Entry, Result]], deadline: float) -> None:
        attempt = Attempt(at=wall_clock(), outcome=Outcome.FORWARDED, events=1)
        early = [forwarder._after(entry, attempt, None, ()) for entry, result in done if result.outcome is None]  # noqa: SLF001 - as above
        await forwarder._settle(early, deadline)  # noqa: SLF001 - as above
        await honest(forwarder, done, deadline)

    patch.object(Forwarder, "_finish", finish).start()


FAULTS: Mapping[str, Callable[[], None]] = {
    "synchronous-off": synchronous_off,
    "answer-first": answer_first,
    "settle-first": settle_first,
}
