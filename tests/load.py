"""Webhooks without end, for the tests of the service that something happens to meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from service import Service, delivery

# Seconds between two on one connection that is kept, as a proxy in front has dozens: so that there are some on which
# nothing is said when the receiver leaves.
_PAUSES = (0.0, 0.02, 0.3, 1.5)


@asynccontextmanager
async def load(
    to: Service, *, connections: int = 4, kept: int = 0, first: int = 0, unanswered: list[str] | None = None
) -> AsyncIterator[set[str]]:
    """Deliveries without end, each with an id of its own: the ids of those that were answered 200.

    `kept`: so many senders more, each of whom keeps its connection. `unanswered`: filled with the others' ids.
    """
    acknowledged: set[str] = set()
    numbers = itertools.count(first)

    async def send(session: aiohttp.ClientSession | None = None, pause: float = 0) -> None:
        while True:
            n = next(numbers)
            answered = await to.post(delivery(n), session=session)
            if answered.status == 200:
                acknowledged.add(f"evt_{n}")
            elif unanswered is not None:
                unanswered.append(f"evt_{n}: {answered.status}")
            if answered.status == 0 or pause:
                await asyncio.sleep(pause or 0.01)

    async def keep(pause: float) -> None:
        async with aiohttp.ClientSession() as session:
            await send(session, pause)

    sending = [asyncio.create_task(send()) for _ in range(connections)]
    sending += [asyncio.create_task(keep(pause)) for pause in itertools.islice(itertools.cycle(_PAUSES), kept)]
    try:
        yield acknowledged
    finally:
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
