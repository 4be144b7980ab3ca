"""PostgreSQL databases as others set them up: encodings, defaults and rights that a journal has to live with, or refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias
from urllib.parse import quote

import psycopg
import pytest
from postgres import Cluster, ids, opened, until_appended, why_not
from psycopg import errors
from service import elapsed

from bridge import journal as journals
from bridge.journal import Journal
from bridge.journal.postgresql.journal import PostgresqlJournal
from bridge.journal.postgresql.sql import SLOTS
from bridge.model import Attempt, Delivery, Outcome, Selection, Settlement, State

Make: TypeAlias = Callable[..., Delivery]

LEASE = 60_000
SOON = 10.0  # seconds
FUTURE = 1 << 60
DONE = Attempt(at=0, outcome=Outcome.FORWARDED)
# What no eight bits hold.
ODD = "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{GRINNING FACE} \N{LEFT DOUBLE QUOTATION MARK}"


def database(cluster: Cluster, name: str, encoding: str) -> str:
    cluster.run(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    return cluster.url().replace("/postgres?", f"/{name}?")


async def forwarded(journal: Journal) -> None:
    """All that is due."""
    while entries := await journal.claim(100, lease=LEASE):
        done = [Settlement(seq=e.seq, token=e.token, state=State.FORWARDED, attempt=DONE) for e in entries]
        assert await journal.settle(done) == len(entries)


@pytest.mark.parametrize("asked", ["", "client_encoding=LATIN1", f"options={quote('-c client_encoding=LATIN1')}"])
@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII"])
async def test_every_text_comes_back_as_it_was(
    cluster: Cluster, make_delivery: Make, encoding: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    name = f"of_{encoding.lower()}_{len(asked)}"
    async with opened(database(cluster, name, encoding) + asked) as journal:
        assert await journal.append(make_delivery(ODD, headers={"x": ODD}))
        [entry] = await journal.claim(1, lease=LEASE)
        assert (entry.id, entry.headers, entry.state) == (ODD, {"x": ODD}, State.PENDING)
        failed = Attempt(at=0, outcome=Outcome.RAISED, error=ODD)
        assert await journal.settle([Settlement(seq=entry.seq, token=entry.token, state=State.DEAD, attempt=failed)])
        assert [each.error for each in await journal.attempts(entry.seq)] == [ODD]
        assert len(await journal.find(Selection(id=ODD, state=State.DEAD), limit=9)) == 1


async def test_an_encoding_that_can_not_hold_every_text_is_refused(cluster: Cluster) -> None:
    url = database(cluster, "of_latin1", "LATIN1")
    line = "its encoding is LATIN1, which can't hold every text: create it with UTF8"
    async with opened(url) as journal:
        assert (await why_not(journal.census())).endswith(f"/of_latin1: {line}")
    assert (await why_not(journals.rehearse(url))).endswith(f"/of_latin1: {line}")


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_what_the_user_has_for_isolation_changes_nothing(
    cluster: Cluster, make_delivery: Make, isolation: str
) -> None:
    role = isolation.replace(" ", "_")
    cluster.run(f"CREATE ROLE {role} LOGIN")
    cluster.run(f"ALTER ROLE {role} SET default_transaction_isolation = '{isolation}'")
    url = cluster.place(user=role)
    made = [journals.at(url) for _ in range(10)]
    assert [await asyncio.gather(*(why_not(each.census()) for each in made))] == [[""] * 10]  # all make the tables
    await asyncio.gather(*(each.append(make_delivery(f"{n}")) for n, each in enumerate(made * 10)))
    await asyncio.gather(*(forwarded(each) for each in made[:4]))
    assert (await made[0].census()).counts[State.FORWARDED] == 100
    await asyncio.gather(*(each.close() for each in made))


@pytest.mark.parametrize(("theirs", "ours"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
async def test_what_is_acknowledged_is_on_a_disk_also_where_others_do_without(
    cluster: Cluster, make_delivery: Make, theirs: str, ours: str
) -> None:
    cluster.run(f"CREATE ROLE hasty_{theirs} LOGIN")
    cluster.run(f"ALTER ROLE hasty_{theirs} SET synchronous_commit = '{theirs}'")
    async with opened(cluster.place(user=f"hasty_{theirs}"), connections=1) as journal:
        assert isinstance(journal, PostgresqlJournal)
        await journal.append(make_delivery())
        await forwarded(journal)  # which waits for no disk, and leaves nothing behind in that mode

        async def mode(connection: psycopg.AsyncConnection) -> object:
            return await (await connection.execute("SHOW synchronous_commit")).fetchone()

        assert await journal._server.run(mode) == (ours,)


def guests_place(cluster: Cluster, role: str) -> str:
    """A journal whose tables are somebody else's, with rights to all of them: but not to its sequence, as it happens."""
    owner = cluster.place()
    schema = owner.partition("search_path%3D")[2].partition("%20")[0]
    asyncio.run(made(owner))
    cluster.run(f"CREATE ROLE {role} LOGIN")
    cluster.run(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    cluster.run(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}")
    return owner.replace("//postgres@", f"//{role}@")


async def made(url: str) -> None:
    await (await journals.open(url)).close()


def test_a_right_that_only_an_append_needs_is_seen_by_every_check(cluster: Cluster, make_delivery: Make) -> None:
    url = guests_place(cluster, "clerk")

    async def told() -> list[str]:
        async with opened(url) as journal:
            return [
                await why_not(journal.append(make_delivery())),
                await why_not(journal.check()),
                await why_not(journals.rehearse(url)),
            ]

    said = asyncio.run(told())
    assert all(each.endswith("permission denied for sequence bridge_seq") for each in said), said


async def test_a_check_leaves_nothing_behind(cluster: Cluster) -> None:
    url = cluster.place()
    async with opened(url) as journal:
        for _ in range(3):
            await journal.check()
            await journals.rehearse(url)
        assert await ids(journal) == []
        assert sum((await journal.census()).counts.values()) == 0


async def test_a_rehearsal_refuses_what_a_start_would_refuse(cluster: Cluster) -> None:
    url = cluster.place()
    await made(url)
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO bridge_schema (number, needs) VALUES (99, 99)")
    said = [await why_not(journals.rehearse(url)), await why_not(made(url))]
    assert all("newer release and needs one that knows number 99" in each for each in said), said


async def test_who_stands_still_within_a_transaction_keeps_nobody_waiting_for_long(
    cluster: Cluster, make_delivery: Make
) -> None:
    url = cluster.place()
    async with opened(url, connections=1) as one, opened(url) as other:
        assert isinstance(one, PostgresqlJournal)
        await other.census()

        async def stand_still(connection: psycopg.AsyncConnection) -> None:
            await connection.execute("BEGIN")
            await connection.execute("UPDATE bridge_tally SET pending = pending")
            standing.set()
            await asyncio.sleep(20)

        standing = asyncio.Event()
        task = asyncio.create_task(why_not(one._server.run(stand_still)))
        await standing.wait()
        took = elapsed()
        assert "does not answer within 2 s" in await why_not(other.append(make_delivery()))
        await until_appended(other, make_delivery(), patience=SOON)
        assert took() < 15
        task.cancel()
        await asyncio.wait({task})


async def test_what_took_too_long_is_not_tried_again_where_the_same_is_in_the_way(
    cluster: Cluster, make_delivery: Make
) -> None:
    """A session counts in a row of its own; the next one counts in another."""
    url = cluster.place(application_name="slotted")
    async with opened(url, connections=1) as journal:
        await journal.census()
        pid = cluster.ask("SELECT pid FROM pg_stat_activity WHERE application_name = 'slotted'")
        with psycopg.connect(url) as other:
            other.execute("UPDATE bridge_tally SET pending = pending WHERE slot = %s", [pid % SLOTS])
            assert "does not answer within 2 s" in await why_not(journal.append(make_delivery()))
            await until_appended(journal, make_delivery())


async def test_a_full_disk_is_called_so_and_what_comes_after_it_is_stored(
    cluster: Cluster, make_delivery: Make
) -> None:
    """Where no disk can be filled, because only root can mount one, the server says so all the same."""
    url = cluster.place()
    async with opened(url) as journal:
        await journal.census()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
            )
            connection.execute(
                "CREATE TRIGGER full_disk BEFORE INSERT ON bridge_content FOR EACH ROW EXECUTE FUNCTION full_disk()"
            )
            assert (await why_not(journal.append(make_delivery()))).endswith(": the disk is full")
            assert (await why_not(journal.check())).endswith(": the disk is full")
            connection.execute("DROP TRIGGER full_disk ON bridge_content")
        assert await journal.append(make_delivery())


