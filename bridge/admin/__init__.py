"""The private application: health, readiness and metrics of the whole service.

Where a token is configured it is asked for by all of it but the health, which those ask for who have none to send.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from bridge.errors import JournalUnavailable
from bridge.journal import Census, Journal
from bridge.model import State
from bridge.settings import Settings

# Seconds between two checks whether deliveries can be stored.
_CHECK_EVERY = 1.0
_FOR_ALL = frozenset({"/healthz", "/readyz"})


class Admin:
    """`settings`: as they are just now. `unready`: reasons of the processes not to be ready. `receiving`: whether a receiver
    serves that can store what comes. `metrics_directory`: where they keep what they count.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], Settings],
        journal: Callable[[], Journal | None],
        unready: Callable[[], Iterable[str]],
        held: Callable[[], str],
        receiving: Callable[[], bool],
        metrics_directory: str,
        clock: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._unready = unready
        self._held = held
        self._receiving = receiving
        self._metrics_directory = metrics_directory
        self._clock = clock
        self._checking: asyncio.Future[str] | None = None
        self._checked = (0.0, self._journal())

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._for_those_who_may])
        app.add_routes(
            [
                web.get("/healthz", _healthy),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._metrics),
            ]
        )
        return app

    @web.middleware
    async def _for_those_who_may(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Also of what is not there: nobody else need know that."""
        tokens = self._settings().admin_token
        if not tokens or request.path in _FOR_ALL or _has_one_of(tokens, request):
            return await handler(request)
        # https://www.rfc-editor.org/rfc/rfc6750#section-3
        return web.Response(status=401, text="A token is needed.\n", headers={"WWW-Authenticate": "Bearer"})

    async def _ready(self, http: web.Request) -> web.Response:
        """200, or 503 with a line for each reason."""
        del http
        reasons = list(self._unready())
        if held := self._held():
            reasons.append(f"forwarding is held: {held}")
        if reason := await self._why_not_stored():
            reasons.append(f"deliveries can't be stored: {reason}")
        if reasons:
            return web.Response(status=503, text="\n".join(dict.fromkeys(reasons)) + "\n")
        return web.Response(text="ready\n")

    async def _why_not_stored(self) -> str:
        """Empty: they can be. It is asked of the journal once a second at most: it stores something, and anybody may ask."""
        now, journal = time.monotonic(), self._journal()
        since, asked = self._checked
        if self._checking is None or asked is not journal or now - since >= _CHECK_EVERY:
            self._checked = (now, journal)
            self._checking = asyncio.ensure_future(_why_not_stored(journal))
        return await asyncio.shield(self._checking)

    async def _metrics(self, http: web.Request) -> web.Response:
        del http
        registry = CollectorRegistry()
        registry.register(_Counted(Path(self._metrics_directory)))
        providers = {name: source.provider for name, source in self._settings().sources.items()}
        census, held = await self._census(), bool(self._held())
        registry.register(_Gauges(providers, census, held=held, receiving=self._receiving(), now=self._clock()))
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _census(self) -> Census | None:
        """None while the journal can't be read: the other metrics are wanted most then."""
        journal = self._journal()
        try:
            return None if journal is None else await journal.census()
        except JournalUnavailable:
            return None


class _Counted(Collector):
    """What the processes count, those that have ended too: a file each, and kind of metric."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        # A process that starts just now has made its file, and nothing in it: `merge` can't read that.
        files = [str(file) for file in self._directory.glob("*.db") if file.stat().st_size]
        yield from MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]  # it has no types


class _Gauges(Collector):
    """What is read when it is asked for, not counted."""

    def __init__(
        self, providers: Mapping[str, str], census: Census | None, *, held: bool, receiving: bool, now: int
    ) -> None:
        """`providers`: of each source."""
        self._providers = providers
        self._census = census
        self._held = held
        self._receiving = receiving
        self._now = now

    def collect(self) -> Iterator[GaugeMetricFamily]:
        known = GaugeMetricFamily(
            "bridge_source_info", "1 for each source: whose webhooks come there", labels=["source", "provider"]
        )
        for source, provider in self._providers.items():
            known.add_metric([source, provider], 1)
        yield known
        yield GaugeMetricFamily(
            "bridge_receiving", "1 while a receiver serves and deliveries can be stored", value=int(self._receiving)
        )
        yield GaugeMetricFamily(
            "bridge_forwarding_held", "1 while a configuration fault holds forwarding", value=int(self._held)
        )
        yield GaugeMetricFamily(
            "bridge_journal_readable",
            "1 while the journal can be read; while it can't, what follows is not there",
            value=int(self._census is not None),
        )
        if self._census is None:
            return
        entries = GaugeMetricFamily("bridge_journal_entries", "Entries in the journal, by state", labels=["state"])
        for state in State:
            entries.add_metric([state.value], self._census.counts.get(state, 0))
        yield entries
        yield GaugeMetricFamily(
            "bridge_oldest_pending_seconds",
            "Age of the oldest pending entry",
            value=self._age(self._census.oldest_pending),
        )
        yield GaugeMetricFamily(
            "bridge_oldest_due_seconds",
            "Age of the oldest pending entry that waits for no time of its own",
            value=self._age(self._census.oldest_due),
        )

    def _age(self, received_at: int | None) -> float:
        """In seconds."""
        return 0 if received_at is None else max(0, self._now - received_at) / 1000


def _has_one_of(tokens: Iterable[str], http: web.Request) -> bool:
    scheme, _, sent = http.headers.get("Authorization", "").partition(" ")
    given = sent.strip().encode("utf-8", "surrogateescape")
    # Each is compared, and in the same time however much of it is right.
    fits = [hmac.compare_digest(given, token.encode()) for token in tokens]
    return scheme.lower() == "bearer" and any(fits)


async def _why_not_stored(journal: Journal | None) -> str:
    if journal is None:
        return "the journal is not open"
    try:
        await journal.check()
    except JournalUnavailable as unavailable:
        return str(unavailable)
    return ""


async def _healthy(http: web.Request) -> web.Response:
    del http
    return web.Response(text="ok\n")
