"""What each server acknowledges, and the bridge forwards, as fast as it can: one after the other, round by round."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from postgres import Cluster

from bench import bodies, subjects
from bench.load import send
from bench.rows import Note, Row
from bench.sink import Sink, sink
from bench.subjects import Subject

CEILING, HANDWRITTEN, WEBHOOK = "aiohttp, does nothing", "FastAPI + SDKs, not durable", "adnanh/webhook + curl"
JOURNALS = {"sqlite": "bridge, SQLite", "postgresql": "bridge, PostgreSQL"}
# Seconds a round takes about.
_SPAN = 1.5
_FEWEST = 200


async def throughput(cluster: Cluster, *, rounds: int, note: Note) -> list[Row]:
    """Rows `acknowledged` and `end to end`: by subject, size and round."""
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        silent = await stack.enter_async_context(sink(delay=3600))
        taking = await stack.enter_async_context(sink())
        receiving = await _servers(stack, cluster, silent, taking)
        forwarding = [each async for each in new_bridges(stack, cluster, taking)]
        for size in bodies.SIZES.values():
            counts = {each.name: await _count(each, size) for each in receiving}
            for each in forwarding:
                await end_to_end(each, taking, size, counts[each.name] // 2, "warming")
            for number in range(rounds):
                for each in receiving:
                    found = await acknowledged(each, size, counts[each.name], f"{number}")
                    rows.append(
                        {"figure": "acknowledged", "subject": each.name, "size": size, "round": number, **found}
                    )
                    note(f"{each.name}, {size:,} bytes")
                await taking.arrivals(0)
                for each in forwarding:
                    found = await end_to_end(each, taking, size, counts[each.name], f"{number}")
                    rows.append({"figure": "end to end", "subject": each.name, "size": size, "round": number, **found})
                    note(f"{each.name}, end to end, {size:,} bytes")
    return rows


def steps(rounds: int) -> int:
    """How many notes that takes."""
    return len(bodies.SIZES) * rounds * (4 + (subjects.WEBHOOK_PROGRAM is not None) + 2)


async def _servers(stack: AsyncExitStack, cluster: Cluster, silent: Sink, taking: Sink) -> list[Subject]:
    """All that acknowledge. The bridges speak to an Event API that answers nobody: they receive, and nothing else."""
    found = [await stack.enter_async_context(subjects.ceiling(CEILING))]
    found += [each async for each in new_bridges(stack, cluster, silent)]
    found.append(await stack.enter_async_context(subjects.handwritten(HANDWRITTEN, taking.url)))
    if subjects.WEBHOOK_PROGRAM is not None:
        found.append(await stack.enter_async_context(subjects.webhook(WEBHOOK, taking.url)))
    return found


@asynccontextmanager
async def new_bridge(name: str, kind: str, cluster: Cluster, api: Sink) -> AsyncIterator[tuple[Subject, str]]:
    """On a journal of this kind, in which nothing is yet; and its URL."""
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as folder:
        url, roots = subjects.new_journal(kind, cluster, Path(folder))
        async with subjects.bridge(name, Path(folder), url, api.url, *roots) as (subject, _):
            yield subject, url


async def new_bridges(stack: AsyncExitStack, cluster: Cluster, api: Sink) -> AsyncIterator[Subject]:
    """One on each kind of journal."""
    for kind, name in JOURNALS.items():
        subject, _ = await stack.enter_async_context(new_bridge(name, kind, cluster, api))
        yield subject


async def _count(subject: Subject, size: int) -> int:
    """How many it takes for a round to last."""
    count = _FEWEST
    for attempt in range(2):  # the first is over before it has begun
        load = subject.load(name=f"warming {attempt} {size}", count=count, size=size, connections=_connections(subject))
        count = _count_of((await send(load))["rate"])
    return count


def _count_of(rate: float) -> int:
    return max(_FEWEST, round(rate * _SPAN))


def _connections(subject: Subject) -> int:
    """With more, those that take a process or a request each for every webhook answer fewer of them."""
    return 32 if subject.name in {HANDWRITTEN, WEBHOOK} else 128


async def acknowledged(subject: Subject, size: int, count: int, name: str, *, random_ids: bool = False) -> Row:
    """How many a second, how long each took in seconds, and CPU seconds of all its processes for a thousand."""
    before = subject.cpu_seconds()
    connections = _connections(subject)
    load = subject.load(name=f"{name} {size}", count=count, size=size, connections=connections, random_ids=random_ids)
    told = await send(load)
    cpu = (subject.cpu_seconds() - before) / count * 1000
    return {name: told[name] for name in ("rate", "p50", "p99", "p99.9")} | {"cpu_per_1000": cpu}


async def end_to_end(subject: Subject, taking: Sink, size: int, count: int, name: str) -> Row:
    """From the first that was sent to the last that arrived."""
    before = subject.cpu_seconds()
    told = await send(subject.load(name=f"{name} {size}", count=count, size=size))
    seconds = max((await taking.arrivals(count)).values()) - told["began"]
    return {"rate": count / seconds, "cpu_per_1000": (subject.cpu_seconds() - before) / count * 1000}
