"""What forwarders and commands write in the PostgreSQL journal: each function is one transaction, nearly all one statement."""

from __future__ import annotations

from collections.abc import Sequence
from os import urandom
from secrets import randbelow

from psycopg import AsyncConnection

from bridge.journal.postgresql.reads import ENTRY
from bridge.journal.postgresql.sql import CLOCK, COUNTED, QUICK, RING, SLOT
from bridge.journal.rows import MOST_CLAIMED, entry_of, storable
from bridge.model import Entry, Settlement

# SKIP LOCKED: nobody waits for another's claim, and nobody gets what another is just taking. The limit is a part of the
# text: the plan for an unknown one would be made for a tenth of the table.
LOCKED = "FOR UPDATE SKIP LOCKED"
_CLAIM = f"""
    WITH {CLOCK}, picked AS MATERIALIZED (
        SELECT seq, due, size FROM bridge_entry WHERE due <= (SELECT now FROM clock) ORDER BY due, seq LIMIT {{limit}} {{locked}}
    ), weighed AS (
        SELECT seq, row_number() OVER w AS place, sum(size) OVER w AS weight FROM picked WINDOW w AS (ORDER BY due, seq)
    ), taken AS (
        UPDATE bridge_entry AS e SET due = clock.now + %(lease)b::bigint, holder = %(holder)b::bigint, token = %(token)b::bigint
        FROM weighed, clock WHERE e.seq = weighed.seq AND (place = 1 OR weight <= {MOST_CLAIMED})
        RETURNING e.*, place
    )
    SELECT {ENTRY}, c.headers, c.body FROM taken AS e JOIN bridge_delivery AS d ON d.seq = e.seq
    JOIN bridge_content AS c ON c.received_at = d.received_at AND c.seq = d.seq, {QUICK}
    ORDER BY place
"""  # noqa: S608 - our own text


async def claim(connection: AsyncConnection, *, limit: int, lease: int, holder: int, now: int | None) -> list[Entry]:
    """As `Journal.claim`."""
    asked = {"now": now, "lease": lease, "holder": holder, "token": 1 + randbelow(2**63 - 1)}
    cursor = connection.cursor(binary=True)
    await cursor.execute(_CLAIM.format(limit=int(limit), locked=LOCKED), asked)
    return [entry_of(row) for row in await cursor.fetchall()]


# The rows are locked in the order of seq: of two settlements that share some, one waits for the other.
_SETTLE = f"""
    WITH {CLOCK}, given AS MATERIALIZED (
        SELECT * FROM unnest(
            %(seq)b::bigint[], %(token)b::bigint[], %(state)b::text[], %(wait)b::bigint[],
            %(at)b::bigint[], %(outcome)b::text[], %(error)b::text[], %(events)b::integer[]
        ) AS each (seq, token, state, wait, at, outcome, error, events)
    ), held AS MATERIALIZED (
        SELECT given.* FROM (SELECT * FROM given ORDER BY seq) AS given CROSS JOIN LATERAL (
            SELECT FROM bridge_entry AS e WHERE e.seq = given.seq AND e.token = given.token FOR UPDATE
        ) AS e
    ), settled AS (
        UPDATE bridge_entry AS e
        SET state = held.state, due = clock.now + held.wait, holder = NULL, token = NULL,
            attempts = attempts + (at IS NOT NULL)::integer, tries = tries + (at IS NOT NULL)::integer
        FROM held, clock WHERE e.seq = held.seq
        RETURNING e.seq, e.tries, held.state, at, outcome, error, events
    ), attempts AS (
        INSERT INTO bridge_attempt (seq, n, at, outcome, error, events)
        SELECT seq, tries, at, outcome, error, events FROM settled WHERE at IS NOT NULL
    ), newest AS (
        DELETE FROM bridge_attempt AS a USING settled
        WHERE settled.tries > 100 AND a.seq = settled.seq AND a.n <= settled.tries - 100
    ), moved AS (
        SELECT 'pending' AS before, state AS after FROM settled
    ), {COUNTED}
    SELECT count(*), {QUICK} FROM settled
"""  # noqa: S608 - our own text


async def settle(connection: AsyncConnection, settlements: Sequence[Settlement], *, now: int | None) -> int:
    """As `Journal.settle`. Of two for one claim, the first."""
    given = {(each.seq, each.token): each for each in reversed(settlements) if each.token.isdecimal()}
    tried = [each.attempt for each in given.values()]
    asked = {
        "now": now,
        "seq": [each.seq for each in given.values()],
        "token": [int(each.token) for each in given.values()],
        "state": [str(each.state) for each in given.values()],
        "wait": [each.wait for each in given.values()],
        "at": [attempt and attempt.at for attempt in tried],
        "outcome": [attempt and str(attempt.outcome) for attempt in tried],
        "error": [attempt and storable(attempt.error) for attempt in tried],
        "events": [attempt and attempt.events for attempt in tried],
    }
    cursor = await connection.cursor(binary=True).execute(_SETTLE, asked)
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


