"""The real service under attack: what the tests ask of it meanwhile, and what must hold when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from malformed import CANARY, Webhook
from service import SECRETS, Service, delivery, elapsed, service

from bridge import providers
from bridge.clock import wall_clock
from bridge.stand_in import StandIn

MB = 1e6
# Seconds a webhook may take at worst; with a machine to itself it is a hundredth of that.
SOON = 3.0


@dataclass(slots=True)
class Target:
    """The service, and what an attack may not do to it."""

    service: Service
    receiver: psutil.Process
    took: list[float] = field(default_factory=list)
    """Seconds until a webhook was answered, of all there were."""

    @property
    def port(self) -> int:
        return int(self.service.public.rpartition(":")[2])

    @property
    def private_port(self) -> int:
        return int(self.service.private.rpartition(":")[2])

    def memory(self) -> float:
        return float(self.receiver.memory_info().rss)

    def peak(self) -> float:
        """Bytes it had at most since `survives` began."""
        lines = Path(f"/proc/{self.receiver.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith("VmHWM:"))

    def _forget_peak(self) -> None:
        Path(f"/proc/{self.receiver.pid}/clear_refs").write_text("5")

    async def serves(self) -> None:
        since = elapsed()
        assert (await self.service.post(delivery(f"served{len(self.took)}"))).status == 200
        self.took.append(since())
        assert self.took[-1] < SOON

    async def serves_until(self, over: Callable[[], bool]) -> None:
        while not over():
            await self.serves()
            assert (await self.service.ready()).status == 200
            await asyncio.sleep(0.1)

    def webhook(self, id_: str) -> Webhook:
        body = delivery(id_)
        scheme = providers.load()["stripe"].scheme
        return Webhook(scheme.sign(body, secret=SECRETS["STRIPE_WEBHOOK_SECRET"].encode(), now=wall_clock()), body)

    def good(self, id_: str) -> bytes:
        return self.webhook(id_).asking(b"POST /webhooks/stripe HTTP/1.1")

    async def stored(self) -> set[str]:
        """The ids, but for those of `serves`."""
        return {id_ for id_ in await self.service.entries() if "served" not in id_}

    def crowded_out(self) -> set[str]:
        return {line["reason"] for line in self.service.log() if line["event"] == "connection.crowded_out"}

    @asynccontextmanager
    async def survives(self) -> AsyncIterator[None]:
        await self.serves()
        self._forget_peak()
        before, self.service.logged = self.memory(), ""
        yield
        await self.serves()
        assert (await self.service.ready()).status == 200
        assert self.service.child("receiver") == self.receiver.pid, "it is the same process still"
        assert self.peak() < before + 150 * MB
        assert not [line for line in self.service.log() if line["level"] == "error"]
        assert len(self.service.log()) < 100, "what strangers cause is a line a second"
        assert CANARY.decode() not in self.service.logged


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Target]:
    api = StandIn()
    await api.start()
    async with service(folder, api.url) as running:
        yield Target(running, psutil.Process(running.child("receiver")))
    await api.stop()
