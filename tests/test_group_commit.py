"""Group commit, with a disk that does what the test says."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from math import inf

import pytest

from bridge.errors import JournalUnavailable
from bridge.journal.group_commit import GroupCommit

MIB, KIB = 1 << 20, 1 << 10
# What a row counts for beside its body.
ROW = KIB
DISKS: list[Disk] = []


@pytest.fixture(autouse=True)
async def all_are_answered() -> AsyncIterator[None]:
    """Nobody who waits can be cancelled: a test that fails would hang."""
    yield
    for disk in DISKS:
        while disk.written and not disk.written[-1].done():
            disk.written[-1].set_result(frozenset())
            await disk.settle()
    DISKS.clear()


class Disk:
    """Its commits end when the test ends them."""

    def __init__(self, *, patience: float = inf) -> None:
        self.batches: list[list[str]] = []
        self.written: list[asyncio.Future[frozenset[int]]] = []
        self.committed = 0
        self.now = 0.0
        DISKS.append(self)
        self.commits = GroupCommit[str](self.write, committed=self.count, patience=patience, clock=lambda: self.now)

    def write(self, rows: Sequence[str]) -> asyncio.Future[frozenset[int]]:
        self.batches.append(list(rows))
        self.written.append(asyncio.get_running_loop().create_future())
        return self.written[-1]

    def count(self) -> None:
        self.committed += 1

    def append(self, row: str, size: int = 1) -> asyncio.Task[bool]:
        return asyncio.create_task(self.commits.append(row, size=size))

    async def finish(self, after: float, error: str = "") -> int:
        """The commit that is on its way ends then. How many rows it had."""
        self.now += after
        written, batch = self.written[-1], self.batches[-1]
        if error:
            written.set_exception(JournalUnavailable(error))
        else:
            written.set_result(frozenset())
        await self.settle()
        return len(batch)

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
    waiting = [disk.append(f"{n}", 16 * MIB - ROW) for n in range(4)]
    await disk.settle()
    with pytest.raises(JournalUnavailable, match="64 MiB"):
        await disk.commits.append("one too many", size=1)
    disk.written[0].set_result(frozenset())
    assert await asyncio.gather(*waiting) == [True] * 4
    task = disk.append("room again", 64 * MIB - ROW)
    await disk.settle()
    disk.written[1].set_result(frozenset())
    assert await task


async def test_a_failed_batch_makes_room_too() -> None:
    disk = Disk()
    task = disk.append("a", 64 * MIB - ROW)
    await disk.settle()
    disk.written[0].set_exception(JournalUnavailable("no"))
    with pytest.raises(JournalUnavailable, match="no"):
        await task
    again = disk.append("b", 64 * MIB - ROW)
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


async def test_a_batch_is_no_larger_than_can_be_written_in_time() -> None:
    disk, sizes = Disk(patience=2), list[int]()
    for _ in range(12):  # more arrives than can be stored, each time: 1 MiB takes two seconds
        for n in range(40):
            disk.append(f"{n}", 63 * KIB)
        await disk.settle()
        rows = len(disk.batches[-1])
        took = min(rows / 8, 2.0)
        sizes.append(await disk.finish(took, "too slow" if took == 2 else ""))
    assert sizes[0] == 40
    assert max(sizes[4:]) <= 12, "with time to spare"
    assert min(sizes) >= 2, "but they are no smaller than they have to be"


async def test_what_is_written_quickly_again_is_written_in_large_batches_again() -> None:
    disk = Disk(patience=2)
    task = disk.append("a", 1 * MIB)
    await disk.settle()
    await disk.finish(1.9)
    assert await task
    for _ in range(3):
        tasks = [disk.append("b", 1 * MIB) for _ in range(20)]
        await disk.settle()
        while not disk.written[-1].done():
            most = await disk.finish(0.01)
        assert await asyncio.gather(*tasks) == [True] * 20
    assert most == 20


@pytest.mark.parametrize("usual", [0.1, 0.4, 0.8])
async def test_a_stall_is_forgotten_where_a_commit_takes_long_whatever_its_size(usual: float) -> None:
    disk = Disk(patience=2)
    task = disk.append("a", 1)
    await disk.settle()
    await disk.finish(1.9)
    assert await task
    for _ in range(40):
        tasks = [disk.append("b", 16 * KIB) for _ in range(40)]
        await disk.settle()
        await disk.finish(usual)
    while not disk.written[-1].done():
        await disk.finish(usual)
    assert await asyncio.gather(*tasks) == [True] * 40


async def test_what_waits_for_longer_than_anybody_does_is_told_why_and_not_written() -> None:
    disk = Disk(patience=2)
    first = disk.append("a")
    await disk.settle()
    late = disk.append("b")
    await disk.settle()
    await disk.finish(2, "does not answer")
    for task in (first, late):
        with pytest.raises(JournalUnavailable, match="does not answer"):
            await task
    assert disk.batches == [["a"]]
    await disk.commits.drain()
    after = disk.append("c")
    await disk.settle()
    assert await disk.finish(0.1) == 1
    assert await after


async def test_where_more_arrives_than_can_be_stored_it_is_said() -> None:
    disk = Disk(patience=2)
    first = disk.append("a", 63 * KIB)
    await disk.settle()
    await disk.finish(1.5)  # now a batch is one of these
    assert await first
    tasks = [disk.append(f"{n}", 63 * KIB) for n in range(4)]
    await disk.settle()
    await disk.finish(1.5)
    await disk.finish(1.5)
    verdicts = await asyncio.gather(*tasks, return_exceptions=True)
    assert verdicts[:2] == [True, True]
    assert [str(each) for each in verdicts[2:]] == ["more arrives than can be stored"] * 2
    await disk.commits.drain()


async def test_a_batch_has_so_many_rows_that_one_statement_takes_them() -> None:
    disk = Disk()
    tasks = [disk.append(f"{n}") for n in range(1200)]
    await disk.settle()
    while not disk.written[-1].done():
        await disk.finish(0.01)
    assert await asyncio.gather(*tasks) == [True] * 1200
    assert [len(batch) for batch in disk.batches] == [512, 512, 176]
