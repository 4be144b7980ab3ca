"""What every journal promises to who waits, and when it is closed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from bridge.errors import JournalUnavailable
from bridge.journal import History, Journal
from bridge.model import Attempt, Delivery, Entry, Outcome, Selection, Settlement, State

Make: TypeAlias = Callable[..., Delivery]
Open: TypeAlias = Callable[[], Awaitable[Journal]]

T0 = 1_767_225_600_000
FOR_EVER = 3600.0
# Far more than a ring takes, far less than for ever.
SOON = 20.0

APPEND = """
import asyncio, sys
from bridge import journal
from bridge.model import Delivery

async def main():
    opened = await journal.open(sys.argv[1])
    await opened.append(Delivery(source="s", provider="p", prefix="p", id="1", type="t", occurred_at=0, received_at=0,
                                 headers={}, body=b"", payload={}))
    await opened.close()

asyncio.run(main())
"""


async def finished(journal: Journal, delivery: Delivery) -> int:
    await journal.append(delivery)
    [entry] = await journal.claim(1, now=T0, lease=1)
    attempt = Attempt(at=T0, outcome=Outcome.FORWARDED)
    await journal.settle([Settlement(seq=entry.seq, token=entry.token, state=State.FORWARDED, attempt=attempt)])
    return entry.seq


async def test_waiting_ends_by_itself(journal: Journal) -> None:
    async with asyncio.timeout(SOON):
        await journal.wait(0)
        await journal.wait(0.01)


async def test_an_append_wakes_who_waits(journal: Journal, delivery: Delivery) -> None:
    await journal.wait(0)
    waiting = asyncio.create_task(journal.wait(FOR_EVER))
    await journal.append(delivery)
    async with asyncio.timeout(SOON):
        await waiting


async def test_an_append_through_another_journal_wakes_who_waits(open_journal: Open, delivery: Delivery) -> None:
    waiter, other = await open_journal(), await open_journal()
    await waiter.wait(0)
    waiting = asyncio.create_task(waiter.wait(FOR_EVER))
    await other.append(delivery)
    async with asyncio.timeout(SOON):
        await waiting


async def test_an_append_in_another_process_wakes_who_waits(journal: Journal, journal_url: str) -> None:
    await journal.wait(0)
    waiting = asyncio.create_task(journal.wait(FOR_EVER))
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", APPEND, journal_url)
    async with asyncio.timeout(SOON):
        await waiting
    assert await process.wait() == 0
    assert len(await journal.claim(1, now=T0, lease=1)) == 1


async def test_what_comes_between_a_claim_and_the_waiting_wakes(open_journal: Open, delivery: Delivery) -> None:
    waiter, other = await open_journal(), await open_journal()
    await waiter.wait(0)
    assert not await waiter.claim(1, now=T0, lease=1)
    await other.append(delivery)
    async with asyncio.timeout(SOON):
        await waiter.wait(FOR_EVER)


async def test_what_comes_before_the_first_waiting_is_not_missed(open_journal: Open, delivery: Delivery) -> None:
    waiter, other = await open_journal(), await open_journal()
    assert not await waiter.claim(1, now=T0, lease=1)
    await other.append(delivery)
    async with asyncio.timeout(SOON):
        await waiter.wait(FOR_EVER)


async def test_a_replay_wakes_who_waits(open_journal: Open, delivery: Delivery) -> None:
    waiter, other = await open_journal(), await open_journal()
    seq = await finished(other, delivery)
    await waiter.wait(0)
    await waiter.wait(0)
    waiting = asyncio.create_task(waiter.wait(FOR_EVER))
    await other.replay([seq], now=T0)
    async with asyncio.timeout(SOON):
        await waiting


async def test_a_recovered_claim_wakes_who_waits(open_journal: Open, delivery: Delivery) -> None:
    gone, waiter, other = await open_journal(), await open_journal(), await open_journal()
    await gone.append(delivery)
    await gone.claim(1, now=T0, lease=1)
    await gone.close()
    await waiter.wait(0)
    await waiter.wait(0)
    waiting = asyncio.create_task(waiter.wait(FOR_EVER))
    assert await other.recover() == 1
    async with asyncio.timeout(SOON):
        await waiting


async def test_closing_sends_who_waits_home(journal: Journal) -> None:
    await journal.wait(0)
    waiting = asyncio.create_task(journal.wait(FOR_EVER))
    await asyncio.sleep(0)
    await journal.close()
    async with asyncio.timeout(SOON):
        await waiting


async def test_closing_stores_first_what_was_accepted(open_journal: Open, make_delivery: Make) -> None:
    journal = await open_journal()
    appends = []
    for wave in range(2):  # the second arrives while the first is on its way to the disk
        appends += [asyncio.create_task(journal.append(make_delivery(f"{wave}.{n}"))) for n in range(50)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await journal.close()
    assert await asyncio.gather(*appends) == [True] * 100
    assert len(await (await open_journal()).find(Selection(), limit=200)) == 100


async def test_a_closed_journal_says_so(journal: Journal, delivery: Delivery) -> None:
    await journal.close()
    await journal.close()
    entry = Settlement(seq=1, token="t", state=State.PENDING, wait=0)
    for call in (
        journal.append(delivery),
        journal.adopt([History(entry=Entry.of(delivery))]),
        journal.claim(1, now=T0, lease=1),
        journal.settle([entry]),
        journal.recover(),
        journal.replay([1], now=T0),
        journal.find(Selection(), limit=1),
        journal.load(1),
        journal.attempts(1),
        journal.census(),
        journal.prune(bodies=0, ids=0, now=T0, limit=1),
        journal.wait(FOR_EVER),
        journal.reserve(),
        journal.check(),
    ):
        with pytest.raises(JournalUnavailable, match="closed"):
            await call


async def test_a_check_changes_nothing_that_counts(journal: Journal, delivery: Delivery) -> None:
    await journal.append(delivery)
    before = await journal.census()
    for _ in range(3):
        await journal.check()
    assert await journal.census() == before