async def test_what_is_wrong_after_a_clash_is_told_as_before_one(cluster: Cluster) -> None:
    async with opened(cluster.place()) as journal:
        assert isinstance(journal, PostgresqlJournal)
        raised = iter([errors.DeadlockDetected(), errors.SerializationFailure(), errors.DiskFull()])

        async def fails(connection: psycopg.AsyncConnection) -> None:
            del connection
            raise next(raised)

        assert (await why_not(journal._server.run(fails))).endswith(": the disk is full")


async def test_what_another_purges_just_now_is_left_to_it(cluster: Cluster, make_delivery: Make) -> None:
    url = cluster.place()
    async with opened(url) as one, opened(url) as other:
        await asyncio.gather(*(one.append(make_delivery(f"{n}")) for n in range(600)))
        await forwarded(one)
        purged = [await asyncio.gather(*(purge(each) for each in (one, other) * 2)) for _ in range(20)]
        assert sum(map(sum, purged)) == 600


async def purge(journal: Journal) -> int:
    return await journal.prune(bodies=0, ids=FUTURE, now=FUTURE, limit=20)


async def test_a_scrape_of_a_server_that_hangs_ends(cluster: Cluster) -> None:
    async with opened(cluster.place()) as journal:
        await journal.census()
        with cluster.frozen():
            took = elapsed()
            assert "does not answer within 2 s" in await why_not(journal.census())
            assert took() < 5


