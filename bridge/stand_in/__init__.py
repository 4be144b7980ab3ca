"""A stand-in for the Event API, on this machine: answers as the real one was seen to, and misbehaves on demand.

`bridge dev` sends to it where no dev server runs; the tests have no other Event API. Recordings of a real server hold it
to the truth: `tests/recordings/event-api.jsonl`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote

from aiohttp import web

from bridge.stand_in.intake import Intake, take, ulids

# How much is kept of what came in, the newest: a stand-in may run for days.
EVENTS_KEPT = 10_000
REQUESTS_KEPT = 1_000
_PAGE = "<!DOCTYPE html><html><head><title>Stand-in for the Event API</title></head><body></body></html>\n"
_JSON, _HTML = "application/json", "text/html; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Answers this, and accepts nothing."""

    status: int = 500
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hang:
    """Never answers, and accepts nothing, until the stand-in is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Drops the connection without an answer, before or after accepting the events."""

    accepting: bool = False


@dataclass(frozen=True, slots=True)
class CutOff:
    """Accepts the events, and resets the connection in the midst of its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Short:
    """Answers 200 and leaves out the last so many ids; not `taking`: it has not accepted those events either."""

    by: int = 1
    taking: bool = True


Behaviour: TypeAlias = Refuse | Hang | Reset | CutOff | Short
EMPTY = Refuse(status=200)
PAGE = Refuse(status=200, body=_PAGE, headers={"Content-Type": _HTML})


class Request(NamedTuple):
    """What came in, and the status of the answer; 0: there was none."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int


class StandIn:
    """Takes any key, as the dev server does; with a `key`, only that one, as a server in production.

    `events`: what was accepted, in its order. `misbehave`: one behaviour for each of the next requests with events;
    `always`: for those behind them. `on_event` is called with every event accepted.
    """

    def __init__(self, *, key: str | None = None, on_event: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self.requests: list[Request] = []
        self.accepted = self.asked = 0
        """How many events and requests there were, also those no longer kept."""
        self.misbehave: list[Behaviour] = []
        self.always: Behaviour | None = None
        self.unwanted: dict[str, str] = {}
        """Names of events that are refused for good, as a bad one is, and what is said of them."""
        self._key = key
        self._on_event = on_event
        self._news = asyncio.Condition()
        self._never = asyncio.Event()  # held here: what waits for nothing that anybody holds is collected as garbage
        self._runner: web.ServerRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self, port: int = 0, *, host: str = "127.0.0.1") -> None:
        """Listen; 0: on any free port. Raises OSError where the port is taken. `host`: for others than this machine."""
        # No access log: the path holds the key.
        server = web.Server(self._serve, access_log=None, auto_decompress=False)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        self._runner, self._port = runner, runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening, and drop every connection. It can be started again, on the same port too."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def received(self, count: int) -> list[dict[str, Any]]:
        """The events, once at least so many were accepted since the beginning."""
        async with self._news:
            await self._news.wait_for(lambda: self.accepted >= count)
        return list(self.events)

    async def requested(self, count: int) -> list[Request]:
        """The requests with events, once there were at least so many since the beginning, answered or not."""
        async with self._news:
            await self._news.wait_for(lambda: self.asked >= count)
        return list(self.requests)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        match path.split("/"):
            case ["", "e", key] if key and request.method == "POST":
                response = await self._take(request, path, unquote(key))
            case ["", "e", key] if key:
                response = web.Response(status=405, headers={"Allow": "POST"})
            case ["", "e", _] | ["", "e", _, ""]:
                response = web.Response(status=303, headers={"Location": path.removesuffix("/")})
            case ["", "health"] if request.method == "GET":
                response = _say(200, _line({"status": 200, "message": "OK"}), _JSON)
            case ["", "dev"] if request.method == "GET" and self._key is None:
                response = _say(200, _line({"functions": [], "handlers": []}), _JSON)
            case ["", "dev"] if request.method == "GET":
                response = _say(404, "404 page not found\n")
            case _:
                response = _say(200, _PAGE, _HTML)
        response.headers["X-Inngest-Server-Kind"] = "dev" if self._key is None else "cloud"
        return response

    async def _take(self, request: web.BaseRequest, path: str, key: str) -> web.StreamResponse:
        behaviour = self.misbehave.pop(0) if self.misbehave else self.always
        if behaviour is None and self._key not in {None, key}:  # before the body is read
            await self._note(request, path, b"", 401)
            return _say(401, _line({"status": 401, "message": "", "error": "Event key not found"}), _JSON)
        body = await request.content.read()
        match behaviour:
            case Refuse(status=status, body=text, headers=headers):
                await self._note(request, path, body, status)
                return web.Response(status=status, body=text.encode(), headers={"Content-Type": _TEXT, **headers})
            case Hang() | Reset(accepting=False):
                await self._note(request, path, body, 0)
                if isinstance(behaviour, Hang):
                    await self._never.wait()  # until the handler is cancelled
                return _dropped(request)
        left = behaviour.by if isinstance(behaviour, Short) and not behaviour.taking else 0
        answer = await self._accept(body, request.headers.get("x-inngest-event-id-seed", ""), left)
        if isinstance(behaviour, Short) and behaviour.taking:
            del answer["ids"][max(len(answer["ids"]) - behaviour.by, 0) :]
        await self._note(request, path, body, 0 if isinstance(behaviour, Reset | CutOff) else answer["status"])
        match behaviour:
            case Reset():
                return _dropped(request)
            case CutOff():
                return await _halved(request, _line(answer))
        return _say(answer["status"], _line(answer))

    async def _accept(self, body: bytes, seed: str, left: int = 0) -> dict[str, Any]:
        """All but the last so many events of the body."""
        intake = take(body)
        del intake.events[max(len(intake.events) - left, 0) :]
        for place, event in enumerate(intake.events):
            if error := self.unwanted.get(event["name"]):
                intake = Intake(events=intake.events[:place], error=error)
                break
        count = len(intake.events)
        ids = ulids(count, header=seed, now=time.time_ns() // 1_000_000, dice=os.urandom(10 * count))
        async with self._news:
            self.events += intake.events
            del self.events[:-EVENTS_KEPT]
            self.accepted += count
            self._news.notify_all()
        if self._on_event is not None:
            for event in intake.events:
                self._on_event(event)
        answer = {"ids": ids or ([] if left else [""]), "status": 400 if intake.error else 200}
        return answer | ({"error": intake.error} if intake.error else {})

    async def _note(self, request: web.BaseRequest, path: str, body: bytes, status: int) -> None:
        async with self._news:
            self.requests.append(Request(path, request.headers, body, status))
            del self.requests[:-REQUESTS_KEPT]
            self.asked += 1
            self._news.notify_all()


def _line(answer: Mapping[str, object]) -> str:
    return json.dumps(answer, separators=(",", ":")) + "\n"


def _say(status: int, text: str, content_type: str = _TEXT) -> web.Response:
    """What the real one says of events is JSON too, but it calls it text."""
    return web.Response(status=status, body=text.encode(), headers={"Content-Type": content_type})


async def _halved(request: web.BaseRequest, text: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(text)), "Content-Type": _TEXT})
    await response.prepare(request)
    await response.write(text[: len(text) // 2].encode())
    await asyncio.sleep(0.01)  # or the reset would overtake it
    _dropped(request)
    return response


def _dropped(request: web.BaseRequest) -> web.StreamResponse:
    """A reset, not an orderly end: SO_LINGER of 0 s."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()
