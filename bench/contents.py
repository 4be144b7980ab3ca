"""What is in a journal before it is measured."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import psycopg

from bench import bodies
from bridge import journal as journals
from bridge.clock import wall_clock
from bridge.journal import Journal
from bridge.model import Attempt, Delivery, Outcome, Settlement, State

T0 = 1_767_225_600_000
LEASE = 60_000
_HEADERS = f'{{"stripe-signature":"t=1767225600,v1={"0" * 64}","content-type":"application/json"}}'


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Journal]:
    store = await journals.open(url)
    try:
        yield store
    finally:
        await store.close()


def delivery(number: int, received_at: int = T0) -> Delivery:
    """As those that are sent."""
    [id_] = bodies.ids(1, str(number))
    return Delivery(
        source="stripe",
        provider="stripe",
        prefix="stripe",
        id=id_,
        type="invoice.paid",
        occurred_at=received_at - 1000,
        received_at=received_at,
        headers={"stripe-signature": f"t=1767225600,v1={'0' * 64}"},
        body=bodies.body(id_),
        payload={},
    )


async def fill(url: str, count: int, *, start: int = 10**9, at_once: int = 2000) -> None:
    """Pending deliveries, the last received now. `start`: of the numbers they have."""
    now = wall_clock()
    store = await journals.open(url)
    for first in range(0, count, at_once):
        some = range(first, min(first + at_once, count))
        await asyncio.gather(*(store.append(delivery(start + n, now - count + n)) for n in some))
    await store.close()


async def settle(store: Journal) -> None:
    """All that is pending."""
    done = Attempt(at=T0, outcome=Outcome.FORWARDED)
    while entries := await store.claim(500, lease=LEASE):
        await store.settle([Settlement(seq=e.seq, token=e.token, state=State.FORWARDED, attempt=done) for e in entries])


async def stock(url: str, *, settled: int = 0, pending: int = 0) -> None:
    """A new journal with so many entries, as they would be there after so many deliveries, but written at once.

    Settled ones have bodies of 100 bytes, pending ones of 700; all were received lately, a millisecond apart.
    """
    store = await journals.open(url)
    await store.close()
    write = _stock_sqlite if url.startswith("sqlite") else _stock_postgresql
    await asyncio.to_thread(write, url, settled, pending)
    os.sync()  # or the disk would be busy with it while something else is measured


_SETTLED_IN_SQLITE = """
    INSERT INTO delivery (source, id, provider, prefix, type, occurred_at, received_at, size, headers, body)
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count})
        SELECT 'stripe', printf('evt_%s', lower(hex(randomblob(12)))), 'stripe', 'stripe', 'invoice.paid', {t} + n, {t} + n,
            100, '{headers}', zeroblob(100) FROM n;
    INSERT INTO entry (seq, state, due, attempts) SELECT seq, 'forwarded', NULL, 1 FROM delivery;
    INSERT INTO attempt (seq, n, at, outcome, error, events) SELECT seq, 1, received_at, 'forwarded', '', 1 FROM delivery;
    UPDATE tally SET n = {count} WHERE state = 'forwarded';
"""
_PENDING_IN_SQLITE = """
    INSERT INTO delivery (source, id, provider, prefix, type, occurred_at, received_at, size, headers, body)
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count})
        SELECT 'stripe', printf('evt_%024d', n), 'stripe', 'stripe', 'invoice.paid', {t} + n, {t} + n,
            {size}, '{headers}', CAST(replace('{body}', '{id}', printf('evt_%024d', n)) AS BLOB) FROM n;
    INSERT INTO entry (seq, state, due) SELECT seq, 'pending', received_at FROM delivery
        WHERE seq NOT IN (SELECT seq FROM entry);
    UPDATE tally SET n = {count} WHERE state = 'pending';
"""


def _stock_sqlite(url: str, settled: int, pending: int) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")  # a log of so much would be as large again
        db.execute("PRAGMA synchronous = OFF")
        # Row by row it would make each of them pending first.
        name, trigger = db.execute(
            "SELECT name, sql FROM sqlite_schema WHERE sql LIKE '%INSERT ON delivery%'"
        ).fetchone()
        db.execute(f"DROP TRIGGER {name}")
        if settled:
            db.executescript(_SETTLED_IN_SQLITE.format(count=settled, t=wall_clock() - settled, headers=_HEADERS))
        if pending:
            db.executescript(
                _PENDING_IN_SQLITE.format(count=pending, t=wall_clock() - pending, headers=_HEADERS, **_pending_body())
            )
        db.execute(trigger)
        db.execute("PRAGMA journal_mode = WAL")


_SETTLED_IN_POSTGRESQL = """
    INSERT INTO bridge_delivery (seq, source, id, provider, prefix, type, occurred_at, received_at, size)
        SELECT n, 'stripe', 'evt_' || substr(md5(n::text), 1, 24), 'stripe', 'stripe', 'invoice.paid', {t} + n, {t} + n, 100
        FROM generate_series(1, {count}) AS n;
    INSERT INTO bridge_content (received_at, seq, headers, body)
        SELECT {t} + n, n, '{headers}', convert_to(repeat('x', 100), 'UTF8') FROM generate_series(1, {count}) AS n;
    INSERT INTO bridge_finished (seq, attempts, tries, state)
        SELECT n, 1, 1, 'forwarded' FROM generate_series(1, {count}) AS n;
    INSERT INTO bridge_attempt (seq, n, at, outcome, error, events)
        SELECT n, 1, {t} + n, 'forwarded', '', 1 FROM generate_series(1, {count}) AS n;
    SELECT setval('bridge_seq', {count});
    UPDATE bridge_tally SET forwarded = {count} WHERE slot = 0;
"""
_PENDING_IN_POSTGRESQL = """
    INSERT INTO bridge_delivery (seq, source, id, provider, prefix, type, occurred_at, received_at, size)
        SELECT n, 'stripe', 'evt_' || lpad(n::text, 24, '0'), 'stripe', 'stripe', 'invoice.paid', {t} + n, {t} + n, {size}
        FROM generate_series({first}, {last}) AS n;
    INSERT INTO bridge_content (received_at, seq, headers, body)
        SELECT {t} + n, n, '{headers}', convert_to(replace('{body}', '{id}', 'evt_' || lpad(n::text, 24, '0')), 'UTF8')
        FROM generate_series({first}, {last}) AS n;
    INSERT INTO bridge_pending (seq, due, size) SELECT n, {t} + n, {size} FROM generate_series({first}, {last}) AS n;
    SELECT setval('bridge_seq', {last});
    UPDATE bridge_tally SET pending = {count} WHERE slot = 1;
"""
_VACUUM = (
    "VACUUM (ANALYZE) bridge_delivery, bridge_content, bridge_pending, bridge_finished, bridge_attempt, bridge_tally"
)


def _stock_postgresql(url: str, settled: int, pending: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        if settled:
            connection.execute(
                _SETTLED_IN_POSTGRESQL.format(count=settled, t=wall_clock() - settled, headers=_HEADERS).encode()
            )
        if pending:
            span = {"first": settled + 1, "last": settled + pending, "count": pending}
            t = wall_clock() - settled - pending
            statement = _PENDING_IN_POSTGRESQL.format(**span, t=t, headers=_HEADERS, **_pending_body())
            connection.execute(statement.encode())
        connection.execute(_VACUUM)  # as it is when so many have come one by one
        connection.execute("CHECKPOINT")


def _pending_body() -> dict[str, object]:
    [id_] = bodies.ids(1, "pending")
    body = bodies.body(id_)
    return {"size": len(body), "id": id_, "body": body.decode()}
