"""What the PostgreSQL journal reads for people and gauges. Holds up nobody: a reader takes no lock that a writer wants."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg import AsyncConnection

from bridge.journal import Census
from bridge.journal.postgresql.sql import CLOCK, HELD, JOURNAL, WORK
from bridge.journal.rows import NEXT, entry_of, storable
from bridge.model import Attempt, Entry, Outcome, Selection, State

# Of those in `e`, an entry, and `d`, what it is of.
ENTRY = (
    "e.seq, d.source, d.provider, d.prefix, d.id, d.type, d.occurred_at, d.received_at, d.size,"
    " e.state, e.due, coalesce(e.token::text, ''), e.attempts, e.replays, e.generation"
)
_ENTRIES = """(
        SELECT seq, 'pending'::text COLLATE "C" AS state, due, token, attempts, replays, generation FROM bridge_pending
        UNION ALL SELECT seq, state, NULL, NULL, attempts, replays, generation FROM bridge_finished
    )"""
_FIND = f"""
    SELECT {ENTRY}, NULL, NULL FROM {_ENTRIES} AS e JOIN bridge_delivery AS d ON d.seq = e.seq
    WHERE {{}} ORDER BY e.seq {{}} LIMIT %(limit)s
"""  # noqa: S608 - our own text
_LOAD = f"""
    SELECT {ENTRY}, c.headers, c.body FROM {_ENTRIES} AS e JOIN bridge_delivery AS d ON d.seq = e.seq
    LEFT JOIN bridge_content AS c ON c.received_at = d.received_at AND c.seq = d.seq WHERE e.seq = %b
"""  # noqa: S608 - our own text
# The rows are read by their time, as many as that is quick for: the least seq of all would be looked for in all that is older.
_FEW = 100_000
_RECEIVED = f"""
    SELECT min(seq), max(seq), count(*) FROM (
        SELECT seq FROM bridge_delivery
        WHERE received_at >= coalesce(%b::bigint, 0) AND received_at < coalesce(%b::bigint, 9223372036854775807)
        LIMIT {_FEW}
    ) AS found
"""  # noqa: S608 - our own text
_ATTEMPTS = "SELECT at, outcome, error, events FROM bridge_attempt WHERE seq = %b ORDER BY n"
# The oldest: the first to come, or where older ones came later, from another journal, the first to be due.
_CENSUS = f"""
    WITH {CLOCK}
    SELECT sum(pending)::bigint, sum(forwarded)::bigint, sum(skipped)::bigint, sum(dead)::bigint, (
        SELECT min(received_at) FROM bridge_delivery WHERE seq IN (
            (SELECT min(seq) FROM bridge_pending), (SELECT seq FROM bridge_pending ORDER BY due, seq LIMIT 1)
        )
    ), (
        SELECT min(d.received_at)
        FROM (SELECT seq, due, token FROM bridge_pending ORDER BY due, seq LIMIT {NEXT}) AS e
        JOIN bridge_delivery AS d ON d.seq = e.seq WHERE e.due <= (SELECT now FROM clock) OR e.token IS NOT NULL
    ) FROM bridge_tally
"""  # noqa: S608 - our own text


# objsubid: a lock of two numbers.
_AT_WORK = f"SELECT count(*) FROM pg_locks WHERE {HELD} AND objsubid = 2 AND classid = {WORK} AND objid = {JOURNAL}"  # noqa: S608 - our own text


# Where a URL leads also depends on who asks: a role may have a database of its name, and a search_path of its own.
_IDENTITY = f"""
    SELECT (SELECT system_identifier FROM pg_control_system()) || ' '
        || (SELECT oid FROM pg_database WHERE datname = current_database()) || ' ' || {JOURNAL}
