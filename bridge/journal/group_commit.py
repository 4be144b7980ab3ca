"""One commit for everything that arrived while the last commit was on its way to the disk.

A disk that syncs 400 times a second then stores thousands of deliveries a second, each durable before it is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from bridge.errors import JournalUnavailable

Row = TypeVar("Row")

# Bytes of bodies that wait. A disk that stands still for a moment fits in; one that stands still for longer must not
# take the process's memory: the provider comes again.
_MOST_WAITING = 64 << 20


class GroupCommit(Generic[Row]):
    """`write` stores a batch, durable and in one transaction, and gives the places of those that were there already.

    `committed` is called after each commit that stored something new.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Row]], asyncio.Future[frozenset[int]]],
        *,
        committed: Callable[[], None],
    ) -> None:
        self._write = write
        self._committed = committed
        self._loop = asyncio.get_running_loop()
        self._open = self._last = _Batch[Row](self._loop)
        self._busy = False
        self._waiting = 0

    async def append(self, row: Row, *, size: int) -> bool:
        """As `Journal.append`. A waiter that is cancelled leaves when its batch is done; the batch and the others stay."""
        if self._waiting + size > _MOST_WAITING:
            raise JournalUnavailable(f"{self._waiting >> 20} MiB of deliveries are waiting for the disk already")
        batch = self._open
        place = batch.add(row, size)
        self._waiting += size
        if not self._busy:
            self._busy = True
            # Not at once: others who are ready in this turn of the loop come along.
            self._loop.call_soon(self._flush)
        verdict = await batch.verdict
        if isinstance(verdict, BaseException):
            raise JournalUnavailable(str(verdict)) from verdict
        return place not in verdict

    async def drain(self) -> None:
        """Return when everything accepted so far is committed, or has failed."""
        if self._busy:
            await (self._open if self._open.rows else self._last).verdict

    def _flush(self) -> None:
        batch, self._open = self._open, _Batch[Row](self._loop)
        self._last = batch
        self._write(batch.rows).add_done_callback(partial(self._flushed, batch))

    def _flushed(self, batch: _Batch[Row], written: asyncio.Future[frozenset[int]]) -> None:
        self._waiting -= batch.size
        if self._open.rows:
            self._flush()  # before anybody is answered: the disk works meanwhile
        else:
            self._busy = False
        if written.cancelled():
            batch.verdict.set_result(JournalUnavailable("the journal is closing"))
            return
        batch.verdict.set_result(written.exception() or written.result())
        if written.exception() is None and len(written.result()) < len(batch.rows):
            self._committed()


class _Verdict(asyncio.Future[frozenset[int] | BaseException]):
    """Shared by all who wait for a batch, so none of them may cancel it.

    An error is its result, not its exception: one exception, raised in many tasks, gathers the tracebacks of all.
    """

    def cancel(self, msg: object = None) -> bool:
        del msg
        return False


@dataclass(slots=True)
class _Batch(Generic[Row]):
    loop: asyncio.AbstractEventLoop
    rows: list[Row] = field(default_factory=list)
    size: int = 0
    verdict: _Verdict = field(init=False)

    def __post_init__(self) -> None:
        self.verdict = _Verdict(loop=self.loop)

    def add(self, row: Row, size: int) -> int:
        self.rows.append(row)
        self.size += size
        return len(self.rows) - 1
