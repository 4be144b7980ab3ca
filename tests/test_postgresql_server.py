"""The connections of a PostgreSQL journal: how many there are, when another is tried, and what who shares them does to whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

import psycopg
import pytest
from postgres import Cluster, ids, opened, why_not
from psycopg import AsyncConnection
from service import elapsed, until
from tls_proxy import Proxy

from bridge import journal as journals
from bridge.journal import Journal
from bridge.journal.postgresql.journal import PostgresqlJournal
from bridge.journal.postgresql.schema import _LOCK
from bridge.journal.postgresql.server import Server
from bridge.model import Attempt, Delivery, Outcome, Selection, Settlement, State

pytestmark = pytest.mark.usefixtures("no_complaint")

Make: TypeAlias = Callable[..., Delivery]

LEASE = 60_000
DONE = Attempt(at=0, outcome=Outcome.FORWARDED)
# libpq connects once more where it may do without TLS.
ONCE = {"sslmode": "disable", "gssencmode": "disable"}
FUTURE = 1 << 50
BLOCKED = "SELECT count(*) FROM pg_locks WHERE NOT granted"
SOON = 10.0  # seconds


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    started = Cluster(max_connections="200", deadlock_timeout="20ms")
    started.start()
    yield started
    started.stop()


async def nothing(connection: AsyncConnection) -> None:
    await connection.execute("SELECT 1")


async def refusal(server: Server) -> str:
    """Empty: it answers."""
    return await why_not(server.run(nothing))


def left(server: Server) -> float:
    """Seconds until the next try to connect."""
    return server._not_before - asyncio.get_running_loop().time()


@pytest.mark.parametrize(("dice", "pauses"), [(0.0, (0.05, 0.1, 0.2, 0.4, 0.8, 1, 1)), (1.0, (0.15, 0.3, 0.6, 1.2))])
async def test_between_two_tries_to_connect_lies_a_pause_that_grows_and_is_diced(
    cluster: Cluster, dice: float, pauses: Sequence[float]
) -> None:
    known: list[float] = []
    async with Proxy(to=cluster.port) as proxy:
        proxy.refusing = True
        server = Server(proxy.through(cluster.url(**ONCE)), most=1, migrated=True, dice=lambda: dice)
        while len(proxy.arrivals) <= len(pauses):
            assert "closed the connection" in await refusal(server)
            if len(proxy.arrivals) > len(known):
                known.append(left(server))
            await asyncio.sleep(0.005)
        await server.close()
    lay = [after - before for before, after in zip(proxy.arrivals, proxy.arrivals[1:], strict=False)]
    for longest, gap, pause in zip(known, lay, pauses, strict=False):
        assert longest <= pause <= gap


async def test_who_calls_within_the_pause_is_told_without_a_try(cluster: Cluster) -> None:
    async with Proxy(to=cluster.port) as proxy:
        proxy.refusing = True
        server = Server(proxy.through(cluster.url(**ONCE)), most=4, migrated=True, dice=lambda: 99)
        told = await refusal(server)
        took, tried = elapsed(), len(proxy.arrivals)
        assert {await refusal(server) for _ in range(100)} == {told}
        assert {*await asyncio.gather(*(refusal(server) for _ in range(100)))} == {told}
        assert took() < 1 and len(proxy.arrivals) == tried == 1
        await server.close()


async def test_many_who_find_the_server_away_at_the_same_time_count_as_one_try(cluster: Cluster) -> None:
    async with Proxy(to=cluster.port) as proxy:
        proxy.refusing = True
        server = Server(proxy.through(cluster.url(**ONCE)), most=8, migrated=True, dice=lambda: 0.0)
        assert all(await asyncio.gather(*(refusal(server) for _ in range(100))))
        assert len(proxy.arrivals) <= 8
        assert left(server) <= 0.05
        await server.close()


async def test_a_server_that_was_back_is_tried_again_soon(cluster: Cluster) -> None:
    async with Proxy(to=cluster.port) as proxy:
        server = Server(
            proxy.through(cluster.url(application_name="back", **ONCE)), most=1, migrated=True, dice=lambda: 0.0
        )

        async def is_back() -> bool:
            return not await refusal(server)

        proxy.refusing = True
        while len(proxy.arrivals) < 4:
            assert not await is_back()
            await asyncio.sleep(0.005)
        assert left(server) > 0.05
        proxy.refusing = False
        await until(is_back)
        proxy.refusing = True
        end_sessions(cluster, "back")
        assert await refusal(server) and left(server) <= 0.05
        await server.close()


def end_sessions(cluster: Cluster, name: str) -> None:
    """Return when they are gone."""
    cluster.ask(
        "SELECT sum(pg_terminate_backend(pid, 5000)::int) FROM pg_stat_activity WHERE application_name = %s", name
    )


def sessions(cluster: Cluster, name: str) -> int:
    return cluster.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", name)


async def test_openings_that_nobody_waits_for_are_not_added_to(cluster: Cluster) -> None:
    async with Proxy(to=cluster.port) as proxy:
        url = proxy.through(cluster.url(application_name="late", connect_timeout="60", **ONCE))
        server = Server(url, most=1, migrated=True, dice=lambda: -0.5)  # no pause at all
        proxy.passing.clear()
        assert all(each.endswith(": does not answer") for each in [await refusal(server), await refusal(server)])
        assert len(proxy.arrivals) == 1
        proxy.passing.set()
        assert not any(await asyncio.gather(*(refusal(server) for _ in range(4))))
        assert sessions(cluster, "late") == 1
        await server.close()


async def test_what_was_in_the_way_of_those_before_is_not_told_to_those_who_come_later(cluster: Cluster) -> None:
    async with Proxy(to=cluster.port) as proxy:
        url = proxy.through(cluster.url(connect_timeout="2", **ONCE))
        server = Server(url, most=1, migrated=True, dice=lambda: -0.5)
        proxy.passing.clear()
        assert (await refusal(server)).endswith(": does not answer")
        await asyncio.sleep(1)  # the try that nobody waits for any more has failed
        proxy.passing.set()
        assert await refusal(server) == ""
        await server.close()


async def test_who_is_cancelled_while_a_connection_is_opened_leaves_it_to_the_next(
    cluster: Cluster, make_delivery: Make
) -> None:
    url = cluster.place(application_name="left", **ONCE)
    async with Proxy(to=cluster.port) as proxy, opened(proxy.through(url), connections=2) as journal:
        proxy.passing.clear()
        for _ in range(5):
            calls = [asyncio.ensure_future(call) for call in (journal.claim(1, lease=LEASE), journal.census())]
            await until(lambda: proxy.arrivals)
            await asyncio.gather(*map(cancelled, calls))
        proxy.passing.set()
        assert await journal.append(make_delivery())
        assert len(await journal.claim(1, lease=LEASE)) == 1
        assert sessions(cluster, "left") <= len(proxy.arrivals) <= 3


async def cancelled(call: asyncio.Future[object]) -> None:
    call.cancel()
    await asyncio.wait({call})


@pytest.mark.parametrize("connections", [1, 4])
async def test_who_is_cancelled_at_any_moment_harms_nobody(
    cluster: Cluster, make_delivery: Make, connections: int
) -> None:
    name = f"cancelled_{connections}"
    url = cluster.place(application_name=name)
    await (await journals.open(url)).close()
    for turn in range(60):
        async with opened(url, connections=connections) as journal:
            calls: list[asyncio.Future[object]] = [
                asyncio.ensure_future(call)
                for call in (
                    journal.claim(1, lease=LEASE),
                    journal.append(make_delivery(f"{turn}")),
                    journal.wait(0.01),
                    journal.settle([Settlement(seq=turn, token="1", state=State.FORWARDED, attempt=DONE)]),
                    journal.census(),
                )
            ]
            for _ in range(turn % 20):
                await asyncio.sleep(0.001 * (turn // 20))
            await asyncio.gather(*map(cancelled, calls))
            async with asyncio.timeout(SOON):
                await asyncio.gather(journal.claim(1, lease=1), journal.check(), journal.append(make_delivery("again")))
            await until(lambda: sessions(cluster, name) <= connections + 1)  # a server lets go of one in its own time
        await until(lambda: not sessions(cluster, name))


async def everything(journal: Journal, delivery: Delivery) -> int:
    """All that is ever asked of a journal. How many it settled."""
    assert await journal.append(delivery)
    entries = await journal.claim(2, lease=LEASE)
    settlements = [Settlement(seq=each.seq, token=each.token, state=State.FORWARDED, attempt=DONE) for each in entries]
    assert await journal.settle(settlements) == len(entries)
    await journal.wait(0.001)
    await journal.prune(bodies=0, ids=0, now=0, limit=10)
    for each in await journal.find(Selection(id=delivery.id), limit=1):
        await journal.replay([each.seq], now=FUTURE)
        assert await journal.load(each.seq)
        await journal.attempts(each.seq)
    await journal.check()
    return len(entries)


@pytest.mark.parametrize("connections", [1, 4])
async def test_there_are_never_more_connections_than_asked_for_and_one_for_who_claims(
    cluster: Cluster, make_delivery: Make, connections: int
) -> None:
    async def watch() -> None:
        async with await AsyncConnection.connect(cluster.url(), autocommit=True) as connection:
            while True:
                cursor = await connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [name]
                )
                [(count,)] = await cursor.fetchall()
                seen.append(count)

    name, seen = f"many_{connections}", list[int]()
    async with opened(cluster.place(application_name=name), connections=connections) as journal:
        watching = asyncio.create_task(watch())
        settled = await asyncio.gather(*(everything(journal, make_delivery(f"{n}")) for n in range(50)))
        watching.cancel()
        assert sum(settled) == 50 == len(await ids(journal))
    assert max(seen) == connections + 1


async def test_batches_that_overlap_in_any_order_never_block_each_other(cluster: Cluster, make_delivery: Make) -> None:
    url, blocked = cluster.place(), cluster.log.count("deadlock detected")
    async with opened(url) as one, opened(url) as other:
        for turn in range(20):
            names = [f"{turn}-{n}" for n in range(100)]
            appends = (each.append(make_delivery(n)) for n in names for each in (one,))
            again = (other.append(make_delivery(n)) for n in reversed(names))
            new = await asyncio.gather(*appends, *again)
            assert [a + b for a, b in zip(new[:100], reversed(new[100:]), strict=True)] == [1] * 100
        assert len(await ids(one)) == 2000
        while entries := await one.claim(100, lease=LEASE):
            done = [Settlement(seq=e.seq, token=e.token, state=State.FORWARDED, attempt=DONE) for e in entries]
            assert sum(await asyncio.gather(one.settle(done), other.settle(done[::-1]))) == len(entries)
    assert cluster.log.count("deadlock detected") == blocked


async def test_who_loses_a_deadlock_tries_again(cluster: Cluster) -> None:
    async def add(first: int, second: int, connection: AsyncConnection) -> None:
        runs.append(first)
        meets = len(runs) <= 2
        async with connection.transaction():
            await connection.execute("UPDATE pair SET n = n + 1 WHERE id = %s", [first])
            if meets:
                await both.wait()
            await connection.execute("UPDATE pair SET n = n + 1 WHERE id = %s", [second])

    runs, both = list[int](), asyncio.Barrier(2)
    cluster.run("CREATE TABLE pair AS SELECT id, 0 AS n FROM generate_series(1, 2) AS id")
    server = Server(cluster.url(), most=2, migrated=True)
    await asyncio.gather(server.run(partial(add, 1, 2)), server.run(partial(add, 2, 1)))
    await server.close()
    assert cluster.ask("SELECT sum(n) FROM pair") == 4
    assert len(runs) >= 3  # more where who lost is back before the winner has taken what was freed


async def test_a_journal_is_closed_while_it_is_being_opened_on_a_server_that_hangs(cluster: Cluster) -> None:
    journal = journals.at(cluster.place())
    with psycopg.connect(cluster.url()) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        opening = asyncio.create_task(why_not(journal.census()))
        await until(lambda: cluster.ask(BLOCKED))
        with cluster.frozen():
            await asyncio.wait_for(journal.close(), SOON)
    assert await opening


async def test_a_journal_is_closed_while_the_server_keeps_waiting_who_claims(cluster: Cluster) -> None:
    async with opened(cluster.place()) as journal:
        assert isinstance(journal, PostgresqlJournal)
        await journal.census()
        with psycopg.connect(cluster.url()) as other:
            other.execute("SELECT pg_advisory_xact_lock(%s)", [journal._presence.holder])
            claiming = asyncio.create_task(why_not(journal.claim(1, lease=LEASE)))
            await until(lambda: cluster.ask(BLOCKED))
            await asyncio.wait_for(journal.close(), SOON)
            assert await asyncio.wait_for(claiming, SOON)
