"""POST /webhooks/{source}: read, verify, journal, and only then answer 200.

The answer depends on nothing else: not on a transform, not on the Event API.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.hdrs import EXPECT
from prometheus_client import Counter

from bridge import log, providers
from bridge.bodies import Bodies, CrowdedOut
from bridge.errors import JournalUnavailable, Reason, Rejected
from bridge.journal import Journal
from bridge.metrics import Metrics, Receipts
from bridge.model import Delivery, Handshake, Outcome, Source, State, WebhookRequest
from bridge.verify import Provider, verify

# Whoever needs longer for a megabyte is no provider: all of them give up after 3 to 30 seconds themselves.
READ_TIMEOUT = 10.0
# Seconds between two looks whether deliveries can be stored again.
_LOOK_AGAIN = 1.0
# Seconds after which a provider is asked to come again. Their own backoff is longer.
_RETRY_AFTER = "5"
_VERSIONS = (HttpVersion11, HttpVersion10)
_WEBHOOKS = re.compile(r"/webhooks/[^/]+/?")
# Says nothing of why: to whoever probes, every wrong signature looks the same.
_UNAUTHORIZED = "The signature could not be verified.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    """A source with everything one of its requests needs, looked up once."""

    source: Source
    provider: Provider
    headers: tuple[str, ...]
    receipts: Receipts
    buried: Counter


class _Stored(web.Response):
    """The answer to what is stored, over HTTP/1.1: but for the date it is always the same, so one serves for all. To have
    aiohttp put together a new one takes as long as to check a signature.
    """

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._written = b""

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        second = int(time.time())
        if second != self._second:
            date = formatdate(second, usegmt=True)
            self._second, self._written = (
                second,
                f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: {date}\r\n\r\n".encode(),
            )
        await request.writer.write(self._written)
        await request.writer.drain()  # who takes no answers is given no more of them

    async def write_eof(self, data: bytes = b"") -> None:
        del data


class Receiver:
    """What the public listener serves: a look into a dictionary, and no framework between a webhook and its answer."""

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
        routes = {f"/webhooks/{source.name}": _route(source, metrics) for source in sources}
        self._routes = routes | {f"{path}/": route for path, route in routes.items()}
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._bodies = Bodies(within=read_timeout)
        self._rejections = log.Sparing("delivery.rejected")
        self._failures = log.Sparing("delivery.failed")
        self._recoveries = log.Sparing("journal.back")
        self._unable = unable
        self._failing = asyncio.Event()
        self._stored_response = _Stored()

    async def answer(self, http: web.BaseRequest) -> web.Response:
        """Whatever comes to the public listener. To be served with `auto_decompress=False`: what was signed is what was sent,
        and a bomb stays a bomb.
        """
        if http.version not in _VERSIONS:  # the parser takes others, and reads them like these
            return _to_a_stranger(status=400)
        if EXPECT in http.headers:
            await _expected(http)
        # As it was sent, which takes no decoding; few are sent otherwise.
        route = self._routes.get(http.raw_path) or self._routes.get(http.path)
        if route is not None and http.method == "POST":
            return await self._receive(route, http)
        return _no_webhook(http.method, http.path, is_source=route is not None)

    async def watch(self) -> None:
        """For ever: while deliveries can't be stored, look whether they can again. Nobody sends any where we are not ready."""
        while True:
            await self._failing.wait()
            await asyncio.sleep(_LOOK_AGAIN)
            with suppress(JournalUnavailable):
                await self._journal.check()
                self._recover()

    async def _receive(self, route: _Route, http: web.BaseRequest) -> web.Response:
        started = time.perf_counter()
        try:
            content = http.content
            # Nearly all bodies came with their headers: there is nothing to wait for.
            body = content.read_nowait() if content.is_eof() else await self._read(route, http)
            answer = self._verified(route, http, body)
            if isinstance(answer, Handshake):
                outcome, response = "handshake", web.Response(text=answer.answer, headers=_NOSNIFF)
            else:
                unusable = answer if answer.fault else None
                storing = self._journal.append(answer)
                del answer  # its payload takes several times the memory of its body, and only that of bodies is bounded
                new = await storing
                self._stored(route, unusable if new else None)
                outcome = "accepted" if new else "duplicate"
                response = (
                    self._stored_response if http.keep_alive and http.version == HttpVersion11 else web.Response()
                )
        except Rejected as rejected:
            return self._rejected(route, rejected)
        except JournalUnavailable as unavailable:
            return self._unavailable(route, unavailable)
        route.receipts.add(outcome, time.perf_counter() - started)
        return response

    def _verified(self, route: _Route, http: web.BaseRequest, body: bytes) -> Delivery | Handshake:
        if len(body) > route.source.max_body:
            raise Rejected(Reason.TOO_LARGE, status=413)
        now = self._clock()
        request = WebhookRequest(headers=_headers(http, route.headers), body=body, received_at=now)
        return verify(request, source=route.source, provider=route.provider, now=now)

    def _stored(self, route: _Route, unusable: Delivery | None) -> None:
        if self._failing.is_set():
            self._recover()
        if unusable is not None:  # it is dead already: no forwarder will say so
            route.buried.inc()
            source, id_ = unusable.source, unusable.id
            log.warning("entry.dead", source=source, id=id_, outcome=Outcome.UNUSABLE, reason=unusable.fault)

    async def _read(self, route: _Route, http: web.BaseRequest) -> bytes:
        """The body, as it was sent, or of a longer one enough to tell. Raises Rejected where it is too slow, crowded out, cut off."""
        limit = route.source.max_body
        if (http.content_length or 0) > limit:
            raise Rejected(Reason.TOO_LARGE, status=413)
        try:
            return await self._bodies.read(http.content, limit)
        except TimeoutError:
            raise Rejected(Reason.TOO_SLOW, status=408) from None
        except CrowdedOut:
            raise Rejected(Reason.CROWDED_OUT, status=route.provider.unavailable_status) from None
        except (web.RequestPayloadError, ConnectionError, asyncio.IncompleteReadError, ValueError):
            raise Rejected(Reason.CUT_OFF, status=400) from None

    def _rejected(self, route: _Route, rejected: Rejected) -> web.Response:
        source = route.source.name
        route.receipts.add("rejected")
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
        route.receipts.add("failed")
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
        receipts=Receipts(metrics, source.name),
        buried=metrics.settled.labels(source.name, State.DEAD),
    )


