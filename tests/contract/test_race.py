"""Many workers, two journals at one place: nothing is given to two, and nothing is left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from bridge.journal import Journal
from bridge.model import Attempt, Delivery, Entry, Outcome, Selection, Settlement, State

Claim: TypeAlias = Callable[[Journal], Awaitable[Sequence[Entry]]]

T0 = 1_767_225_600_000
ENTRIES = 300
WORKERS = 8


async def careful(journal: Journal) -> Sequence[Entry]:
    return await journal.claim(3, now=T0, lease=60_000)


async def careless(journal: Journal) -> Sequence[Entry]:
    """Looks what is free, and takes it later: what every claim must not do."""
    free = [entry for entry in await journal.find(Selection(), limit=ENTRIES, oldest_first=True) if not entry.token]
    await journal.claim(3, now=T0, lease=60_000)
    return free[:3]


async def race(claim: Claim, journals: Sequence[Journal]) -> Counter[str]:
    """How many workers each entry was given to. They all begin at once, and change journals at every claim."""

    async def work(first: int) -> list[str]:
        mine: list[str] = []
        while entries := await claim(journals[(first + len(mine)) % len(journals)]):
            mine += [entry.id for entry in entries]
        return mine

    worked = await asyncio.gather(*map(work, range(WORKERS)))
    assert sum(1 for mine in worked if mine) > 1, "one worker had it all: that was no race"
    return Counter(name for mine in worked for name in mine)


async def filled(
    open_journal: Callable[[], Awaitable[Journal]], make_delivery: Callable[..., Delivery]
) -> list[Journal]:
    journals = [await open_journal(), await open_journal()]
    await asyncio.gather(*(journals[0].append(make_delivery(f"{n}")) for n in range(ENTRIES)))
    return journals


async def test_workers_that_race_never_share_an_entry(
    open_journal: Callable[[], Awaitable[Journal]], make_delivery: Callable[..., Delivery]
) -> None:
    given = await race(careful, await filled(open_journal, make_delivery))
    assert given == {f"{n}": 1 for n in range(ENTRIES)}


async def test_the_race_finds_out_a_careless_claim(
    open_journal: Callable[[], Awaitable[Journal]], make_delivery: Callable[..., Delivery]
) -> None:
    given = await race(careless, await filled(open_journal, make_delivery))
    assert max(given.values()) > 1


async def test_what_many_settle_at_once_is_settled_once(
    open_journal: Callable[[], Awaitable[Journal]], make_delivery: Callable[..., Delivery]
) -> None:
    journals = await filled(open_journal, make_delivery)
    entries = await journals[0].claim(ENTRIES, now=T0, lease=60_000)
    attempt = Attempt(at=T0, outcome=Outcome.FORWARDED)
    done = [Settlement(seq=e.seq, token=e.token, state=State.FORWARDED, attempt=attempt) for e in entries]
    windows = [done[n : n + 30] for n in range(0, ENTRIES - 20, 10)]
    settled = await asyncio.gather(*(journals[n % 2].settle(window) for n, window in enumerate(windows)))
    assert sum(settled) == ENTRIES
    assert (await journals[1].census()).counts[State.FORWARDED] == ENTRIES
    assert max([len(await journals[0].attempts(entry.seq)) for entry in entries]) == 1


async def test_appends_and_claims_at_once_lose_nothing(
    open_journal: Callable[[], Awaitable[Journal]], make_delivery: Callable[..., Delivery]
) -> None:
    receiver, forwarder = await open_journal(), await open_journal()

    async def receive() -> None:
        for n in range(0, ENTRIES, 10):
            await asyncio.gather(*(receiver.append(make_delivery(f"{n + m}")) for m in range(10)))

    claimed: list[str] = []
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(receive())
        while len(claimed) < ENTRIES:
            entries = await careful(forwarder)
            claimed += [entry.id for entry in entries]
            if not entries:
                await forwarder.wait(3600)
    assert sorted(claimed) == sorted(f"{n}" for n in range(ENTRIES))
