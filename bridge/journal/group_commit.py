"""One commit for everything that arrived while the last commit was on its way to the disk.

A disk that syncs 400 times a second then stores thousands of deliveries a second, each durable before it is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Generic, TypeVar

from bridge.errors import JournalUnavailable

Row = TypeVar("Row")

# Bytes that wait. A disk that stands still for a moment fits in; one that stands still for longer must not take the
# process's memory: the provider comes again.
_MOST_WAITING = 64 << 20
# Bytes of a batch, where writing is slow: at least.
_LEAST = 64 << 10
# What a row costs beside its body.
_ROW = 1 << 10
# Rows of a batch: larger ones save nothing more, and a statement that took them all would have no bound.
_MOST_ROWS = 512


class GroupCommit(Generic[Row]):
    """`write` stores a batch, durable and in one transaction, and gives the places of those that were there already. What is
    wrong is the future's exception: it never raises itself.

    `check_open` is called before a row is taken, and raises JournalUnavailable where none is any more. `committed` is called
    after each commit that stored something new. `patience`: seconds after which a write fails. A batch
    is then only as large as can be written in a part of it, and what has waited as long as that is refused: where more
    arrives than can be stored, as much as can be is, and not nothing.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Row]], asyncio.Future[frozenset[int]]],
        *,
        committed: Callable[[], None],
        check_open: Callable[[], None] = lambda: None,
        patience: float = inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._committed = committed
        self._check_open = check_open
        self._patience = patience
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Batch[Row]] = deque()
        self._last = _Batch[Row](self._loop, self._clock())
        self._busy = False
        self._waiting = 0
        self._limit = _MOST_WAITING

    async def append(self, row: Row, *, size: int) -> bool:
        """As `Journal.append`. A waiter that is cancelled leaves when its batch is done; the batch and the others stay."""
        self._check_open()
        size += _ROW
        if self._waiting + size > _MOST_WAITING:
            raise JournalUnavailable(f"{self._waiting >> 20} MiB of deliveries are waiting to be stored already")
        if not (self._queue and self._queue[-1].has_room(size, self._limit)):
            self._queue.append(_Batch(self._loop, self._clock()))
        batch = self._last = self._queue[-1]
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
            await self._last.verdict

    def _flush(self) -> None:
        batch = self._queue.popleft()
        self._write(batch.rows).add_done_callback(partial(self._flushed, batch, self._clock()))

    def _flushed(self, batch: _Batch[Row], began: float, written: asyncio.Future[frozenset[int]]) -> None:
        error = JournalUnavailable("the journal is closing") if written.cancelled() else written.exception()
        self._waiting -= batch.size
        self._learn(batch, self._clock() - began)
        self._refuse_late(error or JournalUnavailable("more arrives than can be stored"))
        if self._queue:
            self._flush()  # before anybody is answered: the disk works meanwhile
        else:
            self._busy = False
        batch.verdict.set_result(error or written.result())
        if error is None and len(written.result()) < len(batch.rows):
            self._committed()

    def _learn(self, batch: _Batch[Row], took: float) -> None:
        """How much can be written at once, with time to spare: what takes long may do so whatever its size, so try more again."""
        if took > self._patience / 2:
            self._limit = max(_LEAST, min(self._limit, batch.size // 2))
        else:
            more = self._limit if took < self._patience / 4 else self._limit // 4
            self._limit = min(self._limit + more, _MOST_WAITING)

    def _refuse_late(self, error: BaseException) -> None:
        """Those who would wait for longer than anybody does."""
        while self._queue and self._clock() - self._queue[0].began >= self._patience:
            late = self._queue.popleft()
            self._waiting -= late.size
            late.verdict.set_result(error)


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
    began: float
    rows: list[Row] = field(default_factory=list)
    size: int = 0
    verdict: _Verdict = field(init=False)

    def __post_init__(self) -> None:
        self.verdict = _Verdict(loop=self.loop)

    def has_room(self, size: int, limit: int) -> bool:
        return self.size + size <= limit and len(self.rows) < _MOST_ROWS

    def add(self, row: Row, size: int) -> int:
        self.rows.append(row)
        self.size += size
        return len(self.rows) - 1
