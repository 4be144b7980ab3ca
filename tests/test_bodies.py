"""Bodies of requests are read in bounded memory, and whoever is slow pays for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from bridge.bodies import Bodies, CrowdedOut


class Sender:
    """The other end of a body."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        connection = BaseProtocol(loop)
        connection.connection_made(asyncio.Transport())
        self.content = StreamReader(connection, 1 << 16, loop=loop)

    async def send(self, size: int, *, last: bool = False) -> None:
        self.content.feed_data(b"x" * size)
        if last:
            self.content.feed_eof()
        await asyncio.sleep(0.001)


async def test_a_body_is_read_whole_in_however_many_pieces_it_comes() -> None:
    sender, bodies = Sender(), Bodies(within=10, most=100)
    reading = asyncio.create_task(bodies.read(sender.content, 50))
    for _ in range(4):
        await sender.send(10)
    await sender.send(10, last=True)
    assert await reading == b"x" * 50


async def test_of_one_that_is_too_long_enough_is_read_to_see_it() -> None:
    sender = Sender()
    await sender.send(60)
    assert 50 < len(await Bodies(within=10, most=100).read(sender.content, 50)) <= 60


async def test_one_that_takes_too_long_is_cut_off() -> None:
    with pytest.raises(TimeoutError):
        await Bodies(within=0.01).read(Sender().content, 50)


async def test_where_memory_runs_short_who_sends_for_longest_is_crowded_out_and_the_others_are_read() -> None:
    bodies = Bodies(within=10, most=100)
    slow = [Sender() for _ in range(10)]
    reading = [asyncio.create_task(bodies.read(each.content, 50)) for each in slow]
    for each in slow:
        await each.send(10)
    assert not any(task.done() for task in reading), "there is room for all of these"
    quick = Sender()
    wanted = asyncio.create_task(bodies.read(quick.content, 50))
    await asyncio.sleep(0)
    await quick.send(25)
    await quick.send(5, last=True)
    assert await wanted == b"x" * 30
    assert [isinstance(task.exception(), CrowdedOut) if task.done() else None for task in reading] == [
        *[True] * 3,
        *[None] * 7,
    ]
    for each in slow[3:]:
        await each.send(1, last=True)
    assert [len(await task) for task in reading[3:]] == [11] * 7


async def test_what_was_read_or_given_up_makes_room_again() -> None:
    bodies = Bodies(within=10, most=100)
    for _ in range(10):
        kept, left = Sender(), Sender()
        reading = [asyncio.create_task(bodies.read(each.content, 90)) for each in (kept, left)]
        await kept.send(40)
        await left.send(40)
        reading[1].cancel()
        await kept.send(1, last=True)
        assert len(await reading[0]) == 41


async def test_one_whose_own_time_ends_in_the_same_moment_harms_nobody() -> None:
    """Bytes and a timer that is due come out of one look at what happened, the bytes first."""
    bodies = Bodies(within=10, most=100)
    slow, quick = Sender(), Sender()
    reading = [asyncio.create_task(bodies.read(each.content, 200)) for each in (slow, quick)]
    await slow.send(60)
    oldest: Any = next(iter(bodies._held))
    quick.content.feed_data(b"x" * 60)
    oldest._on_timeout()  # what the loop does when it is due
    await quick.send(1, last=True)
    assert len(await reading[1]) == 61
    with pytest.raises(CrowdedOut):
        await reading[0]
    assert (bodies._room, bodies._held) == (100, {})


async def test_who_was_crowded_out_and_sends_on_is_not_counted_again() -> None:
    bodies = Bodies(within=10, most=100)
    slow, quick = Sender(), Sender()
    reading = [asyncio.create_task(bodies.read(each.content, 200)) for each in (slow, quick)]
    await slow.send(60)
    quick.content.feed_data(b"x" * 60)
    await slow.send(60, last=True)
    with pytest.raises(CrowdedOut):
        await reading[0]
    await quick.send(1, last=True)
    assert len(await reading[1]) == 61
    assert (bodies._room, bodies._held) == (100, {})
