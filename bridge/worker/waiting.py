"""Awaits what asynchronous transforms give, several at once. Loaded when the first one is met: asyncio takes 7 MB."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from bridge.model import Event, Outcome
from bridge.transform import Made, Result, failed, listed

# Deliveries of one batch under way at once: what a provider's API takes of one client without complaint.
_AT_ONCE = 16


class Waiting:
    """One event loop for the life of the process, so that a transform may keep a client open."""

    def __init__(self, *, time_limit: float) -> None:
        self._runner = asyncio.Runner()
        self._time_limit = time_limit

    def run(
        self,
        awaitables: Sequence[tuple[int, Awaitable[Made]]],
        done: Callable[[int, list[Event] | Result], None],
    ) -> None:
        """Call `done` with a place and what came of it, as each is finished."""
        self._runner.run(self._run(awaitables, done))

    async def _run(
        self,
        awaitables: Sequence[tuple[int, Awaitable[Made]]],
        done: Callable[[int, list[Event] | Result], None],
    ) -> None:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(place: int, awaitable: Awaitable[Made]) -> None:
            async with slots:
                done(place, await self._finish(awaitable))

        await asyncio.gather(*(one(place, awaitable) for place, awaitable in awaitables))

    async def _finish(self, awaitable: Awaitable[Made]) -> list[Event] | Result:
        try:
            async with asyncio.timeout(self._time_limit) as limit:
                return listed(await awaitable)
        except TimeoutError as error:
            if limit.expired():
                return Result(outcome=Outcome.STUCK, error=f"the transform took longer than {self._time_limit:g} s")
            return failed(error)
        except BaseException as error:  # noqa: BLE001 - the user's code: also CancelledError, where it awaited a task somebody cancelled
            return failed(error)
