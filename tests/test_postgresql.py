"""What the PostgreSQL journal promises beyond the contract: who holds a claim, which clock counts, what waits for what."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import postgres
import psycopg
import pytest
from processes import kill
from service import until

from bridge import journal as journals
from bridge.errors import JournalUnavailable
from bridge.journal import Journal
from bridge.journal.postgresql import writes
from bridge.journal.postgresql.journal import PostgresqlJournal
from bridge.model import Attempt, Delivery, Outcome, Selection, Settlement, State

Make: TypeAlias = Callable[..., Delivery]
Open: TypeAlias = Callable[[], Awaitable[Journal]]

LEASE = 60_000
FUTURE = 1 << 60
CLAIM = """
import asyncio, sys
from bridge import journal

async def main():
    opened = await journal.open(sys.argv[1])
    for entry in await opened.claim(2, lease=int(sys.argv[2])):
        print(entry.id, flush=True)
    print("all", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture
def journal_url() -> Iterator[str]:
    with postgres.schema() as url:
        yield url


async def filled(open_journal: Open, make_delivery: Make, count: int) -> list[Journal]:
    found = [await open_journal(), await open_journal()]
    await asyncio.gather(*(found[0].append(make_delivery(f"{n}")) for n in range(count)))
    return found


@asynccontextmanager
async def session(url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """Somebody else's connection, in a transaction."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield connection
        await connection.rollback()


@asynccontextmanager
async def claimed_by_another_process(url: str, *, lease: int = LEASE) -> AsyncIterator[int]:
    """Its pid, once it holds two entries."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLAIM, url, str(lease), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert [line async for line in until_all(process.stdout)] == [b"0\n", b"1\n"]
    try:
        yield process.pid
    finally:
        kill(process.pid)
        await process.wait()


async def until_all(output: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while (line := await output.readline()) not in {b"all\n", b""}:
        yield line


async def test_claims_of_one_who_lives_are_not_recovered(
    open_journal: Open, journal_url: str, make_delivery: Make
) -> None:
    journal, _ = await filled(open_journal, make_delivery, 3)
    async with claimed_by_another_process(journal_url):
        assert await journal.recover() == 0
        assert [entry.id for entry in await journal.claim(9, lease=LEASE)] == ["2"]


async def test_claims_of_one_who_was_killed_are_recovered(
    open_journal: Open, journal_url: str, make_delivery: Make
) -> None:
    journal, _ = await filled(open_journal, make_delivery, 2)
    async with claimed_by_another_process(journal_url) as pid:
        kill(pid)
        async with asyncio.timeout(20):
            while await journal.recover() == 0:
                await asyncio.sleep(0.01)
    assert [entry.id for entry in await journal.claim(9, lease=LEASE)] == ["0", "1"]


async def test_claims_of_one_who_was_killed_are_another_s_when_their_lease_ends(
    open_journal: Open, journal_url: str, make_delivery: Make
) -> None:
    """Also where nobody recovers them: the lease is the promise, recovering is faster."""
    journal, _ = await filled(open_journal, make_delivery, 2)
    async with claimed_by_another_process(journal_url, lease=1500) as pid:
        kill(pid)
        assert not await journal.claim(9, lease=LEASE)
        async with asyncio.timeout(20):
            while not (again := await journal.claim(9, lease=LEASE)):
                await asyncio.sleep(0.02)
    assert [(entry.id, entry.generation, entry.attempts) for entry in again] == [("0", 0, 0), ("1", 0, 0)]


async def test_who_stops_gives_back_what_he_holds_and_nothing_else(open_journal: Open, make_delivery: Make) -> None:
    stopping, going_on = await filled(open_journal, make_delivery, 4)
    await stopping.claim(2, lease=LEASE)
    held = await going_on.claim(2, lease=LEASE)
    assert await stopping.recover() == 2
    attempt = Attempt(at=0, outcome=Outcome.FORWARDED)
    done = [Settlement(seq=e.seq, token=e.token, state=State.FORWARDED, attempt=attempt) for e in held]
    assert await going_on.settle(done) == 2


async def test_who_lost_his_session_is_alive_again_before_he_claims(
    open_journal: Open, journal_url: str, make_delivery: Make
) -> None:
    journal, other = await filled(open_journal, make_delivery, 2)
    assert isinstance(journal, PostgresqlJournal)
    await journal.claim(1, lease=LEASE)
    async with session(journal_url) as connection:
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        await connection.commit()
    # Its lock is gone a moment before that can be heard.
    await until(lambda: journal._presence._connection is None)
    assert len(await journal.claim(1, lease=LEASE)) == 1
    assert await other.recover() == 0


async def test_time_is_the_database_s_and_nobody_s_clock_counts(
    journal_url: str, make_delivery: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bridge an hour ahead stores, claims and postpones as any other."""
    journal = await journals.open(journal_url)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    async with session(journal_url) as connection:
        [(now,)] = await (await connection.execute("SELECT extract(epoch FROM clock_timestamp()) * 1000")).fetchall()
        await journal.append(make_delivery(received_at=int(now) + 3_600_000))
        [entry] = await journal.claim(1, lease=LEASE)
        assert entry.due is not None and 0 <= entry.due - LEASE - now < 20_000
        await journal.settle([Settlement(seq=entry.seq, token=entry.token, state=State.PENDING, wait=5000)])
        later = await journal.load(entry.seq)
        assert later is not None and later.due is not None and 5000 <= later.due - now < 25_000
    await journal.close()


async def test_a_claim_waits_for_nobody(open_journal: Open, journal_url: str, make_delivery: Make) -> None:
    """What another is just taking is passed over."""
    journal, _ = await filled(open_journal, make_delivery, 4)
    async with session(journal_url) as connection, asyncio.timeout(20):
        await connection.execute("SELECT FROM bridge_pending ORDER BY seq LIMIT 2 FOR UPDATE")
        assert [entry.id for entry in await journal.claim(2, lease=LEASE)] == ["2", "3"]


async def test_a_claim_that_does_not_skip_waits_and_the_test_above_finds_it(
    open_journal: Open, journal_url: str, make_delivery: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "LOCKED", "FOR UPDATE")
    journal, _ = await filled(open_journal, make_delivery, 4)
    async with session(journal_url) as connection:
        await connection.execute("SELECT FROM bridge_pending ORDER BY seq LIMIT 2 FOR UPDATE")
        claiming = asyncio.create_task(journal.claim(2, lease=LEASE))
        async with session(journal_url) as watching, asyncio.timeout(20):
            while (await (await watching.execute(WAITING)).fetchone()) != (1,):
                await watching.rollback()
        assert not claiming.done()
    await claiming


WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%SELECT seq, due, size%'"
)


async def race(open_journal: Open, make_delivery: Make) -> Counter[str]:
    """Many connections, all beginning at once: how many workers each entry was given to."""
    workers = [await open_journal() for _ in range(8)]
    await asyncio.gather(*(workers[0].append(make_delivery(f"{n}")) for n in range(400)))

    async def work(journal: Journal) -> list[str]:
        mine: list[str] = []
        while entries := await journal.claim(5, lease=LEASE):
            mine += [entry.id for entry in entries]
        return mine

    # Two of each: so that a journal's own connections race as well.
    worked = await asyncio.gather(*map(work, workers * 2))
    assert sum(1 for mine in worked if mine) > 4, "too few took part: that was no race"
    return Counter(name for mine in worked for name in mine)


async def test_many_connections_that_race_never_share_an_entry(open_journal: Open, make_delivery: Make) -> None:
    assert await race(open_journal, make_delivery) == {f"{n}": 1 for n in range(400)}


async def test_without_its_locks_the_race_gives_entries_to_several(
    open_journal: Open, make_delivery: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above can fail."""
    monkeypatch.setattr(writes, "LOCKED", "")
    assert max((await race(open_journal, make_delivery)).values()) > 1


async def test_a_replay_never_revives_what_is_just_being_purged(
    open_journal: Open, journal_url: str, make_delivery: Make
) -> None:
    journal, other = await filled(open_journal, make_delivery, 1)
    [entry] = await journal.claim(1, lease=LEASE)
    attempt = Attempt(at=0, outcome=Outcome.FORWARDED)
    await journal.settle([Settlement(seq=entry.seq, token=entry.token, state=State.FORWARDED, attempt=attempt)])
    async with session(journal_url) as connection:
        assert await writes.Pruning().step(connection, bodies=0, ids=FUTURE, limit=9, now=FUTURE) == 1
        replaying = asyncio.create_task(other.replay([entry.seq]))
        async with session(journal_url) as watching, asyncio.timeout(20):
            while (await (await watching.execute(REPLAYING)).fetchone()) != (1,):
                await watching.rollback()
        await connection.commit()
    assert await replaying == 0
    assert (await journal.census()).counts[State.FORWARDED] == 1


REPLAYING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%finished AS MATERIALIZED%'"
)


async def test_a_ring_that_nobody_can_hear_is_no_fault(journal_url: str, make_delivery: Make) -> None:
    journal = await journals.open(journal_url)
    await journal.append(make_delivery())
    async with session(journal_url) as connection:
        await connection.execute("DROP TABLE bridge_tally")
        await connection.commit()
    with pytest.raises(JournalUnavailable, match="bridge_tally"):
        await journal.append(make_delivery("2"))
    assert len(await journal.find(Selection(), limit=9)) == 1
    await journal.close()


async def test_where_statistics_say_that_nothing_was_tried_no_attempt_is_read(
    journal_url: str, make_delivery: Make
) -> None:
    """As after an ANALYZE of a new database: each settlement then read all attempts there were, more from one to the next."""
    journal = await journals.open(journal_url)
    await asyncio.gather(*(journal.append(make_delivery(f"{n}")) for n in range(1500)))
    async with session(journal_url) as connection:
        await connection.execute("ANALYZE")
        await connection.commit()
    attempt = Attempt(at=0, outcome=Outcome.FORWARDED)
    while entries := await journal.claim(500, lease=LEASE):
        await journal.settle(
            [Settlement(seq=e.seq, token=e.token, state=State.FORWARDED, attempt=attempt) for e in entries]
        )
    await journal.close()  # what it has read is told when its session ends
    async with session(journal_url) as connection:
        [read] = await (await connection.execute(READ)).fetchone() or [None]
    assert read == 0


READ = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE schemaname = current_schema() AND relname = 'bridge_attempt'"
