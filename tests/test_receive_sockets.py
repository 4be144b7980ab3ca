"""Senders that speak HTTP badly, slowly, or not at all: answered with what they deserve, or dropped, and never heard of again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from receiving import BODIES, LIMIT, Receiving, answer, connection, receiving, request

BODY = BODIES["stripe"]
CANARY = b"canary-in-the-request"


@pytest.fixture
async def bridge(tmp_path: Path) -> AsyncIterator[Receiving]:
    async with receiving(tmp_path, read_timeout=0.2) as found:
        yield found
        served = await found.post("stripe", BODY)
        assert served.status == 200, "and it goes on serving"
    logged = found.logged.getvalue()
    assert "Traceback" not in logged and CANARY.decode() not in logged and BODY.decode() not in logged
    assert not [line for line in found.log() if line["level"] == "error"]


def good(bridge: Receiving, body: bytes = BODY, **headers: str | bytes) -> bytes:
    return request("POST", "/webhooks/stripe", {**bridge.signed("stripe", body), **headers}, body)


async def counted(bridge: Receiving, reason: str) -> None:
    async with asyncio.timeout(10):
        while not bridge.count("bridge_rejections_total", source="stripe", reason=reason):
            await asyncio.sleep(0.01)


async def test_requests_in_a_row_on_one_connection_are_answered_in_order(bridge: Receiving) -> None:
    second = BODY.replace(b"evt_1", b"evt_2")
    row = (good(bridge), good(bridge, second), good(bridge))
    async with connection(bridge.port) as (reader, writer):
        writer.write(b"".join(row))
        assert [(await answer(reader)).status for _ in row] == [200, 200, 200]
    assert [entry.id for entry in await bridge.entries()] == ["evt_1", "evt_2"]


async def test_the_answer_to_what_is_stored_is_short_and_dated(bridge: Receiving) -> None:
    async with connection(bridge.port) as (reader, writer):
        for body in (BODY, BODY.replace(b"evt_1", b"evt_2")):
            writer.write(good(bridge, body))
            answered = await answer(reader)
            assert set(answered.headers) == {"content-length", "date"}
            assert abs(parsedate_to_datetime(answered.headers["date"]).timestamp() - time.time()) < 5


@pytest.mark.parametrize("asked", ["1.0", "close"])
async def test_whoever_wants_no_further_answer_has_the_connection_closed(bridge: Receiving, asked: str) -> None:
    one = good(bridge, Connection="close") if asked == "close" else good(bridge).replace(b"HTTP/1.1", b"HTTP/1.0")
    async with asyncio.timeout(10), connection(bridge.port) as (reader, writer):
        writer.write(one)
        assert (await answer(reader)).status == 200
        assert await reader.read() == b""


STRANGERS = {
    "no signature": request("POST", "/webhooks/stripe", {}, b"{}"),
    "no such source": request("POST", "/webhooks/nobody", {}, b"{}"),
    "elsewhere": request("POST", "/", {}, b"{}"),
    "another method": request("PUT", "/webhooks/stripe", {}, b"{}"),
    "is it there": request("HEAD", "/webhooks/stripe", {}),
    "is it alive": request("GET", "/healthz", {}),
    "an expectation": request("POST", "/webhooks/stripe", {"Expect": "wonders"}, b"{}"),
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
async def test_a_stranger_has_one_answer_a_connection(bridge: Receiving, stranger: bytes) -> None:
    """Who sends requests and reads no answers would have us hold what follows."""
    async with connection(bridge.port) as (reader, writer):
        writer.write(stranger + good(bridge))
        await reader.read()
    assert await bridge.entries() == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_cut_off_in_the_middle_is_counted_and_not_stored(bridge: Receiving, chunked: bool) -> None:  # noqa: FBT001 - pytest's
    cut = good(bridge)[:-20]
    if chunked:
        headers = bridge.signed("stripe", BODY) | {"Transfer-Encoding": "chunked"}
        cut = request("POST", "/webhooks/stripe", headers) + b"ff\r\n" + BODY
    async with connection(bridge.port) as (_, writer):
        writer.write(cut)
        await writer.drain()
    await counted(bridge, "cut_off")
    assert await bridge.entries() == []


async def test_a_sender_of_a_byte_now_and_then_is_cut_off(bridge: Receiving) -> None:
    async with asyncio.timeout(10), connection(bridge.port) as (reader, writer):
        writer.write(good(bridge)[: -len(BODY)])
        answered = asyncio.create_task(answer(reader))
        for byte in BODY:  # each in good time, had each a time of its own
            writer.write(bytes([byte]))
            await asyncio.wait([answered], timeout=0.05)
            if answered.done():
                break
        assert (await answered).status == 408
        assert await reader.read() == b"", "and the connection is closed"
    await counted(bridge, "too_slow")
    assert await bridge.entries() == []


async def test_what_is_announced_too_large_is_refused_before_it_is_sent(bridge: Receiving) -> None:
    announced = good(bridge).replace(b"Content-Length: %d" % len(BODY), b"Content-Length: 209715200")
    refused = await bridge.ask(announced)
    assert refused.status == 413


async def test_an_endless_chunked_body_is_cut(bridge: Receiving) -> None:
    headers = bridge.signed("stripe", BODY) | {"Transfer-Encoding": "chunked"}
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    async with asyncio.timeout(20), connection(bridge.port) as (reader, writer):
        writer.write(request("POST", "/webhooks/stripe", headers))
        answered = asyncio.create_task(answer(reader))
        sent = 0
        while not answered.done():
            writer.write(chunk)
            sent += len(chunk)
            await writer.drain()
        assert (await answered).status == 413
        assert sent < LIMIT + (16 << 20), "what the sockets hold, and no more"
        with pytest.raises(ConnectionError):
            await _send_for_ever(writer, chunk)


async def _send_for_ever(writer: asyncio.StreamWriter, chunk: bytes) -> None:
    while True:
        writer.write(chunk)
        await writer.drain()


def _conflicting(raw: bytes) -> bytes:
    return raw.replace(b"Content-Length:", b"Content-Length: 5\r\nContent-Length:")


FRAMING: dict[str, Callable[[bytes], bytes]] = {
    "two lengths": _conflicting,
    "a length and chunks": lambda raw: raw.replace(
        b"Content-Length:", b"Transfer-Encoding: chunked\r\nContent-Length:"
    ),
    "a negative length": lambda raw: raw.replace(b"Content-Length: ", b"Content-Length: -"),
    "a length with a plus": lambda raw: raw.replace(b"Content-Length: ", b"Content-Length: +"),
    "a length that is no number": lambda raw: raw.replace(b"Content-Length: ", b"Content-Length: " + CANARY),
    "a length in full-width digits": lambda raw: raw.replace(b"Content-Length: ", "Content-Length: １".encode()),
    "a length of 40 digits": lambda raw: raw.replace(b"Content-Length: ", b"Content-Length: " + b"9" * 40),
    "chunks that are none": lambda raw: raw.replace(b"Content-Length:", b"Transfer-Encoding: chunked\r\nX-Was:"),
    "an unknown transfer encoding": lambda raw: raw.replace(b"Content-Length:", b"Transfer-Encoding: br\r\nX-Was:"),
    "a header without a colon": lambda raw: raw.replace(b"Host: ", CANARY + b"\r\nHost: "),
    "a header folded over lines": lambda raw: raw.replace(b"Host: ", b"X-Folded: a\r\n " + CANARY + b"\r\nHost: "),
    "a space before the colon": lambda raw: raw.replace(b"Host: ", b"X-Odd : " + CANARY + b"\r\nHost: "),
    "a NUL in a header": lambda raw: raw.replace(b"Host: ", b"X-Odd: a\0" + CANARY + b"\r\nHost: "),
    "ten thousand headers": lambda raw: raw.replace(b"Host: ", b"X: y\r\n" * 10_000 + b"Host: "),
    "another version": lambda raw: raw.replace(b"HTTP/1.1", b"HTTP/9.9"),
    "a version that is none": lambda raw: raw.replace(b"HTTP/1.1", CANARY),
    "a method that is none": lambda raw: raw.replace(b"POST", b"\xe9\xff"),
    "a target that is none": lambda raw: raw.replace(b"/webhooks/stripe", b"http://[::1"),
    "a target of bytes": lambda raw: raw.replace(b"/webhooks/stripe", b"/webhooks/\xff\xfe"),
    "a target of percents": lambda raw: raw.replace(b"/webhooks/stripe", b"/webhooks/%ff%00%zz%2f.."),
    "a target of 64 KiB": lambda raw: raw.replace(b"/webhooks/stripe", b"/webhooks/" + CANARY * 3200),
    "no host": lambda raw: raw.replace(b"Host: bridge.test\r\n", b""),
    "an expectation nobody meets": lambda raw: raw.replace(b"Host: ", b"Expect: " + CANARY + b"\r\nHost: "),
    "an expectation that is no text": lambda raw: raw.replace(b"Host: ", b"Expect: \xff\r\nHost: "),
    "HTTP/2 from the start": lambda _: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "a TLS greeting": lambda _: bytes.fromhex("1603010200010001fc0303") + bytes(range(256)) * 2,
    "garbage": lambda _: CANARY + b"\xe9\xff\0\r\n\r\n",
    "a line without end": lambda _: b"A" * 100_000,
}


@pytest.mark.parametrize("distorted", FRAMING.values(), ids=FRAMING)
async def test_what_is_not_quite_http_is_refused_and_never_a_server_error(
    bridge: Receiving, distorted: Callable[[bytes], bytes]
) -> None:
    assert (await bridge.ask(distorted(good(bridge)))).status in {400, 401, 404, 417}
    assert await bridge.entries() == []


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
async def test_an_offer_to_upgrade_is_ignored(bridge: Receiving, protocol: str) -> None:
    """Java's client makes one with every request."""
    assert (await bridge.ask(good(bridge, Connection="Upgrade, HTTP2-Settings", Upgrade=protocol))).status == 200
    assert len(await bridge.entries()) == 1


