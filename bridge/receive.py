"""POST /webhooks/{source}: read, verify, journal, and only then answer 200.

The answer depends on nothing else: not on a transform, not on the Event API.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import HttpVersion11, web
from prometheus_client import Counter, Histogram

from bridge import log, providers
from bridge.bodies import Bodies, CrowdedOut
from bridge.errors import JournalUnavailable, Reason, Rejected
from bridge.journal import Journal
from bridge.metrics import DELIVERY_OUTCOMES, Metrics
from bridge.model import Delivery, Outcome, Source, State, WebhookRequest
from bridge.verify import Provider, verify

# Whoever needs longer for a megabyte is no provider: all of them give up after 3 to 30 seconds themselves.
READ_TIMEOUT = 10.0
# Seconds between two looks whether deliveries can be stored again.
_LOOK_AGAIN = 1.0
# Seconds after which a provider is asked to come again. Their own backoff is longer.
_RETRY_AFTER = "5"
# Says nothing of why: to whoever probes, every wrong signature looks the same.
_UNAUTHORIZED = "The signature could not be verified.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    """A source with everything one of its requests needs, looked up once."""

    source: Source
    provider: Provider
    headers: tuple[str, ...]
    outcomes: Mapping[str, Counter]
    ack_seconds: Histogram
    buried: Counter


class Receiver:
    """The public application."""

    def __init__(
        self,
        *,
        sources: Sequence[Source],
        journal: Journal,
        metrics: Metrics,
        clock: Callable[[], int],
        read_timeout: float = READ_TIMEOUT,
        unable: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`unable` is called with the reason when deliveries can't be stored, and with an empty one when that is over."""
        self._routes = {source.name: _route(source, metrics) for source in sources}
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._bodies = Bodies(within=read_timeout)
        self._rejections = log.Sparing("delivery.rejected")
        self._failures = log.Sparing("delivery.failed")
        self._recoveries = log.Sparing("journal.back")
        self._unable = unable
        self._failing = asyncio.Event()

    def application(self) -> web.Application:
        """To be served with `auto_decompress=False`: what was signed is what was sent, and a bomb stays a bomb."""
        app = web.Application()
        for method, path, handler in (
            ("POST", "/webhooks/{source}", self._receive),
            ("POST", "/webhooks/{source}/", self._receive),
            ("HEAD", "/webhooks/{source}", self._exists),
            ("HEAD", "/webhooks/{source}/", self._exists),
            ("GET", "/healthz", _healthy),
            ("HEAD", "/healthz", _healthy),
            ("*", "/webhooks/{source}", _not_allowed),
            ("*", "/webhooks/{source}/", _not_allowed),
            ("*", "/{elsewhere:.*}", _not_found),
        ):
            app.router.add_route(method, path, handler, expect_handler=_expected)
        return app

    async def watch(self) -> None:
        """For ever: while deliveries can't be stored, look whether they can again. Nobody sends any where we are not ready."""
        while True:
            await self._failing.wait()
            await asyncio.sleep(_LOOK_AGAIN)
            with suppress(JournalUnavailable):
                await self._journal.check()
                self._recover()

    async def _exists(self, http: web.Request) -> web.Response:
        """Intercom asks before it saves the URL."""
        return _to_a_stranger(status=200 if http.match_info["source"] in self._routes else 404)

    async def _receive(self, http: web.Request) -> web.Response:
        started = time.perf_counter()
        route = self._routes.get(http.match_info["source"])
        if route is None:
            return _to_a_stranger(status=404, text="There is no such source.\n")
        try:
            body = await self._read(http, route)
            answer = verify(
                WebhookRequest(headers=_headers(http, route.headers), body=body, received_at=(now := self._clock())),
                source=route.source,
                provider=route.provider,
                now=now,
            )
            if isinstance(answer, Delivery):
                await self._store(route, answer)
                response = web.Response()
            else:
                route.outcomes["handshake"].inc()
                response = web.Response(text=answer.answer, headers=_NOSNIFF)
        except Rejected as rejected:
            return self._rejected(route, rejected)
        except JournalUnavailable as unavailable:
            return self._unavailable(route, unavailable)
        route.ack_seconds.observe(time.perf_counter() - started)
        return response

    async def _store(self, route: _Route, delivery: Delivery) -> None:
        new = await self._journal.append(delivery)
        if self._failing.is_set():
            self._recover()
        route.outcomes["accepted" if new else "duplicate"].inc()
        if new and delivery.fault:  # it is dead already: no forwarder will say so
            route.buried.inc()
            source, id_ = delivery.source, delivery.id
            log.warning("entry.dead", source=source, id=id_, outcome=Outcome.UNUSABLE, reason=delivery.fault)

    async def _read(self, http: web.Request, route: _Route) -> bytes:
        """The body, as it was sent. Raises Rejected where it is too large, too slow, crowded out or cut off."""
        limit = route.source.max_body
        if (http.content_length or 0) > limit:
            raise Rejected(Reason.TOO_LARGE, status=413)
        try:
            body = await self._bodies.read(http.content, limit)
        except TimeoutError:
            raise Rejected(Reason.TOO_SLOW, status=408) from None
        except CrowdedOut:
            raise Rejected(Reason.CROWDED_OUT, status=route.provider.unavailable_status) from None
        except (web.RequestPayloadError, ConnectionError, asyncio.IncompleteReadError, ValueError):
            raise Rejected(Reason.CUT_OFF, status=400) from None
        if len(body) > limit:
            raise Rejected(Reason.TOO_LARGE, status=413)
        return body

    def _rejected(self, route: _Route, rejected: Rejected) -> web.Response:
        source = route.source.name
        route.outcomes["rejected"].inc()
        self._metrics.rejections.labels(source, rejected.reason).inc()
        self._rejections.warning(source=source, reason=rejected.reason.value)
        if rejected.status == HTTPStatus.UNAUTHORIZED:
            return _to_a_stranger(status=rejected.status, text=_UNAUTHORIZED)
        wait = {"Retry-After": _RETRY_AFTER} if rejected.reason is Reason.CROWDED_OUT else {}
        return _to_a_stranger(status=rejected.status, headers=wait)

    def _unavailable(self, route: _Route, unavailable: JournalUnavailable) -> web.Response:
        if not self._failing.is_set():
            self._failing.set()
            self._unable(str(unavailable))
        route.outcomes["failed"].inc()
        self._failures.error(source=route.source.name, reason=str(unavailable))
        return web.Response(status=route.provider.unavailable_status, headers={"Retry-After": _RETRY_AFTER})

    def _recover(self) -> None:
        self._failing.clear()
        self._recoveries.info()
        self._unable("")


