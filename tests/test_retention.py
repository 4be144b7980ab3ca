"""Forgetting, day by day, on every journal: nothing pending, nothing too early, a little at a time."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable

import orjson
import pytest
from receiving import logging_into

from bridge import retention
from bridge.journal import Journal
from bridge.model import Attempt, Delivery, Entry, Outcome, Selection, Settlement, State
from bridge.retention import Pruner
from bridge.settings import RetentionSettings

T0 = 1_767_225_600_000
DAY = 86_400_000


@pytest.fixture
def pruner(journal: Journal) -> Pruner:
    return Pruner(journal=journal, retention=RetentionSettings(bodies=30, ids=35))


async def finish(journal: Journal, state: State = State.FORWARDED) -> None:
    """All that is pending."""
    attempt = Attempt(at=T0, outcome=Outcome.FORWARDED)
    while entries := await journal.claim(500, now=T0, lease=1000):
        await journal.settle([Settlement(seq=e.seq, token=e.token, state=state, attempt=attempt) for e in entries])


async def only(journal: Journal) -> Entry | None:
    found = await journal.find(Selection(), limit=2)
    return await journal.load(found[0].seq) if found else None


@pytest.mark.parametrize("state", [State.FORWARDED, State.SKIPPED, State.DEAD])
async def test_the_body_goes_first_and_the_id_later(
    journal: Journal, pruner: Pruner, delivery: Delivery, state: State
) -> None:
    await journal.append(delivery)
    await finish(journal, state)
    assert not await pruner.step(now=T0 + 30 * DAY)
    kept = await only(journal)
    assert kept is not None and kept.body == delivery.body
    assert await pruner.step(now=T0 + 30 * DAY + 1)
    purged = await only(journal)
    assert purged is not None and (purged.body, purged.headers, purged.state) == (None, None, state)
    assert not await journal.append(delivery), "its id is known still"
    assert await pruner.step(now=T0 + 35 * DAY + 1)
    assert await only(journal) is None
    assert await journal.append(delivery), "nobody sends it after so long; who does means it anew"


async def test_what_is_pending_stays_however_old(journal: Journal, pruner: Pruner, delivery: Delivery) -> None:
    await journal.append(delivery)
    assert not await pruner.step(now=T0 + 1000 * DAY)
    kept = await only(journal)
    assert kept is not None and kept.body == delivery.body


async def test_a_step_is_small_and_says_whether_there_is_more(
    journal: Journal, pruner: Pruner, make_delivery: Callable[..., Delivery]
) -> None:
    await asyncio.gather(*(journal.append(make_delivery(f"evt_{n}")) for n in range(450)))
    await finish(journal)
    left = []
    while await pruner.step(now=T0 + 40 * DAY):
        left.append((await journal.census()).counts[State.FORWARDED])
    assert left == [250, 50, 0]


async def test_it_goes_on_by_itself_until_nothing_is_left(
    journal: Journal,
    pruner: Pruner,
    make_delivery: Callable[..., Delivery],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "BETWEEN_STEPS", 0)
    await asyncio.gather(*(journal.append(make_delivery(f"evt_{n}")) for n in range(450)))
    await finish(journal)
    running = asyncio.create_task(pruner.run())
    async with asyncio.timeout(30):
        while (await journal.census()).counts[State.FORWARDED]:
            await asyncio.sleep(0.01)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_journal_that_cannot_be_reached_is_tried_again_later(
    journal: Journal, pruner: Pruner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_BETWEEN_ROUNDS", 0.001)
    await journal.close()
    with logging_into(logged := io.StringIO()):
        running = asyncio.create_task(pruner.run())
        async with asyncio.timeout(30):
            while logged.getvalue().count("\n") < 2:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert {orjson.loads(line)["event"] for line in logged.getvalue().splitlines()} == {"prune.failed"}
