"""What every journal's census says of what is due: all that is pending, but for what waits for a time of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from bridge.journal import History, Journal
from bridge.model import Attempt, Delivery, Entry, Outcome, Settlement, State

Make: TypeAlias = Callable[..., Delivery]

T0 = 1_767_225_600_000
LEASE = 60_000


def later(entry: Entry, *, wait: int, tried: bool = True) -> Settlement:
    attempt = Attempt(at=T0, outcome=Outcome.POSTPONED) if tried else None
    return Settlement(seq=entry.seq, token=entry.token, state=State.PENDING, wait=wait, attempt=attempt)


async def test_what_waits_for_its_time_is_not_due_until_then(journal: Journal, make_delivery: Make) -> None:
    for n in range(2):
        await journal.append(make_delivery(f"{n}", received_at=T0 + n))
    first, second = await journal.claim(2, now=T0 + 9, lease=LEASE)
    await journal.settle([later(first, wait=500), later(second, wait=900)], now=T0 + 9)
    said = [(await journal.census(now=now)).oldest_due for now in (T0 + 508, T0 + 509)]
    assert said == [None, T0]
    assert (await journal.census(now=T0 + 508)).oldest_pending == T0


async def test_what_is_claimed_is_due_as_long_as_it_is_held_and_when_it_is_given_back(
    journal: Journal, make_delivery: Make
) -> None:
    """While the Event API is away, the forwarder holds all there is: to leave it out would hide an outage."""
    await journal.append(make_delivery("old", received_at=T0))
    await journal.append(make_delivery("new", received_at=T0 + 5))
    [held] = await journal.claim(1, now=T0 + 5, lease=LEASE)
    for now in (T0 + 6, T0 + LEASE, T0 + 2 * LEASE):
        assert (await journal.census(now=now)).oldest_due == T0
    await journal.settle([later(held, wait=-5, tried=False)], now=T0 + 5)
    assert (await journal.census(now=T0 + 6)).oldest_due == T0


async def test_the_oldest_due_is_found_behind_what_waits(journal: Journal, make_delivery: Make) -> None:
    for n in range(300):
        await journal.append(make_delivery(f"{n}", received_at=T0 + n))
    entries = await journal.claim(300, now=T0 + 300, lease=LEASE)
    await journal.settle([later(entry, wait=1000) for entry in entries[:-1]], now=T0 + 300)
    assert (await journal.census(now=T0 + 300)).oldest_due == T0 + 299


async def test_a_census_looks_at_a_thousand_however_many_there_are(journal: Journal, make_delivery: Make) -> None:
    """It is made for every scrape: a million that wait must cost it nothing. What is overdue comes before them all."""
    waiting = [make_delivery(f"{n}", received_at=T0) for n in range(1_000)]
    await journal.adopt([History(entry=replace(Entry.of(each), due=T0 + 10)) for each in waiting])
    await journal.append(make_delivery("held", received_at=T0 + 1))
    [held] = await journal.claim(1, now=T0 + 1, lease=LEASE)
    assert held.id == "held"
    assert (await journal.census(now=T0 + 1)).oldest_due is None, "of those that are next, none is due"
    await journal.append(make_delivery("overdue", received_at=T0 + 2))
    assert (await journal.census(now=T0 + 2)).oldest_due == T0 + 2
