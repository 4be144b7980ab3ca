"""What a journal's size costs: new, with many settled entries, with many pending ones; and the start after a SIGKILL."""

from __future__ import annotations

import asyncio
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path

from postgres import Cluster
from processes import descendants
from processes import send as send_signal
from service import until

from bench import contents, subjects
from bench.contents import LEASE
from bench.latency import at_rate
from bench.load import send
from bench.rows import Note, Row
from bench.sink import sink
from bench.subjects import Subject
from bench.throughput import JOURNALS, acknowledged, end_to_end
from bridge.journal import Journal
from bridge.model import Attempt, Outcome, Settlement, State

_CLAIMS = 30
_CLAIM = 500
_SIZE = 700
# Deliveries sent for a figure: some seconds.
_SENT = 20_000
# Deliveries a second, and seconds from the start of the generator, until its servers are killed under them.
_HALTING, _UNTIL_KILLED = 2_000.0, 4.0
# Deliveries a second at which it is measured when they arrive.
_RATE = 500
_PATIENCE = 120.0
_ROUNDS = 3
# Seconds until a service that has started has come to rest.
_REST = 3.0
# Settled entries whose dead rows no vacuum has taken yet: a minute at 800 a second.
_CHURN = 50_000


async def growth(cluster: Cluster, *, settled: int, pending: int, note: Note) -> list[Row]:
    """Rows `growth`, by subject, settled and pending entries."""
    rows: list[Row] = []
    for kind, name in JOURNALS.items():
        with ExitStack() as stack:
            urls = []
            for state in ((0, 0), (settled // 50, 0), (settled, 0), (0, pending)):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bridge-bench-")))
                url, roots = subjects.new_journal(kind, cluster, folder)
                urls.append(url)
                await contents.stock(url, settled=state[0], pending=state[1])
                what = f"{name}, {state[0]:,} settled, {state[1]:,} pending"
                note(f"{what}: stocked")
                row: Row = {"figure": "growth", "subject": name, "settled": state[0], "pending": state[1]}
                row |= await _received(folder, url, roots)
                note(f"{what}: received")
                row |= await (_drained if state[1] else _forwarded)(folder, url, roots)
                note(f"{what}: forwarded")
                rows.append(row)
            grown = rows[-len(urls) :]
            took = await _claims(urls, churn=[_CHURN if row["settled"] else 0 for row in grown])
            for row, seconds in zip(grown, took, strict=True):
                row["claim_and_settle"] = seconds
            note(f"{name}: claimed")
    return rows


def steps() -> int:
    """How many notes that gives."""
    return len(JOURNALS) * (4 * 3 + 1)


async def _received(folder: Path, url: str, roots: Sequence[int]) -> Row:
    """Memory, what is acknowledged, and how long it takes from the start after a SIGKILL under load until it is ready."""
    async with sink(delay=3600) as silent, subjects.bridge("", folder, url, silent.url, *roots) as (subject, running):
        await asyncio.sleep(_REST)
        memory = subjects.subject_of(running, "").memory()  # PostgreSQL's own is its settings'
        await send(subject.load(name="growth warming", count=_SENT // 4, size=_SIZE))
        figures = await _acknowledged(subject)
        sending = asyncio.create_task(
            send(subject.load(name="growth, cut off", count=_SENT, size=_SIZE, rate=_HALTING))
        )
        await asyncio.sleep(_UNTIL_KILLED)
        assert not sending.done()  # noqa: S101 - or it is not under load
        send_signal(signal.SIGKILL, [running.pid, *descendants(running.pid)])
        await running.wait()
        began = time.monotonic()
        await running.start()
        ready = time.monotonic() - began
        with suppress(AssertionError):  # its connections were lost
            await sending
        return {**figures, "memory": memory, "ready": ready}


async def _acknowledged(subject: Subject) -> Row:
    """Medians. `rate_random`: of deliveries whose ids are as random as can be."""
    found: list[Row] = []
    for number in range(_ROUNDS):
        figures = await acknowledged(subject, _SIZE, _SENT, f"growth {number}")
        random = await acknowledged(subject, _SIZE, _SENT, f"growth {number} at random", random_ids=True)
        found.append({**figures, "rate_random": random["rate"]})
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


async def _forwarded(folder: Path, url: str, roots: Sequence[int]) -> Row:
    """End to end while receiving, and at a steady rate."""
    async with sink() as taking, subjects.bridge("", folder, url, taking.url, *roots) as (subject, _):
        await _until_forwarded(url)  # what the last step left
        await taking.arrivals(0)
        found = await end_to_end(subject, taking, _SIZE, _SENT, "growth end to end")
        return {"end_to_end": found["rate"], "arrival": await at_rate(_RATE, subject, taking, "growth")}


async def _drained(folder: Path, url: str, roots: Sequence[int]) -> Row:
    """What is new would wait behind what is pending: how fast that goes out."""
    async with sink() as taking, subjects.bridge("", folder, url, taking.url, *roots):
        return {"end_to_end": _SENT * 2 / await taking.seconds_for(_SENT * 2)}


async def _until_forwarded(url: str) -> None:
    async with contents.opened(url) as store:

        async def forwarded() -> bool:
            return not (await store.census()).counts[State.PENDING]

        await until(forwarded, patience=_PATIENCE, every=0.2)


async def _claims(urls: Sequence[str], *, churn: Sequence[int]) -> list[float]:
    """By journal: the median of the seconds to claim 500 of 10,000 pending and to settle them, in turn with the others. `churn`:
    so many were settled just before.
    """
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(contents.opened(url)) for url in urls]
        for url, store, count in zip(urls, stores, churn, strict=True):
            if count:
                await contents.fill(url, count, start=2 * 10**9)
                await contents.settle(store)
            await contents.fill(url, 10_000 + _CLAIMS * _CLAIM)
        rounds = [[await _claim(store) for store in stores] for _ in range(_CLAIMS)]
    return [statistics.median(took) for took in zip(*rounds, strict=True)]


async def _claim(store: Journal) -> float:
    began = time.perf_counter()
    entries = await store.claim(_CLAIM, lease=LEASE)
    done = Attempt(at=contents.T0, outcome=Outcome.FORWARDED, events=1)
    await store.settle([Settlement(seq=e.seq, token=e.token, state=State.FORWARDED, attempt=done) for e in entries])
    took = time.perf_counter() - began
    assert len(entries) == _CLAIM  # noqa: S101 - or nothing was measured
    return took
