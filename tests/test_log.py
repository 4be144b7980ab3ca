"""Logs: one JSON object a line on a pipe, readable on a terminal, and never what a stranger sent."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import redirect_stderr
from typing import Any

import pytest
from aiohttp import web
from receiving import logging_into

from bridge import log

SECRET = b"v1=NeverInALog"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What stands for standard error, with our logging configured on it."""
    written = io.StringIO()
    with logging_into(written):
        yield written


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_on_a_pipe_a_line_is_an_object_with_its_time_level_process_event_and_fields(stream: io.StringIO) -> None:
    log.info("service.started", public="0.0.0.0:8080")
    log.warning("entry.dead", id="evt_1", attempts=3)
    log.error("journal.unavailable", reason='two\nlines and a "quote"')
    first, second, third = lines(stream)
    assert first.pop("at").endswith("+00:00")
    assert first == {"level": "info", "process": "receiver", "event": "service.started", "public": "0.0.0.0:8080"}
    assert (second["level"], second["attempts"]) == ("warning", 3)
    assert (third["level"], third["reason"]) == ("error", 'two\nlines and a "quote"')


def test_a_process_without_a_name_says_none(stream: io.StringIO) -> None:
    with redirect_stderr(stream):
        log.configure()
    log.info("a.b")
    assert set(lines(stream)[0]) == {"at", "level", "event"}


@pytest.mark.parametrize("value", ["not UTF-8: \udcff", 1 << 70, {1: 2}, object(), float("nan"), b"\xff"])
def test_no_value_costs_a_line(stream: io.StringIO, value: object) -> None:
    log.info("a.b", value=value)
    assert lines(stream)[0]["event"] == "a.b"


def said_on_a_terminal(script: str) -> str:
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", script], stderr=theirs, check=True)
    os.close(theirs)
    said = os.read(ours, 65_536).decode()
    os.close(ours)
    return said


def test_on_a_terminal_it_is_readable_and_a_strangers_text_does_not_steer_it() -> None:
    script = r"""
from bridge import log
log.configure("receiver")
log.info("service.started", public="127.0.0.1:8080")
log.error("delivery.failed", reason="\x1b[2J\u009b31m\rgone\nforged \u202e\udcff")
"""
    first, second = said_on_a_terminal(script).splitlines()
    assert "\033[32minfo" in first
    assert "service.started" in first and first.endswith("\033[0m127.0.0.1:8080")
    assert "\033[31merror" in second
    assert second.endswith('\033[0m"\ufffd[2J\ufffd31m\ufffdgone\ufffdforged \ufffd\ufffd"')


GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\nStripe-Signature: t=1," + SECRET + b"\x00\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nStripe-Signature " + SECRET + b"\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + SECRET + b"\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n" + SECRET,
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + SECRET + b"\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nX: " + SECRET * 5000 + b"\r\n\r\n",
    SECRET + b"\x00\xff / HTTP/9.9\r\n\r\n",
    b"GET http://[" + SECRET + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00" + SECRET + b"\r\n\r\n",
]


async def _send(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def _read_all(request: web.Request) -> web.Response:
    await request.read()
    return web.Response()


async def _fail(request: web.Request) -> web.Response:
    raise RuntimeError(request.headers["Stripe-Signature"])


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Of a server that reads every body, but fails at `/fail`."""
    app = web.Application()
    app.add_routes([web.get("/fail", _fail), web.route("*", "/{tail:.*}", _read_all)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.mark.parametrize("request_", GARBAGE)
async def test_what_is_no_http_is_answered_400_and_leaves_no_line(
    stream: io.StringIO, port: int, request_: bytes
) -> None:
    assert (await _send(port, request_)).startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert stream.getvalue() == ""


async def test_what_a_handler_raises_is_a_line_without_its_text(stream: io.StringIO, port: int) -> None:
    """aiohttp's own has the traceback, and this one quotes a header."""
    failing = b"GET /fail HTTP/1.1\r\nHost: x\r\nStripe-Signature: " + SECRET + b"\r\nConnection: close\r\n\r\n"
    assert (await _send(port, failing)).startswith(b"HTTP/1.1 500")
    [line] = lines(stream)
    assert (line["event"], line["logger"], line["error"]) == ("library.message", "aiohttp.server", "RuntimeError")
    assert SECRET.decode() not in stream.getvalue()


async def test_what_asyncio_has_to_say_is_a_line_without_its_text(stream: io.StringIO) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": SECRET.decode(), "exception": ValueError("secret")})
    [line] = lines(stream)
    assert (line["event"], line["level"], line["error"]) == ("library.message", "error", "ValueError")
    assert SECRET.decode() not in stream.getvalue()


def test_what_strangers_can_cause_is_one_line_a_second_with_how_many_it_stands_for(stream: io.StringIO) -> None:
    now = [100.0]
    sparing = log.Sparing("delivery.rejected", clock=lambda: now[0])
    for at in (100.0, 100.1, 100.9, 101.0, 101.5, 103.0):
        now[0] = at
        sparing.warning(source="stripe", reason="mismatch")
    assert [(line["event"], line["reason"], line["count"]) for line in lines(stream)] == [
        ("delivery.rejected", "mismatch", 1),
        ("delivery.rejected", "mismatch", 3),
        ("delivery.rejected", "mismatch", 2),
    ]


def test_another_reason_or_source_has_a_line_of_its_own(stream: io.StringIO) -> None:
    sparing = log.Sparing("delivery.rejected", clock=lambda: 0.0)
    for source in ("stripe", "slack"):
        for reason in ("missing", "missing", "mismatch"):
            sparing.error(source=source, reason=reason)
    assert [(line["level"], line["source"], line["reason"], line["count"]) for line in lines(stream)] == [
        ("error", "stripe", "missing", 1),
        ("error", "stripe", "mismatch", 1),
        ("error", "slack", "missing", 1),
        ("error", "slack", "mismatch", 1),
    ]
