"""The journals beside each other: what SQLite and PostgreSQL acknowledge, what two replicas forward, what age costs."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from postgres import Cluster
from service import Service, service

from bench import load
from bench.contents import LEASE, T0, age, delivery, fill, settle
from bridge import journal as journals
from bridge.journal import Journal
from bridge.model import Attempt, Outcome, Settlement, State
from bridge.retention import BETWEEN_STEPS, STEP

CONNECTIONS = 64
# What is settled between two looks of autovacuum, a minute, at 800 a second: dead rows that no vacuum has taken yet.
_CHURN = 50_000


@dataclass(frozen=True, slots=True)
class Figure:
    """A ratio, what it should be, and what it is made of."""

    what: str
    ratio: float
    asked: str
    of: str


@contextmanager
def postgresql(*, autovacuum_naptime: str = "1min") -> Iterator[Cluster]:
    """As one would run it: what is acknowledged is on the disk."""
    cluster = Cluster(fsync="on", shared_buffers="512MB", max_wal_size="4GB", autovacuum_naptime=autovacuum_naptime)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


async def acknowledged(cluster: Cluster, *, rounds: int, count: int, forwarding: bool) -> Figure:
    """Deliveries a second that one receiver process acknowledges: PostgreSQL / SQLite.

    `forwarding`: all are forwarded meanwhile, on the same cores. Otherwise the Event API answers nobody.
    """
    rates: dict[str, list[float]] = {"sqlite": [], "postgresql": []}
    async with sink(delay=0 if forwarding else 3600) as taking:
        for number in range(rounds):
            for kind, found in rates.items():
                with tempfile.TemporaryDirectory() as folder:
                    url = cluster.place() if kind == "postgresql" else f"sqlite:///{folder}/bridge.db"
                    async with bridge(Path(folder), url, taking.url) as running:
                        answer = await send(running, count, f"{kind}{number}")
                found.append(answer["rate"])
    sqlite, postgresql = (statistics.median(each) for each in rates.values())
    what = f"acknowledged, PostgreSQL / SQLite, {'while forwarding' if forwarding else 'nothing forwarded'}"
    return Figure(what, postgresql / sqlite, "at least 0.8", f"{postgresql:,.0f}/s and {sqlite:,.0f}/s")


async def forwarded(cluster: Cluster, *, rounds: int, count: int, delay: float) -> Figure:
    """How fast a backlog is forwarded to an Event API that answers after so many seconds: by two replicas / by one."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    async with sink(delay=delay) as taking:
        for _ in range(rounds):
            for replicas, found in rates.items():
                url = cluster.place()
                await fill(url, count)
                async with AsyncExitStack() as stack:
                    folders = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(replicas)]
                    starting = [stack.enter_async_context(bridge(Path(each), url, taking.url)) for each in folders]
                    await asyncio.gather(*starting)
                    found.append(count / await taking.seconds_for(count))
    one, two = (statistics.median(each) for each in rates.values())
    what = f"forwarded from a backlog, Event API at {delay * 1000:.0f} ms, two replicas / one"
    return Figure(what, two / one, "at least 1.5 where cores allow", f"{two:,.0f}/s and {one:,.0f}/s")


async def claimed(cluster: Cluster, *, rounds: int, settled: int) -> Figure:
    """How long it takes to claim 500 of 10,000 pending: with so many settled ones behind them, the last of them just now, /
    with none.
    """
    urls = [cluster.place(), cluster.place()]
    took: list[list[float]] = [[], []]
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(url)) for url in urls]
        age(urls[1], settled)
        await fill(urls[1], _CHURN, start=2 * 10**9)
        await settle(stores[1])
        for url in urls:
            await fill(url, 10_000)
        for _ in range(rounds):
            for store, found in zip(stores, took, strict=True):
                found.append(await one_claim(store))
    new, old = (statistics.median(each) * 1000 for each in took)
    what = f"claiming 500 of 10,000, {settled:,} settled / none"
    return Figure(what, old / new, "at most 1.3", f"{old:.1f} ms and {new:.1f} ms")


async def one_claim(store: Journal) -> float:
    """Seconds. What was claimed is given back."""
    began = time.perf_counter()
    entries = await store.claim(500, lease=LEASE)
    took = time.perf_counter() - began
    assert len(entries) == 500  # noqa: PLR2004, S101 - or nothing was measured
    back = [Settlement(seq=e.seq, token=e.token, state=State.PENDING, wait=-LEASE) for e in entries]
    await store.settle(back)
    return took


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


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Journal]:
    store = await journals.open(url)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def bridge(folder: Path, url: str, api: str) -> AsyncIterator[Service]:
    """A real `bridge serve`, ready."""
    more = {"BRIDGE_JOURNAL": url, "STRIPE_WEBHOOK_SECRET": load.SECRET.decode()}
    async with service(folder, api, more) as running:
        yield running


async def send(to: Service, count: int, name: str) -> dict[str, Any]:
    """What the generator found. Raises AssertionError where not all were answered 200."""
    port = to.public.rpartition(":")[2]
    generator = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", port, str(count), str(CONNECTIONS), name, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await generator.communicate()
    answer: dict[str, Any] = json.loads(told)
    assert answer["answers"] == {"200": count}, answer  # noqa: S101 - or nothing was measured
    return answer


class Sink:
    """`python -m bench.sink`, from outside."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{port}"

    async def seconds_for(self, count: int) -> float:
        """From the first event to the last of so many, once they are there; then it begins anew."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - pipes
        self._process.stdin.write(b"%d\n" % count)
        return float(await self._process.stdout.readline())


@asynccontextmanager
async def sink(*, delay: float = 0) -> AsyncIterator[Sink]:
    """`delay`: seconds until it answers."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.sink", str(delay), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None  # noqa: S101 - a pipe
    try:
        yield Sink(process, int(await process.stdout.readline()))
    finally:
        process.kill()
        await process.wait()
