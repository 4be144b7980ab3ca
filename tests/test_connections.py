"""What a connection to the public listener may take of time and memory, and who gives way where room runs short."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web
from malformed import CHUNKED, Webhook
from receiving import BODIES, Receiving, another, answer, connection, listening, receiving
from service import until

from bridge import connections, listeners, roles

START = b"POST /webhooks/stripe HTTP/1.1"


@pytest.fixture
async def bridge(tmp_path: Path) -> AsyncIterator[Receiving]:
    async with receiving(tmp_path) as found:
        yield found
        assert (await found.post("stripe", BODIES["stripe"])).status == 200, "and it goes on serving"
        assert not [line for line in found.log() if line["level"] == "error"]


def webhook(bridge: Receiving, n: int = 1) -> Webhook:
    body = another("stripe", n)
    return Webhook(bridge.signed("stripe", body), body)


def good(bridge: Receiving, n: int = 1) -> bytes:
    return webhook(bridge, n).asking(START)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    with suppress(ConnectionError):
        return await reader.read() == b""
    return True


async def test_a_second_head_has_no_more_time_than_the_first(bridge: Receiving) -> None:
    """It had an hour, as long as a connection may be idle between two requests."""
    async with (
        asyncio.timeout(10),
        connection(bridge.port) as (reader, writer),
        connection(bridge.port) as (idle_reader, idle),
    ):
        for each, its in ((writer, reader), (idle, idle_reader)):
            each.write(good(bridge))
            assert (await answer(its)).status == 200
        dropping = asyncio.create_task(bridge.server.drop_the_silent(within=0.2))
        closed = asyncio.create_task(is_closed(reader))
        for byte in good(bridge):
            with suppress(ConnectionError):
                writer.write(bytes([byte]))
            if (await asyncio.wait([closed], timeout=0.05))[0]:
                break
        assert closed.done()
        idle.write(good(bridge))
        assert (await answer(idle_reader)).status == 200, "who begins no request may take its time"
        dropping.cancel()


async def test_one_head_after_the_other_that_came_in_two_pieces_is_in_time(bridge: Receiving) -> None:
    """Whenever it is looked at a head is on its way, but never the same."""
    async with asyncio.timeout(10), connection(bridge.port) as (reader, writer):
        dropping = asyncio.create_task(bridge.server.drop_the_silent(within=0.2))
        for n in range(10):
            raw = good(bridge, n)
            writer.write(raw[:30])
            await asyncio.sleep(0.08)
            writer.write(raw[30:])
            assert (await answer(reader)).status == 200
        dropping.cancel()


@pytest.mark.parametrize("wrong", [b"zz\r\n", b"3\r\nabcdef\r\n", b"-1\r\n"])
async def test_a_body_whose_chunks_are_none_is_not_waited_for(bridge: Receiving, wrong: bytes) -> None:
    """Where they came after the head, it was: until its time was over, and then it was counted as slow."""
    async with asyncio.timeout(5), connection(bridge.port) as (reader, writer):
        writer.write(webhook(bridge).head(CHUNKED))
        await until(lambda: bridge.server.connections and bridge.server.connections[0]._current_request)
        writer.write(wrong)
        assert (await answer(reader)).status == 400
        assert await is_closed(reader)
    assert bridge.count("bridge_rejections_total", source="stripe", reason="cut_off") == 1


async def test_a_head_over_32_kib_is_too_long_however_it_comes(bridge: Receiving) -> None:
    """Each of its lines is short enough: a megabyte of them would be taken, from each connection."""
    lines = [b"X: " + b"a" * 1000] * 100
    for fitting, status in ((30, 200), (40, 431)):
        head, body = webhook(bridge).head(*lines[:fitting], webhook(bridge).length), webhook(bridge).body
        async with asyncio.timeout(10), connection(bridge.port) as (reader, writer):
            answered = asyncio.create_task(answer(reader))
            for at in range(0, len(head + body), 4000):
                writer.write((head + body)[at : at + 4000])
                if (await asyncio.wait([answered], timeout=0.05))[0]:
                    break
            assert (await answered).status == status


async def test_where_there_are_too_many_connections_the_oldest_that_brought_nothing_gives_way(
    bridge: Receiving,
) -> None:
    server = roles.public_server(bridge.receiver, most=3)
    async with asyncio.timeout(10), AsyncExitStack() as stack, listening(web.ServerRunner(server)) as port:
        served, served_writer = await stack.enter_async_context(connection(port))
        served_writer.write(good(bridge))
        assert (await answer(served)).status == 200
        silent = [(await stack.enter_async_context(connection(port)))[0] for _ in range(4)]
        assert await is_closed(silent[0]) and await is_closed(silent[1])
        served_writer.write(good(bridge))
        assert (await answer(served)).status == 200
        await until(lambda: len(server.connections) == 3)
        assert not silent[2].at_eof() and not silent[3].at_eof()
    assert [line["reason"] for line in bridge.log() if line["event"] == "connection.crowded_out"] == ["connections"]


async def test_where_all_connections_are_in_use_another_is_closed_at_once(bridge: Receiving) -> None:
    server = roles.public_server(bridge.receiver, most=1)
    async with (
        asyncio.timeout(10),
        listening(web.ServerRunner(server)) as port,
        connection(port) as (served, writer),
    ):
        for _ in range(2):
            writer.write(good(bridge))
            assert (await answer(served)).status == 200
            async with connection(port) as (reader, _):
                assert await is_closed(reader)
        await until(lambda: len(server.connections) == 1)
        assert server._held == 0 and not server._owing


async def test_heads_that_are_not_whole_share_their_room(bridge: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_MOST_HEADS", 1000)
    whole = webhook(bridge).asking(START, b"X: " + b"a" * 500)
    async with asyncio.timeout(10), AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(connection(bridge.port)) for _ in range(4)]
        for n, (_, writer) in enumerate(opened):
            writer.write(whole[:300])
            await until(partial(_holds, bridge.server, 300 * min(n + 1, 3)))
        assert await is_closed(opened[0][0])
        opened[3][1].write(whole[300:])
        assert (await answer(opened[3][0])).status == 200
        assert bridge.server._held == 600, "what is whole takes none of it"


def _holds(server: connections.Server, size: int) -> bool:
    return server._held == size


def _narrow(server: connections.Server) -> None:
    """So that little is on its way between us and who takes nothing."""
    for transport in server._connections.values():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


async def _never_read(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(0)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return sock


@asynccontextmanager
async def _sending_for_ever(sock: socket.socket, row: bytes) -> AsyncIterator[None]:
    async def send() -> None:
        with suppress(ConnectionError):
            while True:
                await asyncio.get_running_loop().sock_sendall(sock, row)

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        sending.cancel()
        await asyncio.wait([sending])


async def test_who_takes_no_answers_is_given_no_more_of_them(bridge: Receiving) -> None:
    """A webhook that holds, over and over again: the answers to it were kept without end."""
    with await _never_read(bridge.port) as sock:
        await until(lambda: bridge.server.connections)
        _narrow(bridge.server)
        [(protocol, transport)] = bridge.server._connections.items()
        async with _sending_for_ever(sock, good(bridge) * 100):
            await until(lambda: protocol.writing_paused)
            kept = transport.get_write_buffer_size()
            await asyncio.sleep(2)
            assert transport.get_write_buffer_size() == kept < 70_000
            assert (await bridge.post("stripe", BODIES["stripe"])).status == 200, "others are answered"


async def test_who_takes_no_answers_is_let_go(bridge: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "_TAKEN_WITHIN", 1000)
    server = roles.public_server(bridge.receiver)
    runner = web.ServerRunner(server)
    await runner.setup()
    bound = listeners.bind("127.0.0.1", 0)
    await web.SockSite(runner, bound).start()
    with await _never_read(bound.getsockname()[1]) as sock:
        await until(lambda: server.connections)
        _narrow(server)
        async with _sending_for_ever(sock, good(bridge) * 100):
            await until(lambda: not server.connections)
    await runner.cleanup()


async def test_a_server_that_leaves_closes_who_asks_nothing_and_hears_out_who_does(bridge: Receiving) -> None:
    server = roles.public_server(bridge.receiver)
    async with (
        asyncio.timeout(10),
        listening(web.ServerRunner(server)) as port,
        connection(port) as (idle, idle_writer),
        connection(port) as (asking, writer),
    ):
        idle_writer.write(good(bridge))
        assert (await answer(idle)).status == 200
        whole = good(bridge, 2)
        writer.write(whole[:50])
        await until(lambda: len(server.connections) == 2)
        leaving = asyncio.create_task(server.take_leave(idle=0.1, busy=60))
        assert await is_closed(idle)
        writer.write(whole[50:])
        answered = await answer(asking)
        assert (answered.status, answered.headers["connection"]) == (200, "close")
        await leaving
