"""Group commit, with a disk that does what the test says."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

import pytest

from bridge.errors import JournalUnavailable
from bridge.journal.group_commit import GroupCommit

MIB = 1 << 20


class Disk:
    """Its commits end when the test ends them."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.written: list[asyncio.Future[frozenset[int]]] = []
        self.committed = 0
        self.commits = GroupCommit[str](self.write, committed=self.count)

    def write(self, rows: Sequence[str]) -> asyncio.Future[frozenset[int]]:
        self.batches.append(list(rows))
        self.written.append(asyncio.get_running_loop().create_future())
        return self.written[-1]

    def count(self) -> None:
        self.committed += 1

    def append(self, row: str, size: int = 1) -> asyncio.Task[bool]:
        return asyncio.create_task(self.commits.append(row, size=size))

    async def settle(self) -> None:
        """Let everything happen that can happen before a commit ends."""
        for _ in range(5):
            await asyncio.sleep(0)


async def test_one_commit_takes_all_that_arrived_during_the_last() -> None:
    disk = Disk()
    first = [disk.append(row) for row in "ab"]
    await disk.settle()
    later = [disk.append(row) for row in "cdef"]
    await disk.settle()
    assert disk.batches == [["a", "b"]]
    disk.written[0].set_result(frozenset())
    assert await asyncio.gather(*first) == [True, True]
    assert disk.batches == [["a", "b"], ["c", "d", "e", "f"]]
    disk.written[1].set_result(frozenset({1, 3}))
    assert await asyncio.gather(*later) == [True, False, True, False]


async def test_nobody_is_answered_before_the_commit() -> None:
    disk = Disk()
    task = disk.append("a")
    await disk.settle()
    assert not task.done()
    disk.written[0].set_result(frozenset())
    assert await task


async def test_a_waiter_that_is_cancelled_takes_nobody_with_it() -> None:
    disk = Disk()
    a, b = disk.append("a"), disk.append("b")
    await disk.settle()
    a.cancel()
    await disk.settle()
    disk.written[0].set_result(frozenset())
    assert await b
    with pytest.raises(asyncio.CancelledError):
        await a
    assert disk.batches == [["a", "b"]]


async def test_all_of_a_batch_learn_why_it_failed_and_the_next_goes_on() -> None:
    disk = Disk()
    failing = [disk.append(row) for row in "abc"]
    await disk.settle()
    disk.written[0].set_exception(JournalUnavailable("the disk is full"))
    answers = await asyncio.gather(*failing, return_exceptions=True)
    assert [(type(answer), str(answer)) for answer in answers] == [(JournalUnavailable, "the disk is full")] * 3
    task = disk.append("d")
    await disk.settle()
    disk.written[1].set_result(frozenset())
    assert await task


async def test_a_failure_nobody_waits_for_makes_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    task = disk.append("a")
    await disk.settle()
    task.cancel()
    disk.written.pop().set_exception(JournalUnavailable("the disk is full"))
    with pytest.raises(asyncio.CancelledError):
        await task
    del task, disk
    gc.collect()
    await asyncio.sleep(0)
    assert not caplog.records


async def test_only_so_much_waits_and_the_rest_is_refused_at_once() -> None:
    disk = Disk()
    waiting = [disk.append(f"{n}", 16 * MIB) for n in range(4)]
    await disk.settle()
    with pytest.raises(JournalUnavailable, match="64 MiB"):
        await disk.commits.append("one too many", size=1)
    disk.written[0].set_result(frozenset())
    assert await asyncio.gather(*waiting) == [True] * 4
    task = disk.append("room again", 64 * MIB)
    await disk.settle()
    disk.written[1].set_result(frozenset())
    assert await task


async def test_a_failed_batch_makes_room_too() -> None:
    disk = Disk()
    task = disk.append("a", 64 * MIB)
    await disk.settle()
    disk.written[0].set_exception(JournalUnavailable("no"))
    with pytest.raises(JournalUnavailable, match="no"):
        await task
    again = disk.append("b", 64 * MIB)
    await disk.settle()
    disk.written[1].set_result(frozenset())
    assert await again


async def test_draining_waits_for_what_was_accepted() -> None:
    disk = Disk()
    await disk.commits.drain()
    a = disk.append("a")
    await disk.settle()
    draining_a = asyncio.create_task(disk.commits.drain())
    await disk.settle()
    b = disk.append("b")
    await disk.settle()
    draining_b = asyncio.create_task(disk.commits.drain())
    await disk.settle()
    assert not draining_a.done()
    disk.written[0].set_result(frozenset())
    await disk.settle()
    assert draining_a.done() and not draining_b.done()
    disk.written[1].set_result(frozenset())
    await draining_b
    assert await a and await b


async def test_only_what_is_new_is_announced() -> None:
    disk = Disk()
    announced = []
    for duplicates in ({0}, set(), {1}):
        tasks = [disk.append(row) for row in ("ab" if duplicates == {1} else "a")]
        await disk.settle()
        disk.written[-1].set_result(frozenset(duplicates))
        await asyncio.gather(*tasks)
        announced.append(disk.committed)
    assert announced == [0, 1, 2]


async def test_a_commit_that_was_cut_short_acknowledges_nothing() -> None:
    disk = Disk()
    task = disk.append("a")
    await disk.settle()
    disk.written[0].cancel()
    with pytest.raises(JournalUnavailable, match="closing"):
        await task