def _headers(http: web.BaseRequest, names: tuple[str, ...]) -> dict[str, str]:
    """One sent twice is joined, as RFC 9110 has it (section 5.3): so a signature beside another is malformed."""
    given = http.headers
    return {name: ", ".join(values) for name in names if (values := given.getall(name, ()))}


def _to_a_stranger(**said: Any) -> web.Response:
    """The last answer on its connection. What is left of the body needs no reading then; and who reads no answers, and
    goes on sending requests, would have us hold them all.
    """
    response = web.Response(**said)
    response.force_close()
    return response


def _no_webhook(method: str, path: str, *, is_source: bool) -> web.Response:
    """The answer to what is not posted to a source."""
    if path == "/healthz" and method in {"GET", "HEAD"}:
        return _to_a_stranger(text="ok\n")
    if _WEBHOOKS.fullmatch(path) is None:
        return _to_a_stranger(status=404, text="There is nothing here.\n")
    if method not in {"HEAD", "POST"}:
        return _to_a_stranger(status=405, text="Webhooks are posted here.\n", headers={"Allow": "HEAD,POST"})
    if is_source:  # HEAD: Intercom asks before it saves the URL
        return _to_a_stranger()
    return _to_a_stranger(status=404, text="There is no such source.\n")


async def _expected(http: web.BaseRequest) -> None:
    """The usual one, of aiohttp, quotes the header in its answer, and fails where it is no text."""
    if http.version < HttpVersion11:  # https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1
        return
    if http.headers[EXPECT].lower() != "100-continue":
        refused = web.HTTPExpectationFailed()
        refused.force_close()
        raise refused
    await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    http.writer.output_size = 0  # nothing of the answer was sent yet
