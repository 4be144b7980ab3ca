"""A PostgreSQL that fails: nothing acknowledged is lost, the reason is one clear line, and the journal goes on by itself."""

from __future__ import annotations

import asyncio
import itertools
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pytest
from disk import fill, make_room, small_disk
from postgres import Cluster, every_connection, ids, locked, opened, until_appended, why_not
from service import elapsed, until

from bridge import journal as journals
from bridge.journal import Journal
from bridge.model import Delivery, Selection

pytestmark = pytest.mark.usefixtures("no_complaint")

Make: TypeAlias = Callable[..., Delivery]

LEASE = 60_000
SOON = 5.0  # seconds


RESTARTS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["in order", "without any care"])


@RESTARTS
async def test_who_calls_after_a_restart_does_not_notice_it(
    cluster: Cluster, make_delivery: Make, number: signal.Signals
) -> None:
    async with opened(cluster.place()) as journal:

        async def append() -> bool:
            return await journal.append(make_delivery(f"{next(numbers)}"))

        async def claim() -> bool:
            return len(await journal.claim(100, lease=1)) > 0

        async def all_at_once() -> bool:
            return all(await asyncio.gather(append(), claim(), append(), journal.census(), ids(journal)))

        numbers = itertools.count()
        for call in (append, claim, journal.census, all_at_once):
            assert await append()
            await every_connection(journal)
            cluster.stop(number)
            cluster.start()
            assert await call()
        assert sorted(map(int, await ids(journal))) == list(range(7))


async def test_who_claims_after_a_restart_is_alive_and_hears_again(cluster: Cluster, make_delivery: Make) -> None:
    async with opened(url := cluster.place()) as journal, opened(url) as other:
        await every_connection(journal)
        cluster.restart()
        assert await journal.append(make_delivery("before"))
        await journal.wait(0)
        assert await journal.claim(1, lease=LEASE)
        assert await other.recover() == 0
        await journal.wait(0)
        waiting = asyncio.create_task(journal.wait(3600))
        assert await other.append(make_delivery("after"))
        await asyncio.wait_for(waiting, 2 * SOON)


@RESTARTS
async def test_what_is_acknowledged_while_a_server_is_restarted_is_there_once(
    cluster: Cluster, make_delivery: Make, number: signal.Signals
) -> None:
    acknowledged: list[str] = []
    is_over = asyncio.Event()

    async def send(sender: int) -> None:
        for n in itertools.count():
            while await why_not(journal.append(make_delivery(f"{sender}-{n}"))):
                await asyncio.sleep(0.01)
            acknowledged.append(f"{sender}-{n}")
            if is_over.is_set():
                return

    async def until_more() -> None:
        enough = len(acknowledged) + 50
        await until(lambda: len(acknowledged) >= enough, patience=2 * SOON)

    async with opened(cluster.place()) as journal:
        sending = [asyncio.create_task(send(sender)) for sender in range(8)]
        await until_more()
        await asyncio.to_thread(cluster.stop, number)
        cluster.start()
        await until_more()
        is_over.set()
        await asyncio.gather(*sending)
        assert sorted(await ids(journal)) == sorted(acknowledged)


async def test_while_the_server_is_away_every_call_is_told_at_once_and_goes_on_when_it_is_back(
    cluster: Cluster, make_delivery: Make
) -> None:
    where = f"postgresql://postgres@127.0.0.1:{cluster.port}/postgres"
    async with opened(cluster.place(user="postgres:sesame")) as journal:
        assert await journal.append(make_delivery("before"))
        await every_connection(journal)
        cluster.stop()
        for call in (
            lambda: journal.append(make_delivery("lost")),
            lambda: journal.claim(1, lease=LEASE),
            journal.recover,
            lambda: journal.replay([1]),
            lambda: journal.find(Selection(), limit=1),
            lambda: journal.load(1),
            lambda: journal.attempts(1),
            journal.census,
            lambda: journal.prune(bodies=0, ids=0, now=0, limit=1),
            journal.check,
        ):
            took = elapsed()
            assert await why_not(call()) == f"{where}: Connection refused"
            assert took() < 1
        await journal.wait(0.01)
        cluster.start()
        await until_appended(journal, make_delivery("after"))
        assert await ids(journal) == ["before", "after"]


@pytest.mark.parametrize("reason", ["Connection refused", "read-only"])
async def test_when_the_standby_takes_over_the_journal_goes_on_there(make_delivery: Make, reason: str) -> None:
    async def is_refused() -> bool:
        return reason in (told := await why_not(journal.check())) and "read-only" in told and "attempts" not in told

    primary = Cluster()
    primary.start()
    standby = Cluster(like=primary)
    standby.start()
    both = primary.url().replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{standby.port}/")
    async with opened(both) as journal, opened(standby.url()) as astray:
        assert await journal.append(make_delivery("before"))
        assert "read-only" in await why_not(astray.append(make_delivery("astray")))
        await until(lambda: primary.ask("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"))
        primary.set_read_only("on") if reason == "read-only" else primary.stop()
        await until(is_refused)
        await until(lambda: standby.ask("SELECT count(*) FROM bridge_delivery"))
        standby.promote()
        await until_appended(journal, make_delivery("after"))
        await until_appended(astray, make_delivery("not astray any more"))
        assert await ids(astray) == ["before", "after", "not astray any more"]
    standby.stop()
    primary.stop()


