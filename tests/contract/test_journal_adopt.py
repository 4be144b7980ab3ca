"""What every journal promises to who brings it entries of another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

import pytest
from test_journal_history import finish

from bridge.journal import History, Journal
from bridge.model import Attempt, Delivery, Entry, Outcome, Selection, State

Make: TypeAlias = Callable[..., Delivery]
Open: TypeAlias = Callable[[], Awaitable[Journal]]

T0 = 1_767_225_600_000
FAILED = Attempt(at=T0, outcome=Outcome.RAISED, error="ValueError: \0 \udcff é")
DONE = Attempt(at=T0 + 5, outcome=Outcome.FORWARDED, events=3)


def history(delivery: Delivery, *attempts: Attempt, **fields: object) -> History:
    usual = {"attempts": len(attempts)}
    return History(entry=replace(Entry.of(delivery, seq=4711), **{**usual, **fields}), attempts=attempts)  # type: ignore[arg-type]  # the fields of an Entry, by name


async def the_one(journal: Journal) -> Entry:
    [found] = await journal.find(Selection(), limit=2)
    loaded = await journal.load(found.seq)
    assert loaded is not None
    return loaded


@pytest.mark.parametrize("state", [State.FORWARDED, State.SKIPPED, State.DEAD])
async def test_a_finished_entry_is_as_it_was(journal: Journal, delivery: Delivery, state: State) -> None:
    brought = history(delivery, FAILED, DONE, state=state, due=None, replays=3, generation=2)
    assert await journal.adopt([brought]) == 1
    entry = await the_one(journal)
    assert entry == replace(brought.entry, seq=entry.seq)
    attempts = await journal.attempts(entry.seq)
    assert [each.at for each in attempts] == [T0, T0 + 5]
    assert attempts[0].error.startswith("ValueError: ") and attempts[0].error.endswith(" é")
    assert attempts[1] == DONE
    assert (await journal.census()).counts == {**dict.fromkeys(State, 0), state: 1}


async def test_a_pending_entry_is_due_when_it_was(journal: Journal, delivery: Delivery) -> None:
    brought = history(delivery, FAILED, due=T0 + 500, generation=1)
    assert await journal.adopt([brought]) == 1
    assert not await journal.claim(1, now=T0 + 499, lease=1000)
    [entry] = await journal.claim(1, now=T0 + 500, lease=1000)
    assert entry == replace(brought.entry, seq=entry.seq, due=T0 + 1500, token=entry.token)
    census = await journal.census()
    assert (census.counts[State.PENDING], census.oldest_pending) == (1, T0)


async def test_the_oldest_pending_may_be_one_that_was_brought_last(journal: Journal, make_delivery: Make) -> None:
    await journal.append(make_delivery("new", received_at=T0))
    old = make_delivery("old", received_at=T0 - 86_400_000)
    assert await journal.adopt([history(old, due=old.received_at)]) == 1
    assert (await journal.census()).oldest_pending == old.received_at


async def test_a_claim_stays_where_it_was_made(journal: Journal, delivery: Delivery) -> None:
    assert await journal.adopt([history(delivery, due=T0 + 90_000, token="4711")]) == 1
    entry = await the_one(journal)
    assert (entry.token, entry.due) == ("", T0)
    assert await journal.recover() == 0


async def test_what_was_purged_stays_purged_and_its_id_known(journal: Journal, delivery: Delivery) -> None:
    brought = history(delivery, DONE, state=State.FORWARDED, due=None, headers=None, body=None)
    assert await journal.adopt([brought]) == 1
    entry = await the_one(journal)
    assert (entry.headers, entry.body, entry.size) == (None, None, len(delivery.body))
    assert not await journal.append(delivery)
    assert await journal.replay([entry.seq]) == 0


async def test_what_is_there_is_left_alone(journal: Journal, make_delivery: Make) -> None:
    await journal.append(make_delivery("there"))
    before = await the_one(journal)
    brought = [
        history(make_delivery("there", body=b"another"), DONE, state=State.FORWARDED, due=None),
        history(make_delivery("new"), DONE, state=State.FORWARDED, due=None),
        history(make_delivery("new", body=b"twice"), FAILED, FAILED, state=State.DEAD, due=None),
        history(make_delivery("there", source="slack")),
    ]
    assert await journal.adopt(brought) == 2
    assert await journal.adopt(brought) == 0
    assert await journal.adopt([]) == 0
    assert await journal.load(before.seq) == before
    [new] = await journal.find(Selection(id="new"), limit=2)
    assert (new.state, list(await journal.attempts(new.seq))) == (State.FORWARDED, [DONE])
    counts = (await journal.census()).counts
    assert counts == {State.PENDING: 2, State.FORWARDED: 1, State.SKIPPED: 0, State.DEAD: 0}


async def test_attempts_go_on_where_they_were(journal: Journal, delivery: Delivery) -> None:
    many = [Attempt(at=n, outcome=Outcome.POSTPONED) for n in range(100)]
    await journal.adopt([history(delivery, *many, state=State.DEAD, due=None, attempts=350)])
    entry = await the_one(journal)
    assert entry.attempts == 350
    assert await journal.replay([entry.seq], now=T0) == 1
    await finish(journal)
    attempts = await journal.attempts(entry.seq)
    assert [each.at for each in attempts] == [*range(1, 100), T0]


async def test_what_is_adopted_wakes_who_waits(open_journal: Open, delivery: Delivery) -> None:
    waiter, other = await open_journal(), await open_journal()
    await waiter.wait(0)
    await waiter.wait(0)
    waiting = asyncio.create_task(waiter.wait(3600))
    await other.adopt([history(delivery)])
    async with asyncio.timeout(20):
        await waiting


async def test_an_adopted_seq_is_never_given_twice(journal: Journal, make_delivery: Make) -> None:
    await journal.adopt([history(make_delivery("old"))])
    old = await the_one(journal)
    await journal.append(make_delivery("new"))
    [new] = await journal.find(Selection(id="new"), limit=2)
    assert new.seq > old.seq
