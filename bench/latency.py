"""How long it takes at a steady rate, and what a delivery costs on the disk."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path

import psycopg
from postgres import Cluster

from bench.bodies import SIZES
from bench.load import send
from bench.rows import Note, Row, median
from bench.sink import Sink, sink
from bench.subjects import Subject
from bench.throughput import JOURNALS, new_bridge, new_bridges

RATES = (100, 500, 2_000)
# Of which top rate half is measured, and whether all is forwarded meanwhile.
HALVES = (("acknowledged", False), ("end to end", True), ("acknowledged", True))
SPAN = 5.0
# Deliveries that are enough to tell how much a database has grown.
_STORED = {700: 20_000, 4_000: 10_000, 60_000: 1_000}


async def latency(cluster: Cluster, throughput: Sequence[Row], *, rounds: int, note: Note) -> list[Row]:
    """From when a webhook is due until it is answered, and until its event is at the Event API: rows `at a rate`, by subject, rate
    and round; and rows `at half` of the top rates there are in `throughput`, by which of them it is of.
    """
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        taking = await stack.enter_async_context(sink())
        silent = await stack.enter_async_context(sink(delay=3600))
        forwarding = [subject async for subject in new_bridges(stack, cluster, taking)]
        receiving = [subject async for subject in new_bridges(stack, cluster, silent)]
        for number in range(rounds):
            for subject, alone in zip(forwarding, receiving, strict=True):
                of: Row = {"subject": subject.name, "round": number}
                for rate in RATES:
                    found = await at_rate(rate, subject, taking, f"{number}")
                    rows.append({"figure": "at a rate", "rate": rate, **of, **found})
                    note(f"{subject.name}, {rate:,}/s")
                for figure, is_forwarding in HALVES:
                    server, where = (subject, taking) if is_forwarding else (alone, None)
                    rate = _half(throughput, figure, subject)
                    found = await at_rate(rate, server, where, f"{number} {figure}")
                    half = {"of": figure, "forwarding": is_forwarding, "rate": rate}
                    rows.append({"figure": "at half", **half, **of, **found})
                    note(f"{subject.name}, {rate:,}/s, {'forwarding' if is_forwarding else 'receiving alone'}")
    return rows


def _half(rows: Sequence[Row], figure: str, subject: Subject) -> int:
    top = median(rows, "rate", figure=figure, subject=subject.name, size=SIZES["0.7 KB"])
    assert top is not None  # noqa: S101 - it was measured before
    return round(top / 2)


async def at_rate(rate: int, subject: Subject, taking: Sink | None, name: str) -> Row:
    """Seconds until it was answered, and until its event was at the Event API. None: that is away."""
    load = subject.load(name=f"{name} at {rate}", count=round(rate * SPAN), size=SIZES["0.7 KB"], rate=float(rate))
    told = await send(load)
    found = {f"ack_{quantile}": told[quantile] for quantile in ("p50", "p99", "p99.9")}
    if taking is not None:
        arrived = await taking.arrivals(load.count)
        took = statistics.quantiles((arrived[id_] - due for id_, due in told["due"].items()), n=100)
        found |= {"arrival_p50": took[49], "arrival_p99": took[98]}
    return found


async def stored(cluster: Cluster, *, note: Note) -> list[Row]:
    """Rows `on disk`, by subject and size: bytes a delivery takes, once it is forwarded."""
    rows: list[Row] = []
    async with sink() as taking:
        for kind, name in JOURNALS.items():
            for size, count in _STORED.items():
                async with new_bridge(name, kind, cluster, taking) as (subject, url):
                    before = _bytes(url)
                    await send(subject.load(name="stored", count=count, size=size))
                    await taking.arrivals(count)
                    await asyncio.sleep(1)  # the last are settled
                    rows.append(
                        {"figure": "on disk", "subject": name, "size": size, "bytes": (_bytes(url) - before) / count}
                    )
                note(f"{name}, {size:,} bytes stored")
    return rows


def _bytes(url: str) -> int:
    """Of the journal, its write-ahead log emptied into it or left out."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return path.stat().st_size
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables WHERE schemaname = current_schema()"
        ).fetchone()
    return int(found[0]) if found else 0


def steps(rounds: int) -> int:
    """How many notes both give."""
    return len(JOURNALS) * ((len(RATES) + len(HALVES)) * rounds + len(_STORED))
