"""What a second replica brings: how fast a backlog in PostgreSQL is forwarded by one bridge, and by two."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from postgres import Cluster

from bench import contents, subjects
from bench.rows import Note, Row
from bench.sink import sink

# Seconds until the Event API answers: at once, and as one that is far away.
DELAYS = (0.0, 0.2)


async def replicas(cluster: Cluster, *, rounds: int, backlog: int, note: Note) -> list[Row]:
    """Rows `replicas`: by the Event API's delay, replicas and round."""
    rows: list[Row] = []
    for delay in DELAYS:
        async with sink(delay=delay) as taking:
            for number in range(rounds):
                for count in (1, 2):
                    url = cluster.place()
                    await contents.fill(url, backlog)
                    async with AsyncExitStack() as stack:
                        folders = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(count)]
                        starting = [
                            stack.enter_async_context(subjects.bridge("", Path(each), url, taking.url))
                            for each in folders
                        ]
                        await asyncio.gather(*starting)
                        rate = backlog / await taking.seconds_for(backlog)
                    rows.append(
                        {"figure": "replicas", "delay": delay, "replicas": count, "round": number, "rate": rate}
                    )
                    note(f"{count} replicas, Event API at {delay * 1000:.0f} ms")
    return rows


def steps(rounds: int) -> int:
    """How many notes that gives."""
    return len(DELAYS) * 2 * rounds
