"""Stands before the Event API: open, or shut after a failure; then one request at a time tries it, ever more rarely.

An outage, or a configuration fault, is nobody's fault: it uses up no entry's attempts, so there is no other limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import random

from bridge import retry


class Gate:
    """`held` is called with a reason when a configuration fault shuts it, and with an empty one when it opens again."""

    def __init__(self, *, held: Callable[[str], None], dice: Callable[[], float] = random) -> None:
        self._held = held
        self._dice = dice
        self._failures = 0
        self._until = 0.0
        self._one = asyncio.Lock()
        self.reason = ""
        """Why it is shut. Empty: open."""

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """One request to the Event API goes inside. Shut: waits until it is this one's turn to try."""
        if not self._failures:
            yield
            return
        async with self._one:
            if self._failures:
                await asyncio.sleep(self._until - asyncio.get_running_loop().time())
            yield

    def open(self) -> None:
        """It answered as it should."""
        if self._failures:
            self._failures, self.reason = 0, ""
            self._held("")

    def shut(self, reason: str, *, policy: retry.Policy, retry_after: float | None = None) -> float:
        """It failed. `retry_after`: seconds it asked for. How long nothing will be sent: seconds."""
        self._failures += 1
        self.reason = reason
        if policy is retry.MISCONFIGURED:  # a time-out after it mends nothing: it holds until the gate opens
            self._held(reason)
        wait = (retry.delay(policy, attempt=self._failures, dice=self._dice()) or 0) / 1000
        if retry_after is not None:
            wait = max(wait, retry_after)
        self._until = asyncio.get_running_loop().time() + wait
        return wait
