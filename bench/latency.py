"""How long it takes at a steady rate, and what a bridge costs: memory, and bytes on the disk."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import psycopg
from postgres import Cluster

from bench import bodies
from bench.load import send
from bench.rows import Note, Row, median
from bench.sink import sink
from bench.throughput import JOURNALS, new_bridge

RATES = (100, 500, 2_000)
SPAN = 10.0
# Seconds until a service that has started has come to rest.
_REST = 5.0
# Deliveries that are enough to tell how much a database has grown.
_STORED = {700: 20_000, 4_000: 10_000, 60_000: 1_000}


async def latency(cluster: Cluster, acknowledged: Sequence[Row], *, note: Note) -> list[Row]:
    """Rows `memory` and `at a rate`, by subject and rate: from when a webhook is due until it is answered, and until its event
    is at the Event API. `acknowledged`: of which half is a rate too.
    """
    rows: list[Row] = []
    async with sink() as taking:
        for kind, name in JOURNALS.items():
            async with new_bridge(name, kind, cluster, taking) as (subject, _):
                await asyncio.sleep(_REST)
                rows.append({"figure": "memory", "subject": name, "pending": 0, **subject.memory()})
                top = median(acknowledged, "rate", figure="acknowledged", subject=name, size=bodies.SIZES["0.7 KB"])
                half = round((top or 0) / 2)
                for rate in filter(None, (*RATES, half)):
                    load = subject.load(name=f"at {rate}", count=round(rate * SPAN), size=700, rate=float(rate))
                    told = await send(load)
                    arrived = await taking.arrivals(load.count)
                    took = [arrived[id_] - due for id_, due in told["due"].items()]
                    found = {"ack_p50": told["p50"], "ack_p99": told["p99"], **_cuts(took)}
                    rows.append(
                        {"figure": "at a rate", "subject": name, "rate": rate, "is_half": rate == half, **found}
                    )
                    note(f"{name}, {rate:,}/s")
    return rows


def _cuts(took: Sequence[float]) -> Row:
    cuts = statistics.quantiles(took, n=100)
    return {"arrival_p50": cuts[49], "arrival_p99": cuts[98]}


async def disk(cluster: Cluster, *, note: Note) -> list[Row]:
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


def steps() -> int:
    """How many notes both give."""
    return len(JOURNALS) * (len(RATES) + 1 + len(_STORED))