async def test_forgetting_goes_on_where_it_was_and_comes_back_for_what_was_pending(
    cluster: Cluster, make_delivery: Make
) -> None:
    async with opened(cluster.place()) as journal:
        for n in range(7):
            await journal.append(make_delivery(f"{n}", received_at=n))
        entries = await journal.claim(7, lease=LEASE)
        done = [Settlement(seq=e.seq, token=e.token, state=State.FORWARDED, attempt=DONE) for e in entries]
        assert await journal.settle(done[1:]) == 6
        prune = [await journal.prune(bodies=0, ids=FUTURE, now=FUTURE, limit=2) for _ in range(2)]
        assert prune == [2, 2]
        assert await journal.settle(done[:1]) == 1  # the oldest, behind which it went on
        assert [await journal.prune(bodies=0, ids=FUTURE, now=FUTURE, limit=2) for _ in range(3)] == [2, 1, 0]


def test_a_journal_that_a_bridge_works_on_is_not_copied_from(cluster: Cluster) -> None:
    url = cluster.place()

    async def refused() -> list[str]:
        async with opened(url) as working, opened(url) as copying:
            said = [await why_not(copying.reserve(alone=True))]
            await working.claim(1, lease=LEASE)
            said += [await why_not(copying.reserve(alone=True)), await why_not(copying.reserve())]
            await working.close()
            return [*said, await why_not(copying.reserve(alone=True))]

    before, during, serving, after = asyncio.run(refused())
    assert during.endswith("a bridge is running on it: stop it first")
    assert (before, serving, after) == ("", "", "")


async def test_a_host_that_is_not_there_is_told_in_words() -> None:
    said = await why_not(journals.rehearse("postgresql://u:sesame@nowhere.invalid/d"))
    assert said.startswith("postgresql://u@nowhere.invalid/d: ")
    assert "[" not in said and len(said) < 100
