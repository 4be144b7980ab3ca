"""The tables of the PostgreSQL journal, as the numbered steps that lead to them, and how a database is brought there.

A step that was ever released is never changed: a later one mends it. While a release is rolled out the one before it
goes on with the new schema, so a step only adds; what nobody reads any more goes one release later, and says so in `needs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg import AsyncConnection

from bridge.errors import JournalUnavailable

# Of the advisory lock: any number that others in the same database are not likely to take.
_LOCK = 0x6272_6964_6765


@dataclass(frozen=True, slots=True)
class Step:
    """`needs`: the oldest schema number a release must know to work with what this step leads to."""

    statements: Sequence[LiteralString]
    needs: int = 1


_FIRST = Step(
    (
        # What a delivery is. Written once, and deleted when its id is forgotten; in between nothing touches it.
        # COLLATE "C": nobody reads these in the order of a language, and to compare bytes is several times as fast.
        """
        CREATE TABLE bridge_delivery (
            seq bigint PRIMARY KEY,
            source text COLLATE "C" NOT NULL,
            id text COLLATE "C" NOT NULL,
            provider text COLLATE "C" NOT NULL,
            prefix text COLLATE "C" NOT NULL,
            type text COLLATE "C" NOT NULL,
            occurred_at bigint NOT NULL,
            received_at bigint NOT NULL,
            size integer NOT NULL
        )
        """,
        "CREATE SEQUENCE bridge_seq OWNED BY bridge_delivery.seq",
        # The id first: a person who looks for one knows it, and seldom the source.
        "CREATE UNIQUE INDEX bridge_delivery_id ON bridge_delivery (id, source)",
        # For find by time, and for prune: the oldest that are still here.
        "CREATE INDEX bridge_delivery_received ON bridge_delivery (received_at)",
        # What it holds. Written once, deleted when it is purged; the time first, because that is what prune goes by.
        """
        CREATE TABLE bridge_content (
            received_at bigint NOT NULL,
            seq bigint NOT NULL,
            headers text NOT NULL,
            body bytea NOT NULL,
            PRIMARY KEY (received_at, seq)
        )
        """,
        # What changes: narrow, and in it what is pending alone, so that all which is finished costs a claim nothing, and
        # a vacuum little. Each claim writes a row anew, for which there is room in its page. Vacuumed by the number of
        # changes, its indexes too: PostgreSQL would leave those that lead to few dead rows, and a claim begins where they
        # are. token: of the claim; holder: whose it is.
        """
        CREATE TABLE bridge_pending (
            seq bigint PRIMARY KEY,
            due bigint NOT NULL,
            holder bigint,
            token bigint,
            size integer NOT NULL,
            attempts integer NOT NULL DEFAULT 0,
            tries integer NOT NULL DEFAULT 0,
            replays integer NOT NULL DEFAULT 0,
            generation integer NOT NULL DEFAULT 0
        ) WITH (
            fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
            vacuum_index_cleanup = on, vacuum_truncate = off
        )
        """,
        "CREATE INDEX bridge_pending_due ON bridge_pending (due, seq)",
        # What became of the others. Written once, and deleted when the id is forgotten, or when it is replayed.
        """
        CREATE TABLE bridge_finished (
            seq bigint PRIMARY KEY,
            attempts integer NOT NULL,
            tries integer NOT NULL,
            replays integer NOT NULL DEFAULT 0,
            generation integer NOT NULL DEFAULT 0,
            state text COLLATE "C" NOT NULL
        )
        """,
        # What a person asks for. The forwarded, nearly all, are not in it.
        "CREATE INDEX bridge_finished_state ON bridge_finished (state, seq) WHERE state <> 'forwarded'",
        # n: the entry's `tries`. The newest 100 of each entry.
        """
        CREATE TABLE bridge_attempt (
            seq bigint NOT NULL,
            n integer NOT NULL,
            at bigint NOT NULL,
            outcome text NOT NULL,
            error text NOT NULL,
            events integer NOT NULL,
            PRIMARY KEY (seq, n)
        )
        """,
        # How many entries are in each state: the sums of the columns, kept in the transactions that move them.
        """
        CREATE TABLE bridge_tally (
            slot integer PRIMARY KEY,
            pending bigint NOT NULL DEFAULT 0,
            forwarded bigint NOT NULL DEFAULT 0,
            skipped bigint NOT NULL DEFAULT 0,
            dead bigint NOT NULL DEFAULT 0
        ) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)
        """,
        "INSERT INTO bridge_tally (slot) SELECT generate_series(0, 255)",
        # What every check writes over.
        "CREATE TABLE bridge_probe (slot integer PRIMARY KEY, noise bytea NOT NULL)",
        "ALTER TABLE bridge_probe ALTER noise SET STORAGE EXTERNAL",
    )
)

MIGRATIONS: tuple[Step, ...] = (_FIRST,)


async def migrate(connection: AsyncConnection, migrations: Sequence[Step] = MIGRATIONS) -> bool:
    """Bring the schema up to date: all missing steps in one transaction, by one process at a time.

    True: there was none before. Raises JournalUnavailable as `check_known` does.
    """
    found = await schema_number(connection)
    if found < len(migrations):
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            # Once more under the lock: another may have been faster.
            found = await schema_number(connection)
            for number, step in enumerate(migrations[found:], found + 1):
                await _apply(connection, number, step)
    await check_known(connection, len(migrations))
    return found == 0


async def check_known(connection: AsyncConnection, known: int = len(MIGRATIONS)) -> None:
    """Raises JournalUnavailable where a release has been here that one which knows so many steps can't work with."""
    cursor = await connection.execute("SELECT max(needs) FROM bridge_schema")
    [(needs,)] = await cursor.fetchall()
    if needs > known:
        raise JournalUnavailable(
            f"its schema is that of a newer release and needs one that knows number {needs}, "
            f"this one knows {known}: run the newer release"
        )


async def schema_number(connection: AsyncConnection) -> int:
    """Of the newest step that was taken; 0 where there is no journal."""
    # From the catalogue itself: what to_regclass() has once not found, it does not find again in the same transaction.
    cursor = await connection.execute(
        "SELECT FROM pg_class WHERE relname = 'bridge_schema' AND pg_table_is_visible(oid)"
    )
    if not cursor.rowcount:
        return 0
    cursor = await connection.execute("SELECT coalesce(max(number), 0) FROM bridge_schema")
    [(number,)] = await cursor.fetchall()
    return int(number)


async def _apply(connection: AsyncConnection, number: int, step: Step) -> None:
    if number == 1:
        await connection.execute("CREATE TABLE bridge_schema (number integer PRIMARY KEY, needs integer NOT NULL)")
    for statement in step.statements:
        await connection.execute(statement)
    await connection.execute("INSERT INTO bridge_schema (number, needs) VALUES (%s, %s)", (number, step.needs))
