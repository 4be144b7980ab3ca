"""What PostgreSQL's tables take while as much is forgotten as comes in: an hour of it must look as a minute does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psycopg
from postgres import Cluster

from bench.contents import LEASE, T0, delivery, opened
from bridge.journal import Journal
from bridge.model import Attempt, Outcome, Settlement, State
from bridge.retention import BETWEEN_STEPS, STEP


async def purged(cluster: Cluster, *, seconds: float, rate: int) -> list[dict[str, float]]:
    """What the tables take while deliveries come in, are forwarded and forgotten at the same rate: a row every 10 s.

    As if a month were 20 s: bodies are purged then, and ids forgotten after 30. And a minute, from one look of autovacuum
    to the next, 1 s.
    """
    url = cluster.place()
    rows: list[dict[str, float]] = []
    began = time.monotonic()
    ending = asyncio.Event()

    def now() -> int:
        return T0 + round((time.monotonic() - began) * 1000)

    async with opened(url) as store:
        working = [asyncio.create_task(each(store, now, ending, rate)) for each in (_receive, _forward, _forget)]
        while time.monotonic() - began < seconds:
            await asyncio.sleep(10)
            rows.append({"second": (now() - T0) / 1000, **_sizes(url), "claim_ms": 1000 * await _claim(store)})
        ending.set()
        await asyncio.gather(*working)
    return rows


async def _receive(store: Journal, now: Callable[[], int], ending: asyncio.Event, rate: int) -> None:
    number = 0
    while not ending.is_set():
        due = (now() - T0) * rate // 1000
        await asyncio.gather(*(store.append(delivery(n, now())) for n in range(number, due)))
        number = max(number, due)
        await asyncio.sleep(0.02)


async def _forward(store: Journal, now: Callable[[], int], ending: asyncio.Event, rate: int) -> None:
    del now, rate
    done = Attempt(at=T0, outcome=Outcome.FORWARDED, events=1)
    while not ending.is_set():
        entries = await store.claim(200, lease=LEASE)
        await store.settle([Settlement(seq=e.seq, token=e.token, state=State.FORWARDED, attempt=done) for e in entries])
        if not entries:
            await store.wait(0.1)


async def _forget(store: Journal, now: Callable[[], int], ending: asyncio.Event, rate: int) -> None:
    """As `bridge.retention` does, with its steps and pauses."""
    del rate
    while not ending.is_set():
        await store.prune(bodies=20_000, ids=30_000, now=now(), limit=STEP)
        await asyncio.sleep(BETWEEN_STEPS)


def _sizes(url: str) -> dict[str, float]:
    """MB of each table with its indexes, and rows that are dead in all of them."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT relname, pg_total_relation_size(relid) / 1e6, n_dead_tup FROM pg_stat_user_tables"
            " WHERE schemaname = current_schema() AND relname IN"
            " ('bridge_delivery', 'bridge_content', 'bridge_pending', 'bridge_finished', 'bridge_attempt') ORDER BY relname"
        ).fetchall()
    return {name.removeprefix("bridge_"): float(size) for name, size, _ in found} | {
        "dead": float(sum(dead for _, _, dead in found))
    }


async def _claim(store: Journal) -> float:
    began = time.perf_counter()
    entries = await store.claim(1, lease=1)
    took = time.perf_counter() - began
    await store.settle([Settlement(seq=e.seq, token=e.token, state=State.PENDING, wait=0) for e in entries])
    return took
