"""The tables of the PostgreSQL journal: made once, whoever comes first, and old releases live with those of new ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeAlias

import postgres
import psycopg
import pytest

from bridge import journal as journals
from bridge.errors import JournalUnavailable
from bridge.journal import Journal
from bridge.journal.postgresql import schema
from bridge.journal.postgresql.schema import MIGRATIONS, Step, migrate, schema_number
from bridge.journal.postgresql.sql import SLOTS
from bridge.model import Attempt, Delivery, Outcome, Selection, Settlement, State

Make: TypeAlias = Callable[..., Delivery]
LEASE = 60_000

# All there is to a schema, but for its name.
CATALOGUE = """
    SELECT 'column', table_name, column_name, ordinal_position::text, data_type, is_nullable, column_default, collation_name
    FROM information_schema.columns WHERE table_schema = current_schema()
    UNION ALL
    SELECT 'index', tablename, indexname, '', replace(indexdef, current_schema() || '.', ''), '', '', ''
    FROM pg_indexes WHERE schemaname = current_schema()
    UNION ALL
    SELECT 'table', relname, relkind::text, '', coalesce(reloptions::text, ''), '', '', ''
    FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'S')
    ORDER BY 1, 2, 3, 4
"""
# What the next release may bring while this one still runs.
ADDS = Step(
    (
        "ALTER TABLE bridge_delivery ADD COLUMN region text",
        "ALTER TABLE bridge_pending ADD COLUMN priority integer NOT NULL DEFAULT 0",
        "ALTER TABLE bridge_attempt ADD COLUMN worker text",
        "ALTER TABLE bridge_tally ADD COLUMN held bigint NOT NULL DEFAULT 0",
        "ALTER TABLE bridge_content ADD COLUMN encoding text NOT NULL DEFAULT ''",
        "CREATE INDEX bridge_pending_priority ON bridge_pending (priority, due)",
        "CREATE TABLE bridge_region (name text PRIMARY KEY)",
    )
)
BREAKS = Step(("ALTER TABLE bridge_pending RENAME COLUMN due TO due_at",), needs=2)


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.schema() as found:
        yield found


@pytest.fixture
async def connection(url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as opened:
        yield opened


async def catalogue(url: str) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        return await (await connection.execute(CATALOGUE)).fetchall()


async def through_all_it_does(journal: Journal, make_delivery: Make, prefix: str) -> None:
    """Every statement once."""
    names = [f"{prefix}{n}" for n in range(4)]
    assert await asyncio.gather(*(journal.append(make_delivery(name)) for name in names)) == [True] * 4
    assert not await journal.append(make_delivery(names[0]))
    assert await journal.append(make_delivery(f"{prefix}faulty", fault="no JSON"))
    entries = await journal.claim(3, lease=LEASE)
    attempt = Attempt(at=1, outcome=Outcome.FORWARDED)
    done = [Settlement(seq=e.seq, token=e.token, state=State.FORWARDED, attempt=attempt) for e in entries[:2]]
    assert await journal.settle(done) == 2
    assert await journal.recover() == 1
    assert await journal.replay([entries[0].seq]) == 1
    loaded = await journal.load(entries[1].seq)
    assert loaded is not None and loaded.body is not None
    assert len(await journal.attempts(entries[1].seq)) == 1
    assert len(await journal.find(Selection(state=State.PENDING), limit=9)) == 3
    await journal.check()
    assert await journal.prune(bodies=0, ids=0, now=2**60, limit=100) == 4
    assert [entry.id for entry in await journal.claim(9, lease=LEASE)]
    left = await journal.find(Selection(), limit=9)
    assert (await journal.census()).counts[State.PENDING] == len(left) == 3
    for entry in await asyncio.gather(*(journal.load(each.seq) for each in left)):
        assert entry is not None
        settled = Settlement(seq=entry.seq, token=entry.token, state=State.SKIPPED, attempt=attempt)
        assert await journal.settle([settled]) == 1
    await journal.prune(bodies=0, ids=0, now=2**60, limit=100)


@pytest.mark.parametrize("had", range(len(MIGRATIONS)))
async def test_every_earlier_schema_becomes_the_one_of_a_new_database(url: str, had: int) -> None:
    with postgres.schema() as new:
        for each, steps in ((url, MIGRATIONS[: had + 1]), (url, MIGRATIONS), (new, MIGRATIONS)):
            async with await psycopg.AsyncConnection.connect(each, autocommit=True) as connection:
                await migrate(connection, steps)
        assert await catalogue(url) == await catalogue(new)
        assert len(await catalogue(url)) > 40


async def test_steps_that_are_taken_one_by_one_lead_where_all_at_once_do(url: str) -> None:
    steps = (*MIGRATIONS, ADDS, BREAKS)
    with postgres.schema() as at_once:
        async with await psycopg.AsyncConnection.connect(at_once, autocommit=True) as connection:
            assert await migrate(connection, steps)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            made = [await migrate(connection, steps[: n + 1]) for n in range(len(steps))]
            assert made == [True, *[False] * (len(steps) - 1)]
            assert await schema_number(connection) == len(steps)
        assert await catalogue(url) == await catalogue(at_once)


async def test_ten_that_start_at_once_make_it_once(url: str, make_delivery: Make) -> None:
    found = [journals.at(url) for _ in range(10)]
    new = await asyncio.gather(*(each.append(make_delivery(f"{n}")) for n, each in enumerate(found)))
    assert new == [True] * 10
    async with await psycopg.AsyncConnection.connect(url) as connection:
        assert await schema_number(connection) == len(MIGRATIONS)
        rows = await (await connection.execute("SELECT count(*) FROM bridge_tally")).fetchone()
        assert rows == (SLOTS,)
    await asyncio.gather(*(each.close() for each in found))


async def test_a_step_that_fails_leaves_all_as_it_was(connection: psycopg.AsyncConnection, url: str) -> None:
    await migrate(connection)
    before = await catalogue(url)
    with pytest.raises(psycopg.Error):
        await migrate(connection, (*MIGRATIONS, ADDS, Step(("CREATE TABLE nonsense",))))
    assert await catalogue(url) == before
    assert await schema_number(connection) == len(MIGRATIONS)


async def test_this_release_works_on_with_what_the_next_one_adds(
    connection: psycopg.AsyncConnection, url: str, make_delivery: Make
) -> None:
    """It was running when the new one came; and one of it is started again afterwards."""
    running = await journals.open(url)
    await through_all_it_does(running, make_delivery, "before")
    await migrate(connection, (*MIGRATIONS, ADDS))
    await through_all_it_does(running, make_delivery, "after")
    await running.close()
    restarted = await journals.open(url)
    await through_all_it_does(restarted, make_delivery, "again")
    await restarted.close()


async def test_a_release_too_old_for_the_schema_says_so(connection: psycopg.AsyncConnection, url: str) -> None:
    await migrate(connection, (*MIGRATIONS, BREAKS))
    with pytest.raises(JournalUnavailable) as refused:
        await journals.open(url)
    assert "of a newer release" in str(refused.value)
    assert str(refused.value).endswith(f"this one knows {len(MIGRATIONS)}: run the newer release")


async def test_what_needs_most_counts_also_when_a_later_step_needs_less(
    connection: psycopg.AsyncConnection, url: str
) -> None:
    await migrate(connection, (*MIGRATIONS, BREAKS, Step(("CREATE TABLE bridge_more (n integer)",))))
    with pytest.raises(JournalUnavailable, match="newer release"):
        await journals.open(url)


async def test_two_journals_in_schemas_of_one_database_know_nothing_of_each_other(
    url: str, make_delivery: Make
) -> None:
    with postgres.schema() as another:
        ours, theirs = await journals.open(url), await journals.open(another)
        assert await ours.append(make_delivery())
        assert await theirs.append(make_delivery())
        assert len(await ours.claim(9, lease=LEASE)) == 1
        assert await theirs.recover() == 0
        await ours.close()
        await theirs.close()


def test_every_step_knows_what_it_needs() -> None:
    steps: Sequence[Step] = schema.MIGRATIONS
    assert all(1 <= step.needs <= number for number, step in enumerate(steps, 1))
