"""A forwarder with a real journal and real workers, and a stand-in for the Event API alone: for the tests of forwarding."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from bridge import providers
from bridge.clock import wall_clock
from bridge.event_api import EventApi
from bridge.forward import Forwarder
from bridge.gate import Gate
from bridge.journal import Journal
from bridge.journal.sqlite.journal import SqliteJournal
from bridge.metrics import Metrics
from bridge.model import Attempt, Delivery, Entry, Selection, Source, State, WebhookRequest
from bridge.send import Sender
from bridge.stand_in import StandIn
from bridge.verify import verify
from bridge.worker.client import Worker, WorkerSettings

TRANSFORM = """
import os
import time
from bridge import Event, Retry
from transforms.stripe import transform as builtin

def transform(delivery):
    match delivery.type:
        case "test.loop":
            while True:
                pass
        case "test.exit":
            os._exit(1)
        case "test.skip":
            return None
        case "test.raise":
            raise LookupError("quotes the payload")
        case "test.later":
            raise Retry("not yet", after=0)
        case "test.slow":
            time.sleep(0.1)
        case "test.three":
            return [Event(name="test/one"), Event(name="test/two"), Event(name="test/one")]
    return builtin(delivery)
"""


def delivery(n: int, type_: str = "customer.created") -> Delivery:
    payload = {
        "id": f"evt_{n}",
        "object": "event",
        "type": type_,
        "created": 1_700_000_000,
        "data": {"object": {"n": n}},
    }
    body, now = orjson.dumps(payload), wall_clock()
    provider = providers.load()["stripe"]
    source = Source(name="stripe", provider="stripe", prefix="stripe", secrets=(b"s",))
    request = WebhookRequest(headers=provider.scheme.sign(body, secret=b"s", now=now), body=body, received_at=now)
    made = verify(request, source=source, provider=provider, now=now)
    assert isinstance(made, Delivery)
    return made


@dataclass
class Bench:
    """A forwarder with all it needs, and what the tests ask of it."""

    store: Journal
    stand_in: StandIn
    forwarder: Forwarder
    sender: Sender
    gate: Gate
    metrics: Metrics

    async def append(self, *types: str, first: int = 0) -> None:
        for n, type_ in enumerate(types):
            await self.store.append(delivery(first + n, type_))

    async def entries(self) -> dict[str, Entry]:
        return {entry.id: entry for entry in await self.store.find(Selection(), limit=1000)}

    async def states(self) -> dict[str, State]:
        return {id_: entry.state for id_, entry in sorted((await self.entries()).items())}

    async def attempts(self, id_: str) -> list[Attempt]:
        return list(await self.store.attempts((await self.entries())[id_].seq))

    async def until(self, wanted: Callable[[dict[str, State]], bool]) -> dict[str, State]:
        """Run the forwarder until the states are as wanted."""
        running = asyncio.create_task(self.forwarder.run(grace=0.1))
        async with asyncio.timeout(30):
            while not wanted(states := await self.states()):
                await asyncio.sleep(0.01)
        self.forwarder.stop()
        await running
        return states


@asynccontextmanager
async def bench(
    tmp_path: Path, *, time_limit: float = 0.3, clock: Callable[[], int] = wall_clock, **limits: int
) -> AsyncIterator[Bench]:
    (tmp_path / "transforms").mkdir(parents=True, exist_ok=True)
    (tmp_path / "transforms" / "stripe.py").write_text(TRANSFORM)
    settings = WorkerSettings(directories=(tmp_path / "transforms",), max_event_bytes=100_000, time_limit=time_limit)
    stand_in, metrics = StandIn(), Metrics()
    store = SqliteJournal(tmp_path / "bridge.db")
    company, alone = Worker(settings), Worker(settings)
    gate = Gate(held=lambda _: None, dice=lambda: 0.0)
    await stand_in.start()
    async with EventApi(dev=True, base_url=stand_in.url, timeout=2) as api:
        sender = Sender(
            api=api,
            gate=gate,
            metrics=metrics,
            max_batch_events=limits.get("events", 100),
            max_batch_bytes=limits.get("bytes", 512_000),
        )
        forwarder = Forwarder(
            journal=store,
            sender=sender,
            company=company,
            alone=alone,
            metrics=metrics,
            time_limit=time_limit,
            answer_limit=2,
            clock=clock,
            dice=lambda: 0.0,
        )
        yield Bench(store=store, stand_in=stand_in, forwarder=forwarder, sender=sender, gate=gate, metrics=metrics)
    await asyncio.gather(company.stop(), alone.stop(), stand_in.stop())
    await store.close()


def finished(states: dict[str, State]) -> bool:
    return all(state is not State.PENDING for state in states.values())
