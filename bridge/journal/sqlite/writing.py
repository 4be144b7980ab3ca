"""The receiver's side of the writer: started when there is something to append, and again after it was lost."""

from __future__ import annotations

import asyncio
import marshal
from collections.abc import Sequence
from pathlib import Path

from bridge.companion import Companion
from bridge.errors import JournalUnavailable
from bridge.journal.rows import Row
from bridge.journal.sqlite.writer import LENGTH, message

# Seconds a batch may take: longer than anybody waits for an answer. A disk that stands still for so long is no better
# with another writer, but one that was stopped by somebody is.
_PATIENCE = 10.0


class Writer:
    """One batch at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._companion: Companion | None = None

    async def append(self, rows: Sequence[Row]) -> frozenset[int]:
        """As `appends.append`. Raises JournalUnavailable."""
        try:
            async with asyncio.timeout(_PATIENCE):
                said = await self._ask(rows)
        except TimeoutError:
            await self.stop()
            raise JournalUnavailable(f"{self._path}: nothing was written for {_PATIENCE:g} s") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise JournalUnavailable(f"{self._path}: the process that writes it {await self.stop()}") from None
        except OSError as error:  # no more processes, or files
            raise JournalUnavailable(f"{self._path}: no process to write it can be started: {error.strerror}") from None
        if isinstance(said, str):
            raise JournalUnavailable(said)
        return said

    async def stop(self) -> str:
        """How it ended."""
        companion, self._companion = self._companion, None
        return "was not there" if companion is None else await companion.stop()

    async def _ask(self, rows: Sequence[Row]) -> frozenset[int] | str:
        if self._companion is None:
            self._companion = await Companion.start("bridge.journal.sqlite.writer", str(self._path))
        self._companion.writer.write(message(list(rows)))
        [length] = LENGTH.unpack(await self._companion.reader.readexactly(LENGTH.size))
        said: frozenset[int] | str = marshal.loads(await self._companion.reader.readexactly(length))  # noqa: S302 - from a process of ours
        return said
