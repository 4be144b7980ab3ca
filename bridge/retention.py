"""Forgets what is finished and old, in small steps, while everything else goes on."""

from __future__ import annotations

import asyncio

from bridge import log
from bridge.errors import JournalUnavailable
from bridge.journal import Journal
from bridge.settings import RetentionSettings

_DAY = 86_400_000
# Rows a step: a few milliseconds of the journal's time, which the receiver shares.
STEP = 200
BETWEEN_STEPS = 0.05
_BETWEEN_ROUNDS = 60.0


class Pruner:
    """One a service: in the forwarder, which has the journal open and time to spare."""

    def __init__(self, *, journal: Journal, retention: RetentionSettings) -> None:
        self._journal = journal
        self._retention = retention

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                more = await self.step()
            except JournalUnavailable as unavailable:
                log.warning("prune.failed", reason=str(unavailable))
                more = False
            await asyncio.sleep(BETWEEN_STEPS if more else _BETWEEN_ROUNDS)

    async def step(self, *, now: int | None = None) -> bool:
        """Whether there may be more to forget. `now`, in ms, is for tests."""
        kept = self._retention
        return await self._journal.prune(bodies=kept.bodies * _DAY, ids=kept.ids * _DAY, limit=STEP, now=now) > 0
