"""Webhooks without end, for the tests of the service that something happens to meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service import Service, delivery


@asynccontextmanager
async def load(to: Service, *, connections: int = 4, first: int = 0) -> AsyncIterator[set[str]]:
    """Deliveries without end, each with an id of its own: the ids of those that were answered 200."""
    acknowledged: set[str] = set()
    numbers = itertools.count(first)

    async def send() -> None:
        while True:
            n = next(numbers)
            answered = await to.post(delivery(n))
            if answered.status == 200:
                acknowledged.add(f"evt_{n}")
            elif answered.status == 0:
                await asyncio.sleep(0.01)

    sending = [asyncio.create_task(send()) for _ in range(connections)]
    try:
        yield acknowledged
    finally:
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
