"""`python -m bench.load JSON`: sends signed webhooks, made beforehand, and tells what became of them as a line of JSON.

As fast as they are answered, or, with a `rate`, when they are due, whether the last ones were answered or not: what waits
for a connection has waited since then. A process of its own, which takes little of what others could have.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import uvloop

from bench import bodies

_NOTHING = b"\r\nContent-Length: 0\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send."""

    port: int
    target: str = "/webhooks/stripe"
    header: str = "stripe-signature"
    name: str
    """Of this load: it makes its ids."""
    count: int
    size: int
    connections: int = 128
    rate: float | None = None
    """A second; then it is told when each was due. None: as fast as they are answered."""
    random_ids: bool = False

    @property
    def ids(self) -> list[str]:
        return bodies.ids(self.count, self.name, random=self.random_ids)


@dataclass(slots=True)
class Told:
    """What became of it. Seconds; points in time are those of the machine's monotonic clock."""

    began: float = 0.0
    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    due: dict[str, float] = field(default_factory=dict)


class Connection(asyncio.Protocol):
    """One request after the other."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._received = b""
        self._since = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._sender.is_free(self)

    def send(self, request: bytes, since: float) -> None:
        assert self._transport is not None  # noqa: S101 - it is connected
        self._since = since
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not _is_whole(self._received):
            return
        status, self._received = self._received[9:12].decode(), b""
        self._sender.answered(status, time.monotonic() - self._since)
        self._sender.is_free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._sender.lost()

    def close(self) -> None:
        assert self._transport is not None  # noqa: S101 - as above
        self._transport.close()


def _is_whole(answer: bytes) -> bool:
    if _NOTHING in answer and answer.endswith(b"\r\n\r\n"):  # nearly all, and told soon
        return True
    head, end, body = answer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return bool(end) and length is not None and len(body) >= int(length[1])


class Sender:
    """All connections together."""

    def __init__(self, load: Load, requests: list[bytes]) -> None:
        self._load = load
        self._requests: Iterator[bytes] = iter(requests)
        self._free: deque[Connection] = deque()
        self._late: deque[tuple[bytes, float]] = deque()
        self._done = asyncio.get_running_loop().create_future()
        self.told = Told()

    async def run(self) -> Told:
        loop = asyncio.get_running_loop()
        connections: list[Connection] = []
        began = time.monotonic()
        for _ in range(self._load.connections):
            _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._load.port)
            connections.append(connection)
        if self._load.rate is not None:
            began = time.monotonic()
            await self._when_due(began, self._load.rate)
        await self._done
        self.told.began, self.told.seconds = began, time.monotonic() - began
        if (rate := self._load.rate) is not None:
            ids = self._load.ids
            self.told.due = {id_: began + n / rate for n, id_ in enumerate(ids)}
        for connection in connections:
            connection.close()
        return self.told

    async def _when_due(self, began: float, rate: float) -> None:
        for n, request in enumerate(self._requests):
            since = began + n / rate
            if (wait := since - time.monotonic()) > 0:  # by whole milliseconds: what that adds counts as the server's
                await asyncio.sleep(wait)
            if self._free:
                self._free.popleft().send(request, since)
            else:
                self._late.append((request, since))

    def is_free(self, connection: Connection) -> None:
        if self._late:
            connection.send(*self._late.popleft())
        elif self._load.rate is not None:
            self._free.append(connection)
        elif (request := next(self._requests, None)) is not None:
            connection.send(request, time.monotonic())

    def answered(self, status: str, took: float) -> None:
        self.told.answers[status] += 1
        self.told.took.append(took)
        if len(self.told.took) == self._load.count:
            self._done.set_result(None)

    def lost(self) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError("a connection was lost"))


def made(load: Load) -> list[bytes]:
    """Its requests."""
    return [bodies.request(bodies.body(id_, load.size), target=load.target, header=load.header) for id_ in load.ids]


async def send(load: Load) -> dict[str, Any]:
    """In a process of its own; what it told. Raises AssertionError where not all were answered 200."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load", json.dumps(asdict(load))),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C is for who measures
    )
    try:
        told, wrong = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0, wrong.decode()  # noqa: S101 - or nothing was measured
    answer: dict[str, Any] = json.loads(told)
    assert answer["answers"] == {"200": load.count}, answer["answers"]  # noqa: S101 - as above
    return answer


async def main(load: Load) -> None:
    told = await Sender(load, made(load)).run()
    cuts = statistics.quantiles(told.took, n=1000)
    figures = {"rate": load.count / told.seconds, "p50": cuts[499], "p99": cuts[989], "p99.9": cuts[998]}
    print(json.dumps({**figures, "began": told.began, "due": told.due, "answers": told.answers}))  # noqa: T201 - what it is for


if __name__ == "__main__":
    uvloop.run(main(Load(**json.loads(sys.argv[1]))))