async def test_who_connects_and_brings_no_request_is_shut_out_and_nobody_else(bridge: Receiving) -> None:
    """One that dawdled over its first line was kept for ever: a few thousand of them kept out everybody."""
    async with (
        asyncio.timeout(10),
        connection(bridge.port) as (reader, writer),
        connection(bridge.port) as (slow, slows),
    ):
        slows.write(good(bridge)[:50])
        dropping = asyncio.create_task(bridge.server.drop_the_silent(within=0.1))
        writer.write(good(bridge))
        assert (await answer(reader)).status == 200
        with suppress(ConnectionError):
            assert await slow.read() == b""
        writer.write(good(bridge))
        assert (await answer(reader)).status == 200, "between two requests one may pause"
        dropping.cancel()


async def test_an_expectation_to_be_told_to_go_on_is_met(bridge: Receiving) -> None:
    raw = good(bridge, Expect="100-continue")
    async with asyncio.timeout(10), connection(bridge.port) as (reader, writer):
        writer.write(raw[: -len(BODY)])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert (await answer(reader)).status == 200


async def test_one_of_http_1_0_is_not_told_to_go_on(bridge: Receiving) -> None:
    """It would take that for the answer (RFC 9110, 10.1.1)."""
    raw = good(bridge, Expect="100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert (await bridge.ask(raw)).status == 200


async def test_a_request_with_a_few_wrong_bytes_is_never_a_server_error(bridge: Receiving) -> None:
    dice = random.Random(20260101)

    def spoiled() -> bytes:
        raw = bytearray(good(bridge))
        for _ in range(dice.randint(1, 4)):
            at, piece = dice.randrange(len(raw)), dice.randbytes(dice.randint(0, 3))
            raw[at : at + dice.randint(0, 3)] = dice.choice([piece, b"\r\n", b"\0", b":", b" ", b"\xe9\xff"])
        return bytes(raw)

    async def status(raw: bytes) -> int:
        try:
            return (await bridge.ask(raw, patience=1)).status
        except TimeoutError:  # its headers have no end
            return 0

    for _ in range(4):
        row = [spoiled() for _ in range(100)]
        answered = await asyncio.gather(*map(status, row))
        assert set(answered) <= {0, 200, 400, 401, 404, 405, 408, 413, 417}
    assert bridge.count("bridge_deliveries_total", source="stripe", outcome="rejected") > 50
    assert {entry.id for entry in await bridge.entries()} <= {"evt_1"}, "only what was signed"
