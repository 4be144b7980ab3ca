"""Reads the bodies of requests, all of them together in bounded memory, whoever sends them and however slowly.

None of them is verified yet, so a stranger may open as many connections as we take. Where memory runs short, whoever has
been sending for longest is cut off: a provider's body is here within milliseconds.
"""

from __future__ import annotations

import asyncio

from aiohttp import StreamReader

# Bytes of bodies that are not whole yet. A provider's largest is 1 MiB, most are a few KiB and come in one piece.
_MOST = 64 << 20


class Bodies:
    """One for all that is read at the same time. `within`: seconds a body has."""

    def __init__(self, *, within: float, most: int = _MOST) -> None:
        self._within = within
        self._room = most
        self._held: dict[asyncio.Timeout, int] = {}
        """Bytes of each body that is being read, the oldest first."""

    async def read(self, content: StreamReader, limit: int) -> bytes:
        """A body, or of a longer one more than `limit` bytes. Raises TimeoutError where it takes too long."""
        if content.is_eof():  # it came with the headers: nothing to wait for
            return content.read_nowait()
        chunks: list[bytes] = []
        size = 0
        async with asyncio.timeout(self._within) as deadline:
            self._held[deadline] = 0
            try:
                while size <= limit and (chunk := await content.readany()):
                    chunks.append(chunk)
                    size += len(chunk)
                    self._hold(deadline, len(chunk))
            finally:
                self._room += self._held.pop(deadline, 0)
        return b"".join(chunks)

    def _hold(self, deadline: asyncio.Timeout, more: int) -> None:
        if deadline not in self._held:  # cut off already, and a piece came meanwhile
            raise TimeoutError
        self._held[deadline] += more
        self._room -= more
        while self._room < 0:
            oldest = next(iter(self._held))
            self._room += self._held.pop(oldest)
            oldest.reschedule(asyncio.get_running_loop().time())