# A holder lives as long as it has its advisory lock, and so its session: see presence.py.
_RECOVER = f"""
    WITH {CLOCK}, alive AS MATERIALIZED (
        SELECT (classid::bigint << 32) | objid::bigint AS holder FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ), freed AS (
        UPDATE bridge_entry AS e SET holder = NULL, token = NULL, due = least(d.received_at, clock.now)
        FROM bridge_delivery AS d, clock
        WHERE d.seq = e.seq AND e.due IS NOT NULL AND e.holder IS NOT NULL
            AND (e.holder = %(holder)b::bigint OR e.holder NOT IN (SELECT holder FROM alive))
        RETURNING e.seq
    )
    SELECT count(*) FROM freed
"""  # noqa: S608 - our own text


async def recover(connection: AsyncConnection, *, holder: int) -> int:
    """As `Journal.recover`: what this journal holds itself, and what those held who are gone."""
    cursor = await connection.cursor(binary=True).execute(_RECOVER, {"holder": holder, "now": None})
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


_FINISHED = "SELECT seq FROM bridge_entry WHERE seq = ANY(%b::bigint[]) AND due IS NULL ORDER BY seq FOR UPDATE"
_REPLAY = f"""
    WITH {CLOCK}, replayed AS (
        UPDATE bridge_entry AS e
        SET state = 'pending', due = clock.now, attempts = 0, replays = e.replays + 1,
            generation = e.generation + %(new_ids)b::integer
        FROM bridge_entry AS was, bridge_delivery AS d, bridge_content AS c, clock
        WHERE e.seq = ANY(%(seqs)b::bigint[]) AND was.seq = e.seq AND d.seq = e.seq
            AND c.received_at = d.received_at AND c.seq = d.seq
        RETURNING was.state
    ), moved AS (
        SELECT state AS before, 'pending' AS after FROM replayed
    ), {COUNTED}
    SELECT count(*) FROM replayed
"""  # noqa: S608 - our own text


async def replay(connection: AsyncConnection, seqs: Sequence[int], *, new_ids: bool, now: int | None) -> int:
    """As `Journal.replay`. Two statements: what was purged while the first waited for its locks is gone for the second."""
    async with connection.transaction():
        cursor = connection.cursor(binary=True)
        await cursor.execute(_FINISHED, (list(seqs),))
        finished = [seq for (seq,) in await cursor.fetchall()]
        if not finished:
            return 0
        await cursor.execute(_REPLAY, {"now": now, "new_ids": int(new_ids), "seqs": finished})
        row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


# What is pending is stepped over, however old: it keeps nothing behind it from being forgotten. The entries are locked,
# so that none becomes pending again meanwhile; what another prunes is left to it.
_PURGE = f"""
    WITH old AS MATERIALIZED (
        SELECT c.received_at, c.seq FROM bridge_content AS c JOIN bridge_entry AS e ON e.seq = c.seq
        WHERE c.received_at < %(before)b::bigint AND e.due IS NULL
        ORDER BY c.received_at, c.seq LIMIT %(limit)b::bigint FOR UPDATE OF e SKIP LOCKED
    ), purged AS (
        DELETE FROM bridge_content AS c USING old WHERE c.received_at = old.received_at AND c.seq = old.seq RETURNING 1
    )
    SELECT count(*), {QUICK} FROM purged
"""  # noqa: S608 - our own text
_FORGET = f"""
    WITH old AS MATERIALIZED (
        SELECT d.received_at, d.seq FROM bridge_delivery AS d JOIN bridge_entry AS e ON e.seq = d.seq
        WHERE d.received_at < %(before)b::bigint AND e.due IS NULL
        ORDER BY d.received_at, d.seq LIMIT %(limit)b::bigint FOR UPDATE OF e SKIP LOCKED
    ), gone AS (
        DELETE FROM bridge_entry AS e USING old WHERE e.seq = old.seq RETURNING e.state
    ), deliveries AS (
        DELETE FROM bridge_delivery AS d USING old WHERE d.seq = old.seq
    ), contents AS (
        DELETE FROM bridge_content AS c USING old WHERE c.received_at = old.received_at AND c.seq = old.seq
    ), attempts AS (
        DELETE FROM bridge_attempt AS a USING old WHERE a.seq = old.seq
    ), moved AS (
        SELECT state AS before, NULL AS after FROM gone
    ), {COUNTED}
    SELECT count(*), {QUICK} FROM gone
"""  # noqa: S608 - our own text


async def prune(connection: AsyncConnection, *, bodies_before: int, ids_before: int, limit: int) -> int:
    """As `Journal.prune`: two transactions."""
    touched = 0
    for statement, before in ((_PURGE, bodies_before), (_FORGET, ids_before)):
        cursor = connection.cursor(binary=True)
        await cursor.execute(statement, {"before": before, "limit": limit})
        row = await cursor.fetchone()
        touched += 0 if row is None else int(row[0])
    return touched


_PROBE = f"""
    INSERT INTO bridge_probe (slot, noise) VALUES ({SLOT}, %b) ON CONFLICT (slot) DO UPDATE SET noise = excluded.noise
"""  # noqa: S608 - our own text


async def probe(connection: AsyncConnection) -> None:
    """Store about what an append does: the smallest writes a page of each table and index."""
    await connection.execute(_PROBE, (urandom(16_384),))


async def ring(connection: AsyncConnection) -> None:
    """Wake all who wait."""
    await connection.execute(RING)
