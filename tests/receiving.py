"""The public application behind a real socket, with a real journal, and bytes to throw at it: for the tests of receiving."""

from __future__ import annotations

import asyncio
import io
import logging
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from bridge import log, providers, roles
from bridge.connections import Server
from bridge.journal import Journal
from bridge.journal.sqlite.journal import SqliteJournal
from bridge.metrics import Metrics
from bridge.model import Attempt, Entry, Selection, Source
from bridge.receive import READ_TIMEOUT, Receiver

NOW = 1_767_225_600_000  # the first moment of 2026
PROVIDERS = ("intercom", "slack", "stripe")
LIMIT = 1 << 20
SOURCES = tuple(
    Source(name=name, provider=name, prefix=name, secrets=(f"secret of {name}".encode(),), max_body=LIMIT)
    for name in PROVIDERS
)
IDS = {"stripe": "evt_1", "slack": "Ev1", "intercom": "notif_1"}
BODIES = {
    "stripe": b'{"id":"evt_1","object":"event","type":"customer.created","created":1767225599,"data":{"object":{}}}',
    "slack": b'{"type":"event_callback","event_id":"Ev1","event_time":1767225599,"event":{"type":"team_join"}}',
    "intercom": b'{"type":"notification_event","id":"notif_1","topic":"contact.deleted","created_at":1767225599,"data":{}}',
}


def another(provider: str, n: int) -> bytes:
    """A delivery with an id of its own."""
    id_ = IDS[provider]
    return BODIES[provider].replace(f'"{id_}"'.encode(), f'"{id_}x{n}"'.encode())


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True, kw_only=True)
class Receiving:
    """A running receiver, and what the tests ask of it."""

    receiver: Receiver
    server: Server
    store: Journal
    metrics: Metrics
    folder: Path
    sources: Mapping[str, Source]
    unable: list[str]
    """What the receiver had to say of not being able to store."""
    port: int = 0
    now: int = NOW
    logged: io.StringIO = field(default_factory=io.StringIO)

    def signed(
        self, source: str, body: bytes, *, now: int | None = None, secret: bytes | None = None
    ) -> dict[str, str]:
        found = self.sources[source]
        scheme = providers.load()[found.provider].scheme
        return scheme.sign(body, secret=secret or found.secrets[0], now=self.now if now is None else now)

    async def post(
        self, source: str, body: bytes, headers: Mapping[str, str | bytes] | None = None, **signing: Any
    ) -> Answer:
        """Signed, unless there are headers."""
        given = self.signed(source, body, **signing) if headers is None else headers
        return await self.ask(request("POST", f"/webhooks/{source}", given, body))

    async def ask(self, *pieces: bytes, patience: float = 10) -> Answer:
        return await ask(self.port, *pieces, patience=patience)

    async def entries(self) -> list[Entry]:
        """The oldest first."""
        return list(await self.store.find(Selection(), limit=1000, oldest_first=True))

    async def only_attempt(self) -> tuple[Entry, Attempt]:
        [entry] = await self.entries()
        [attempt] = await self.store.attempts(entry.seq)
        return entry, attempt

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0

    def log(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.logged.getvalue().splitlines()]


def request(
    method: str, target: str, headers: Mapping[str, str | bytes] | Sequence[tuple[str, bytes]] = (), body: bytes = b""
) -> bytes:
    """The bytes of one request; Content-Length is added unless a header says how long it is."""
    pairs: list[tuple[str, str | bytes]] = [*(headers.items() if isinstance(headers, Mapping) else headers)]
    if not {"content-length", "transfer-encoding"} & {name.lower() for name, _ in pairs} and method == "POST":
        pairs.append(("Content-Length", str(len(body))))
    lines = [b"%b: %b" % (name.encode(), value.encode() if isinstance(value, str) else value) for name, value in pairs]
    head = b"\r\n".join((f"{method} {target} HTTP/1.1".encode(), b"Host: bridge.test", *lines))
    return head + b"\r\n\r\n" + body


async def ask(port: int, *pieces: bytes, patience: float = 10) -> Answer:
    """Send the bytes on a connection of their own. Status 0: it was closed without an answer."""
    async with asyncio.timeout(patience), connection(port) as (reader, writer):
        with suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        return await answer(reader)


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def answer(reader: asyncio.StreamReader, *, head: bool = False) -> Answer:
    """The next answer on the connection. `head`: it answers a HEAD, and has no body whatever it says."""
    try:
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = b"" if head else await reader.readexactly(int(headers.get("content-length", 0)))
    except (ConnectionError, asyncio.IncompleteReadError):
        return Answer(0, {}, b"")
    return Answer(int(status.split()[1]), headers, body)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """What `/metrics` says: values by name and label values, in the order of the labels' names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@contextmanager
def logging_into(stream: io.StringIO) -> Iterator[None]:
    """Logs as a process of the service writes them on a pipe."""
    loggers = [logging.getLogger(name) for name in ("bridge", "aiohttp", "asyncio")]
    before = [(each, each.handlers, each.propagate, each.level) for each in loggers]
    stderr, sys.stderr = sys.stderr, stream
    try:
        log.configure("receiver")
        yield
    finally:
        sys.stderr = stderr
        for each, handlers, propagate, level in before:
            each.handlers, each.propagate = handlers, propagate
            each.setLevel(level)


@asynccontextmanager
async def listening(runner: web.BaseRunner) -> AsyncIterator[int]:
    """The port the application is served at."""
    bound = socket.create_server(("127.0.0.1", 0))
    await runner.setup()
    await web.SockSite(runner, bound).start()
    try:
        yield bound.getsockname()[1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def receiving(
    folder: Path, *, sources: Sequence[Source] = SOURCES, read_timeout: float = READ_TIMEOUT
) -> AsyncIterator[Receiving]:
    store, metrics = SqliteJournal(folder / "bridge.db"), Metrics()

    def clock() -> int:
        return found.now

    unable: list[str] = []
    receiver = Receiver(
        sources=sources, journal=store, metrics=metrics, clock=clock, read_timeout=read_timeout, unable=unable.append
    )
    found = Receiving(
        receiver=receiver,
        unable=unable,
        server=roles.public_server(receiver),
        store=store,
        metrics=metrics,
        folder=folder,
        sources={source.name: source for source in sources},
    )
    try:
        with logging_into(found.logged):
            async with listening(web.ServerRunner(found.server)) as found.port:
                yield found
    finally:
        await store.close()