_NOSNIFF = {"X-Content-Type-Options": "nosniff"}


def _route(source: Source, metrics: Metrics) -> _Route:
    provider = providers.load()[source.provider]
    return _Route(
        source=source,
        provider=provider,
        headers=tuple(dict.fromkeys((*provider.scheme.headers, *provider.headers, "content-type"))),
        outcomes={outcome: metrics.deliveries.labels(source.name, outcome) for outcome in DELIVERY_OUTCOMES},
        ack_seconds=metrics.ack_seconds.labels(source.name),
        buried=metrics.settled.labels(source.name, State.DEAD),
    )


def _headers(http: web.Request, names: tuple[str, ...]) -> dict[str, str]:
    """One sent twice is joined, as RFC 9110 has it (section 5.3): so a signature beside another is malformed."""
    given = http.headers
    return {name: ", ".join(given.getall(name)) for name in names if name in given}


def _to_a_stranger(**said: Any) -> web.Response:
    """The last answer on its connection. What is left of the body needs no reading then; and who reads no answers, and
    goes on sending requests, would have us hold them all.
    """
    response = web.Response(**said)
    response.force_close()
    return response


async def _healthy(http: web.Request) -> web.Response:
    del http
    return _to_a_stranger(text="ok\n")


async def _not_allowed(http: web.Request) -> web.Response:
    del http
    return _to_a_stranger(status=405, text="Webhooks are posted here.\n", headers={"Allow": "HEAD,POST"})


async def _not_found(http: web.Request) -> web.Response:
    del http
    return _to_a_stranger(status=404, text="There is nothing here.\n")


async def _expected(http: web.Request) -> None:
    """The usual one, of aiohttp, quotes the header in its answer, and fails where it is no text."""
    if http.version < HttpVersion11:  # https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1
        return
    if http.headers["Expect"].lower() != "100-continue":
        refused = web.HTTPExpectationFailed()
        refused.force_close()
        raise refused
    await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    http.writer.output_size = 0  # nothing of the answer was sent yet