async def test_a_server_that_becomes_read_only_says_so_until_it_is_not_any_more(
    cluster: Cluster, make_delivery: Make
) -> None:
    async def is_refused() -> bool:
        told = await why_not(journal.append(make_delivery(f"{next(numbers)}")))
        assert "read-only" in told or not told
        return bool(told)

    numbers = itertools.count()
    async with opened(cluster.place()) as journal:
        await every_connection(journal)
        cluster.set_read_only("on")
        try:
            await until(is_refused)
            assert "read-only" in await why_not(journal.check())
            assert "read-only" in await why_not(journal.recover())
        finally:
            cluster.set_read_only("off")
        await until_appended(journal, make_delivery("after"))
        assert (await journal.claim(99, lease=LEASE))[-1].id == "after"


async def test_what_ran_over_the_servers_own_time_limit_is_told_so(cluster: Cluster, make_delivery: Make) -> None:
    async with opened(url := cluster.place(options="-cstatement_timeout=200")) as journal:
        assert await journal.append(make_delivery("before"))
        with locked(url):
            assert "statement_timeout" in await why_not(journal.append(make_delivery("late")))
            assert "statement_timeout" in await why_not(journal.find(Selection(), limit=1))
        assert await journal.append(make_delivery("late"))
        assert await ids(journal) == ["before", "late"]


async def are_consistent(journal: Journal, make_delivery: Make, names: Sequence[str]) -> None:
    """Those that were given up are in the journal, or get there even now, or are new: then each is there once."""
    before = await ids(journal)
    again = await asyncio.gather(*(journal.append(make_delivery(name)) for name in names))
    assert not {name for name, is_new in zip(names, again, strict=True) if is_new} & {*before}
    assert sorted(await ids(journal)) == sorted({*before, *names})
    assert not any(await asyncio.gather(*(journal.append(make_delivery(name)) for name in names)))


async def test_an_append_that_waits_for_a_lock_is_given_up_and_spoils_none_that_follows(
    cluster: Cluster, make_delivery: Make
) -> None:
    async with opened(url := cluster.place()) as journal:
        assert await journal.append(make_delivery("before"))
        took = elapsed()
        with locked(url):
            told = await asyncio.gather(*(why_not(journal.append(make_delivery(f"{n}"))) for n in range(5)))
        assert all("does not answer" in each for each in told)
        assert took() < 4
        await are_consistent(journal, make_delivery, ["before", *map(str, range(5))])


async def test_while_a_server_hangs_every_append_is_given_up_and_none_is_spoilt(
    cluster: Cluster, make_delivery: Make
) -> None:
    async with opened(cluster.place(application_name="hung"), connections=2) as journal:
        await every_connection(journal)
        took = elapsed()
        with cluster.frozen():
            told = await asyncio.gather(*(why_not(journal.append(make_delivery(f"{n}"))) for n in range(5)))
            assert took() < 4
            told.append(await why_not(journal.append(make_delivery("5"))))
            assert took() < 8
        assert all("does not answer" in each for each in told)
        await until_appended(journal, make_delivery("after"))
        await are_consistent(journal, make_delivery, [*map(str, range(6)), "after"])
        await until(lambda: cluster.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hung'") <= 3)


async def test_an_append_does_not_wait_for_others_whom_a_server_lets_hang(
    cluster: Cluster, make_delivery: Make
) -> None:
    async with opened(cluster.place(), connections=2) as journal:
        await every_connection(journal)
        with cluster.frozen():
            hanging = [asyncio.create_task(why_not(ids(journal))) for _ in range(2)]  # as many as there are connections
            await asyncio.sleep(0)
            took = elapsed()
            late = asyncio.create_task(
                why_not(journal.append(make_delivery("late")))
            )  # as it may be deaf to a cancellation
            await asyncio.wait({late}, timeout=SOON)
            assert took() < 4
        assert "does not answer" in await late
        await asyncio.gather(*hanging)
        await until_appended(journal, make_delivery("after"))


async def test_a_journal_is_closed_while_its_server_hangs(cluster: Cluster, make_delivery: Make) -> None:
    journal = journals.at(cluster.place())
    await every_connection(journal)
    assert await journal.append(make_delivery("before"))
    with cluster.frozen():
        closing = asyncio.create_task(journal.close())
        await asyncio.wait({closing}, timeout=2 * SOON)
        assert closing.done()
    await closing


async def test_a_full_disk_acknowledges_nothing_until_there_is_room(make_delivery: Make) -> None:
    async def until_full(prefix: str, body: bytes) -> str:
        for n in itertools.count():
            if told := await why_not(journal.append(make_delivery(f"{prefix}-{n}", body=body))):
                return told
            acknowledged.append(f"{prefix}-{n}")
        raise AssertionError

    acknowledged: list[str] = []
    with small_disk() as disk:
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)  # noqa: ASYNC221, S607 - quick, and where it is
        disk.chmod(0o777)  # the server runs as somebody else
        cluster = Cluster(at=disk, max_wal_size="4MB", min_wal_size="2MB")
        cluster.start()
        async with opened(cluster.url()) as journal:
            await journal.check()
            for prefix, body in (("large", bytes(100_000)), ("small", b"")):
                fill(disk)
                assert re.search("the disk is full|lost|recovery|refused", await until_full(prefix, body))
                make_room(disk)
                if not cluster.is_running:  # without room for its log it gives up itself
                    cluster.start()
                await until_appended(journal, make_delivery(f"after {prefix}"))
                acknowledged.append(f"after {prefix}")
            stored = await ids(journal)
        cluster.stop()
    assert set(acknowledged) <= set(stored) and len(stored) == len({*stored})
