"""What forwarders and commands write in the PostgreSQL journal: each function is one transaction, nearly all one statement."""

from __future__ import annotations

from collections.abc import Sequence
from secrets import randbelow

from psycopg import AsyncConnection

from bridge.journal.postgresql.reads import ENTRY
from bridge.journal.postgresql.sql import CLOCK, COUNTED, HELD, QUICK, RING
from bridge.journal.rows import MOST_CLAIMED, entry_of, storable
from bridge.model import Entry, Settlement

# SKIP LOCKED: nobody waits for another's claim, and nobody gets what another is just taking; a test takes it away. The limit is a part of the
# text: the plan for an unknown one would be made for a tenth of the table.
LOCKED = "FOR UPDATE SKIP LOCKED"
_CLAIM = f"""
    WITH {CLOCK}, picked AS MATERIALIZED (
        SELECT seq, due, size FROM bridge_pending WHERE due <= (SELECT now FROM clock) ORDER BY due, seq LIMIT {{limit}} {{locked}}
    ), weighed AS (
        SELECT seq, row_number() OVER w AS place, sum(size) OVER w AS weight FROM picked WINDOW w AS (ORDER BY due, seq)
    ), taken AS (
        UPDATE bridge_pending AS e SET due = clock.now + %(lease)b::bigint, holder = %(holder)b::bigint, token = %(token)b::bigint
        FROM weighed, clock WHERE e.seq = weighed.seq AND (place = 1 OR weight <= {MOST_CLAIMED})
        RETURNING e.*, 'pending' AS state, place
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


# The rows are locked in the order of seq: of two settlements that share some, one waits for the other. Whether any has been
# tried so often is asked first: else, where statistics say that there are no attempts, all of them are read each time.
_SETTLE = f"""
    WITH {CLOCK}, given AS MATERIALIZED (
        SELECT * FROM unnest(
            %(seq)b::bigint[], %(token)b::bigint[], %(state)b::text[], %(wait)b::bigint[],
            %(at)b::bigint[], %(outcome)b::text[], %(error)b::text[], %(events)b::integer[]
        ) AS each (seq, token, state, wait, at, outcome, error, events)
    ), held AS MATERIALIZED (
        SELECT given.*, e.attempts + (at IS NOT NULL)::integer AS attempts, e.tries + (at IS NOT NULL)::integer AS tries,
            e.replays, e.generation
        FROM (SELECT * FROM given ORDER BY seq) AS given CROSS JOIN LATERAL (
            SELECT attempts, tries, replays, generation FROM bridge_pending AS e
            WHERE e.seq = given.seq AND e.token = given.token FOR UPDATE
        ) AS e
    ), moved AS (
        SELECT 'pending' AS before, state AS after FROM held
    ), {COUNTED}, given_back AS (
        UPDATE bridge_pending AS e
        SET due = clock.now + held.wait, holder = NULL, token = NULL, attempts = held.attempts, tries = held.tries
        FROM held, clock WHERE e.seq = held.seq AND held.state = 'pending'
    ), settled AS (
        DELETE FROM bridge_pending AS e USING held WHERE e.seq = held.seq AND held.state <> 'pending'
    ), finished AS (
        INSERT INTO bridge_finished (seq, attempts, tries, replays, generation, state)
        SELECT seq, attempts, tries, replays, generation, state FROM held WHERE state <> 'pending'
    ), attempts AS (
        INSERT INTO bridge_attempt (seq, n, at, outcome, error, events)
        SELECT seq, tries, at, outcome, error, events FROM held WHERE at IS NOT NULL
    ), newest AS (
        DELETE FROM bridge_attempt AS a USING held
        WHERE (SELECT bool_or(tries > 100) FROM held) AND held.tries > 100 AND a.seq = held.seq AND a.n <= held.tries - 100
    )
    SELECT count(*), {QUICK} FROM held
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
        SELECT (classid::bigint << 32) | objid::bigint AS holder FROM pg_locks WHERE {HELD} AND objsubid = 1
    ), freed AS (
        UPDATE bridge_pending AS e SET holder = NULL, token = NULL, due = least(d.received_at, clock.now)
        FROM bridge_delivery AS d, clock
        WHERE d.seq = e.seq AND e.holder IS NOT NULL
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


# The entry is locked first, as prune does, and then what it holds: which is so found gone where prune was faster.
_REPLAY = f"""
    WITH {CLOCK}, finished AS MATERIALIZED (
        SELECT f.seq, f.state, f.tries, f.replays, f.generation, d.size
        FROM bridge_finished AS f JOIN bridge_delivery AS d ON d.seq = f.seq
        JOIN bridge_content AS c ON c.received_at = d.received_at AND c.seq = d.seq
        WHERE f.seq = ANY(%(seqs)b::bigint[]) ORDER BY f.seq FOR UPDATE OF f, c
    ), moved AS (
        SELECT state AS before, 'pending' AS after FROM finished
    ), {COUNTED}, gone AS (
        DELETE FROM bridge_finished AS f USING finished WHERE f.seq = finished.seq
    ), replayed AS (
        INSERT INTO bridge_pending (seq, due, size, tries, replays, generation)
        SELECT seq, clock.now, size, tries, replays + 1, generation + %(new_ids)b::integer FROM finished, clock
    )
    SELECT count(*) FROM finished
"""  # noqa: S608 - our own text


async def replay(connection: AsyncConnection, seqs: Sequence[int], *, new_ids: bool, now: int | None) -> int:
    """As `Journal.replay`."""
    asked = {"now": now, "new_ids": int(new_ids), "seqs": list(seqs)}
    cursor = await connection.cursor(binary=True).execute(_REPLAY, asked)
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


# What is pending is stepped over, however old: it keeps nothing behind it from being forgotten. What is forgotten is locked
# as finished first, so that none becomes pending again meanwhile; what another prunes is left to it. `since`: not from the
# very first, where what was forgotten before is still in the way of an index until it is vacuumed.
_PURGE = f"""
    WITH {CLOCK}, old AS MATERIALIZED (
        SELECT c.received_at, c.seq FROM bridge_content AS c JOIN bridge_finished AS f ON f.seq = c.seq
        WHERE c.received_at >= %(since)b::bigint AND c.received_at < (SELECT now FROM clock) - %(age)b::bigint
        ORDER BY c.received_at, c.seq LIMIT %(limit)b::bigint FOR UPDATE OF f, c SKIP LOCKED
    ), purged AS (
        DELETE FROM bridge_content AS c USING old WHERE c.received_at = old.received_at AND c.seq = old.seq
    )
    SELECT count(*), max(received_at), {QUICK} FROM old
"""  # noqa: S608 - our own text
_FORGET = f"""
    WITH {CLOCK}, old AS MATERIALIZED (
        SELECT d.received_at, d.seq, f.state FROM bridge_delivery AS d JOIN bridge_finished AS f ON f.seq = d.seq
        WHERE d.received_at >= %(since)b::bigint AND d.received_at < (SELECT now FROM clock) - %(age)b::bigint
        ORDER BY d.received_at, d.seq LIMIT %(limit)b::bigint FOR UPDATE OF f SKIP LOCKED
    ), moved AS (
        SELECT state AS before, NULL AS after FROM old
    ), {COUNTED}, finished AS (
        DELETE FROM bridge_finished AS f USING old WHERE f.seq = old.seq
    ), deliveries AS (
        DELETE FROM bridge_delivery AS d USING old WHERE d.seq = old.seq
    ), contents AS (
        DELETE FROM bridge_content AS c USING old WHERE c.received_at = old.received_at AND c.seq = old.seq
    ), attempts AS (
        DELETE FROM bridge_attempt AS a USING old WHERE a.seq = old.seq
    )
    SELECT count(*), max(received_at), {QUICK} FROM old
"""  # noqa: S608 - our own text


class Pruning:
    """Forgets what is finished and old, each step from where the last one ended."""

    def __init__(self) -> None:
        self._since = {_PURGE: 0, _FORGET: 0}

    async def step(self, connection: AsyncConnection, *, bodies: int, ids: int, limit: int, now: int | None) -> int:
        """As `Journal.prune`: two transactions."""
        touched = 0
        for statement, age in ((_PURGE, bodies), (_FORGET, ids)):
            left = limit
            while left:
                asked = {"now": now, "age": age, "limit": left, "since": self._since[statement]}
                cursor = await connection.cursor(binary=True).execute(statement, asked)
                [(found, newest, _)] = await cursor.fetchall()
                left -= found
                if not left:
                    self._since[statement] = newest
                elif self._since[statement]:
                    self._since[statement] = 0  # once more from the first: what was pending then may be finished now
                else:
                    break
            touched += limit - left
        return touched


async def ring(connection: AsyncConnection) -> None:
    """Wake all who wait."""
    await connection.execute(RING)
