"""How deliveries get into the PostgreSQL journal: a batch is one statement, whose columns travel as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from os import urandom

from psycopg import AsyncConnection

from bridge.journal import History
from bridge.journal.postgresql.sql import COUNTED, NOW, SLOT
from bridge.journal.rows import Row, adopted_due, headers_written, storable
from bridge.model import Entry

# Those that go in are stored in the order of their ids: two batches that share some then wait for each other, one for the
# other and never both. Of two alike in one batch the first is stored. `due`: never later than now, or what a machine
# receives whose clock is ahead would have to wait for ours.
_APPEND = f"""
    WITH given AS MATERIALIZED (
        SELECT nextval('bridge_seq') AS seq, * FROM unnest(
            %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::bigint[], %b::integer[], %b::text[]
        ) WITH ORDINALITY AS each (source, id, provider, prefix, type, occurred_at, received_at, size, fault, place)
    ), stored AS (
        INSERT INTO bridge_delivery (seq, source, id, provider, prefix, type, occurred_at, received_at, size)
        SELECT seq, source, id, provider, prefix, type, occurred_at, received_at, size FROM given ORDER BY id, source, place
        -- Named, so that no other conflict can ever pass for a duplicate.
        ON CONFLICT (id, source) DO NOTHING
        RETURNING seq
    ), fresh AS MATERIALIZED (
        SELECT seq, place, received_at, size, fault FROM given JOIN stored USING (seq)
    ), moved AS (
        SELECT NULL AS before, CASE fault WHEN '' THEN 'pending' ELSE 'dead' END AS after FROM fresh
    ), {COUNTED}, contents AS (
        INSERT INTO bridge_content (received_at, seq, headers, body)
        SELECT received_at, seq, headers, body FROM fresh
        JOIN unnest(%b::text[], %b::bytea[]) WITH ORDINALITY AS each (headers, body, place) USING (place)
    ), pending AS (
        INSERT INTO bridge_pending (seq, due, size)
        SELECT seq, least(received_at, {NOW}), size FROM fresh WHERE fault = ''
    ), finished AS (
        INSERT INTO bridge_finished (seq, attempts, tries, state) SELECT seq, 1, 1, 'dead' FROM fresh WHERE fault <> ''
    ), attempts AS (
        INSERT INTO bridge_attempt (seq, n, at, outcome, error, events)
        SELECT seq, 1, received_at, 'unusable', fault, 0 FROM fresh WHERE fault <> ''
    )
    SELECT place - 1 FROM given LEFT JOIN stored USING (seq) WHERE stored.seq IS NULL
"""  # noqa: S608 - our own text


async def append(connection: AsyncConnection, rows: Sequence[Row]) -> frozenset[int]:
    """The places in `rows` of those that are duplicates: of one there already, or of one before them in `rows`."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    *described, headers, bodies, faults = columns
    cursor = connection.cursor(binary=True)
    await cursor.execute(_APPEND, (*described, faults, headers, bodies))
    return frozenset(place for (place,) in await cursor.fetchall())


_ADOPT = f"""
    WITH given AS MATERIALIZED (
        SELECT nextval('bridge_seq') AS seq, * FROM unnest(
            %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::bigint[], %b::integer[],
            %b::text[], %b::bytea[], %b::text[], %b::bigint[], %b::integer[], %b::integer[], %b::integer[]
        ) WITH ORDINALITY AS each (
            source, id, provider, prefix, type, occurred_at, received_at, size,
            headers, body, state, due, attempts, replays, generation, place
        )
    ), stored AS (
        INSERT INTO bridge_delivery (seq, source, id, provider, prefix, type, occurred_at, received_at, size)
        SELECT seq, source, id, provider, prefix, type, occurred_at, received_at, size FROM given ORDER BY id, source, place
        ON CONFLICT (id, source) DO NOTHING
        RETURNING seq
    ), fresh AS MATERIALIZED (
        SELECT given.* FROM given JOIN stored USING (seq)
    ), moved AS (
        SELECT NULL AS before, state AS after FROM fresh
    ), {COUNTED}, tried AS MATERIALIZED (
        SELECT seq, row_number() OVER (PARTITION BY seq ORDER BY number) AS n, at, outcome, error, events
        FROM fresh JOIN unnest(%b::bigint[], %b::bigint[], %b::text[], %b::text[], %b::integer[])
            WITH ORDINALITY AS each (place, at, outcome, error, events, number) USING (place)
    ), contents AS (
        INSERT INTO bridge_content (received_at, seq, headers, body)
        SELECT received_at, seq, headers, body FROM fresh WHERE body IS NOT NULL
    ), pending AS (
        INSERT INTO bridge_pending (seq, due, size, attempts, tries, replays, generation)
        SELECT seq, due, size, attempts, (SELECT count(*) FROM tried WHERE tried.seq = fresh.seq), replays, generation FROM fresh WHERE state = 'pending'
    ), finished AS (
        INSERT INTO bridge_finished (seq, attempts, tries, replays, generation, state)
        SELECT seq, attempts, (SELECT count(*) FROM tried WHERE tried.seq = fresh.seq), replays, generation, state FROM fresh WHERE state <> 'pending'
    ), attempts AS (
        INSERT INTO bridge_attempt (seq, n, at, outcome, error, events) SELECT seq, n, at, outcome, error, events FROM tried
    )
    SELECT count(*) FROM stored
"""  # noqa: S608 - our own text


async def adopt(connection: AsyncConnection, histories: Sequence[History]) -> int:
    """As `Journal.adopt`."""
    entries = [_adopted(each.entry) for each in histories]
    tried = [
        (place, attempt.at, str(attempt.outcome), storable(attempt.error), attempt.events)
        for place, each in enumerate(histories, 1)
        for attempt in each.attempts
    ]
    columns = [list(column) for column in zip(*entries, strict=True)]
    attempts = [[row[column] for row in tried] for column in range(5)]
    cursor = await connection.cursor(binary=True).execute(_ADOPT, (*columns, *attempts))
    [(adopted,)] = await cursor.fetchall()
    return int(adopted)


def _adopted(entry: Entry) -> tuple[object, ...]:
    """In the order of the columns of `given`."""
    described = (entry.source, entry.id, entry.provider, entry.prefix, entry.type)
    return (
        *map(storable, described),
        entry.occurred_at,
        entry.received_at,
        entry.size,
        None if entry.headers is None else headers_written(entry.headers),
        entry.body,
        str(entry.state),
        adopted_due(entry),
        entry.attempts,
        entry.replays,
        entry.generation,
    )


_PROBE = f"""
    INSERT INTO bridge_probe (slot, noise) VALUES ({SLOT}, %b) ON CONFLICT (slot) DO UPDATE SET noise = excluded.noise
"""  # noqa: S608 - our own text


async def probe(connection: AsyncConnection) -> None:
    """Do what an append does, and take it back; then store about as much: the smallest writes a page of each table and index."""
    async with connection.transaction(force_rollback=True):
        await append(connection, [("probe", urandom(16).hex(), "", "", "", 0, 0, 0, "{}", b"", "")])
    await connection.execute(_PROBE, (urandom(16_384),))
