"""Reads the bodies of requests, all that are on their way together in bounded memory, whoever sends them and however slowly.

None of them is verified yet, so a stranger may open as many connections as we take. Where memory runs short, whoever has
been sending for longest is crowded out: a provider's body is here within milliseconds.
"""

from __future__ import annotations

import asyncio

from aiohttp import StreamReader

# Bytes of bodies that are not whole yet. A provider's largest is 1 MiB, most are a few KiB and come in one piece.
_MOST = 64 << 20


class CrowdedOut(Exception):
    """The room was needed for others."""


class Bodies:
    """One for all that is read at the same time. `within`: seconds a body has."""

    def __init__(self, *, within: float, most: int = _MOST) -> None:
        self._within = within
        self._room = most
        self._held: dict[asyncio.Timeout, int] = {}
        """Bytes of each body that is being read, the oldest first."""

    async def read(self, content: StreamReader, limit: int) -> bytes:
        """A body, or of a longer one more than `limit` bytes. Raises TimeoutError where it takes too long, or CrowdedOut."""
        deadline = asyncio.timeout(self._within)
        self._held[deadline] = 0
        try:
            async with deadline:
                return await self._read(content, limit, deadline)
        except TimeoutError:
            if deadline in self._held:
                raise
            raise CrowdedOut from None
        finally:
            self._room += self._held.pop(deadline, 0)

    async def _read(self, content: StreamReader, limit: int, deadline: asyncio.Timeout) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while size <= limit and (chunk := await content.readany()):
            chunks.append(chunk)
            size += len(chunk)
            self._hold(deadline, len(chunk))
        return b"".join(chunks)

    def _hold(self, deadline: asyncio.Timeout, more: int) -> None:
        if deadline not in self._held:  # crowded out already, and a piece came meanwhile
            raise TimeoutError
        self._held[deadline] += more
        self._room -= more
        while self._room < 0:
            oldest = next(iter(self._held))
            self._room += self._held.pop(oldest)
            if not oldest.expired():  # its own time may have ended in this very turn of the loop
                oldest.reschedule(asyncio.get_running_loop().time())