"""  # noqa: S608 - our own text


async def identity(connection: AsyncConnection) -> str:
    """Of the cluster, the database in it, and our tables in that."""
    [(found,)] = await (await connection.execute(_IDENTITY)).fetchall()
    return str(found)


async def at_work(connection: AsyncConnection) -> bool:
    """Whether anybody claims from this journal."""
    row = await (await connection.execute(_AT_WORK)).fetchone()
    return row is not None and row[0] > 0


async def find(
    connection: AsyncConnection, selection: Selection, *, limit: int, beyond: int | None, oldest_first: bool
) -> list[Entry]:
    """As `Journal.find`."""
    async with connection.transaction():
        # Which way is best depends on what is asked for.
        await connection.execute("SELECT set_config('plan_cache_mode', 'force_custom_plan', true)")
        query, asked = await _query(connection, selection, beyond=beyond, oldest_first=oldest_first)
        cursor = await connection.execute(query, {**asked, "limit": limit})
        return [entry_of(row) for row in await cursor.fetchall()]


async def _query(
    connection: AsyncConnection, selection: Selection, *, beyond: int | None, oldest_first: bool
) -> tuple[str, Mapping[str, object]]:
    """The text, and what is asked for in it."""
    asked: dict[str, object] = {
        "d.id = %(id)s": selection.id and storable(selection.id),
        "d.source = %(source)s": selection.source and storable(selection.source),
        # In these words the index is known to answer that leaves the forwarded out.
        "e.state = %(state)s" + ("" if selection.state is State.FORWARDED else " AND e.state <> 'forwarded'"): (
            selection.state and str(selection.state)
        ),
        "d.type = %(type)s": selection.type and storable(selection.type),
        "d.received_at >= %(since)s": selection.since,
        "d.received_at < %(until)s": selection.until,
        _both("> %(beyond)s" if oldest_first else "< %(beyond)s"): beyond,
        **await _received(connection, selection),
    }
    terms = {term: value for term, value in asked.items() if value is not None}
    names = {term.partition("%(")[2].partition(")")[0]: value for term, value in terms.items()}
    return _FIND.format(" AND ".join(terms) or "true", "ASC" if oldest_first else "DESC"), names


async def _received(connection: AsyncConnection, selection: Selection) -> Mapping[str, int]:
    """The first and the last seq received when it was asked for, where those are few: what lies outside is not read."""
    if selection.since is selection.until is None:
        return {}
    cursor = await connection.execute(_RECEIVED, (selection.since, selection.until))
    [(first, last, count)] = await cursor.fetchall()
    if count == _FEW:
        return {}
    first, last = first or 0, last or 0
    return {_both(">= %(first)s"): first, _both("<= %(last)s"): last}


def _both(bound: str) -> str:
    """Said of both tables: PostgreSQL concludes that they are the same of one seq, but not of a range of them."""
    return f"e.seq {bound} AND d.seq {bound}"


async def load(connection: AsyncConnection, seq: int) -> Entry | None:
    """As `Journal.load`."""
    cursor = connection.cursor(binary=True)
    row = await (await cursor.execute(_LOAD, (seq,))).fetchone()
    return None if row is None else entry_of(row)


async def attempts(connection: AsyncConnection, seq: int) -> list[Attempt]:
    """As `Journal.attempts`."""
    rows = await (await connection.execute(_ATTEMPTS, (seq,))).fetchall()
    return [Attempt(at=at, outcome=Outcome(outcome), error=error, events=events) for at, outcome, error, events in rows]


async def census(connection: AsyncConnection, *, now: int | None) -> Census:
    """As `Journal.census`: a few rows, and the first of two indexes."""
    row = await (await connection.execute(_CENSUS, {"now": now})).fetchone()
    *counts, oldest_pending, oldest_due = row or (0, 0, 0, 0, None, None)
    states = (State.PENDING, State.FORWARDED, State.SKIPPED, State.DEAD)
    by_state = dict(zip(states, counts, strict=True))
    return Census(counts=by_state, oldest_pending=oldest_pending, oldest_due=oldest_due)
