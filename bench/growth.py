"""What a journal's size costs: new, with many settled entries, with many pending ones; and the start after a SIGKILL."""

from __future__ import annotations

import asyncio
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from postgres import Cluster
from processes import descendants
from processes import send as send_signal

from bench import contents, subjects
from bench.contents import LEASE
from bench.load import send
from bench.rows import Note, Row
from bench.sink import sink
from bench.throughput import JOURNALS
from bridge.journal import Journal
from bridge.model import Attempt, Outcome, Settlement, State

_CLAIMS = 30
_CLAIM = 500
_SIZE = 700
# Deliveries sent for a figure: some seconds.
_SENT = 20_000
# Settled entries whose dead rows no vacuum has taken yet: a minute at 800 a second.
_CHURN = 50_000


async def growth(cluster: Cluster, *, settled: int, pending: int, note: Note) -> list[Row]:
    """Rows `growth`, by subject, settled and pending entries."""
    rows: list[Row] = []
    for kind, name in JOURNALS.items():
        for state in ((0, 0), (settled // 50, 0), (settled, 0), (0, pending)):
            row: Row = {"figure": "growth", "subject": name, "settled": state[0], "pending": state[1]}
            with tempfile.TemporaryDirectory(prefix="bridge-bench-") as name_of_folder:
                folder = Path(name_of_folder)
                url, roots = subjects.new_journal(kind, cluster, folder)
                await contents.stock(url, settled=state[0], pending=state[1])
                note(f"{name}, {state[0]:,} settled, {state[1]:,} pending: stocked")
                row |= await _started(folder, url, roots)
                note(f"{name}, {state[0]:,} settled, {state[1]:,} pending: received")
                if not state[1]:
                    row |= await _forwarded(folder, url, roots)
                row["claim_and_settle"] = await _claims(url, churn=_CHURN if state[0] else 0)
                note(f"{name}, {state[0]:,} settled, {state[1]:,} pending: claimed")
            rows.append(row)
    return rows


def steps() -> int:
    """How many notes that gives."""
    return len(JOURNALS) * 4 * 3


async def _started(folder: Path, url: str, roots: Sequence[int]) -> Row:
    """Memory, what is acknowledged, and how long it takes from the start after a SIGKILL under load until it is ready."""
    async with sink(delay=3600) as silent, subjects.bridge("", folder, url, silent.url, *roots) as (subject, running):
        await asyncio.sleep(3)
        memory = subjects.subject_of(running, "").memory()  # PostgreSQL's own is its settings'
        await send(subject.load(name="growth warming", count=_SENT // 4, size=_SIZE))
        told = await send(subject.load(name="growth", count=_SENT, size=_SIZE))
        send_signal(signal.SIGKILL, [running.pid, *descendants(running.pid)])
        await running.wait()
        began = time.monotonic()
        await running.start()
        return {"memory": memory, "rate": told["rate"], "ack_p99": told["p99"], "ready": time.monotonic() - began}


async def _forwarded(folder: Path, url: str, roots: Sequence[int]) -> Row:
    """End to end while receiving."""
    async with sink() as taking, subjects.bridge("", folder, url, taking.url, *roots) as (subject, _):
        await taking.arrivals(_SENT + _SENT // 4)  # those of the last step
        told = await send(subject.load(name="growth end to end", count=_SENT, size=_SIZE))
        arrived = await taking.arrivals(_SENT)
        return {"end_to_end": _SENT / (max(arrived.values()) - told["began"])}


async def _claims(url: str, *, churn: int) -> float:
    """Seconds to claim 500 of 10,000 pending and to settle them. `churn`: so many were settled just before."""
    async with contents.opened(url) as store:
        if churn:
            await contents.fill(url, churn, start=2 * 10**9)
            await contents.settle(store)
        await contents.fill(url, 10_000 + _CLAIMS * _CLAIM)
        took = [await _claim(store) for _ in range(_CLAIMS)]
    return statistics.median(took)


async def _claim(store: Journal) -> float:
    began = time.perf_counter()
    entries = await store.claim(_CLAIM, lease=LEASE)
    done = Attempt(at=contents.T0, outcome=Outcome.FORWARDED, events=1)
    await store.settle([Settlement(seq=e.seq, token=e.token, state=State.FORWARDED, attempt=done) for e in entries])
    took = time.perf_counter() - began
    assert len(entries) == _CLAIM  # noqa: S101 - or nothing was measured
    return took
