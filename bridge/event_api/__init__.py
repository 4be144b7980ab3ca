"""Speaks to the Event API and reports what was said; decides nothing.

https://www.inngest.com/docs/reference/events/send - the URL holds the event key, so no URL, and nothing an HTTP library
says about one, may get into an answer, an error or a log.
"""

from __future__ import annotations

import base64
import os
import random
import secrets
import time
from asyncio import sleep
from collections import deque
from collections.abc import Sequence
from hashlib import sha256
from io import BytesIO
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

import aiohttp

from bridge.errors import (
    EventApiError,
    EventApiMisconfigured,
    EventApiUnavailable,
    EventInvalid,
    EventRefused,
)
from bridge.event import MAX_BYTES, encode
from bridge.event_api.answer import Answer, Verdict, read
from bridge.model import Event
from bridge.retry import Policy, delay

__all__ = ["Answer", "EventApi", "Verdict", "batches", "read", "reason", "seed", "server_url"]

# The server's own limit: of 5,001 it stores 4,999 and refuses one for nothing that is in it.
MOST_EVENTS = 5_000
# 5,000 ids take 145 KB. Whatever is longer does not come from the Event API.
LONGEST_ANSWER = 1 << 20
# Of `send()`, whose caller waits. The forwarder has a patience of its own.
PATIENCE = Policy(first=200, longest=5_000, attempts=5)
LONGEST_WAIT = 30.0
# A ULID has 48 bits for its time; a seed with another is ignored.
_LATEST_SEED = (1 << 48) - 1


class EventApi:
    """A pool of connections to one Event API, under one key: used inside `async with`.

    An empty key is an error, except with `dev`: the dev server takes any.
    """

    def __init__(
        self,
        key: str = "",
        *,
        base_url: str = "https://inn.gs",
        env: str = "",
        dev: bool = False,
        max_batch_events: int = 1000,
        max_batch_bytes: int = 512_000,
        max_event_bytes: int = MAX_BYTES,
        timeout: float = 30.0,
    ) -> None:
        if not key.strip() and not dev:
            raise ValueError("the event key is empty: the hosted Event API needs one, only the dev server takes any")
        if not 1 <= max_batch_events <= MOST_EVENTS:
            raise ValueError(f"max_batch_events is {max_batch_events}, must be 1 to {MOST_EVENTS}")
        if not (env.isascii() and env.isprintable()):
            raise ValueError("env is sent as a header: it must be printable ASCII")
        self._key = key.strip()
        self._url = f"{server_url(base_url)}/e/{quote(self._key, safe='') or 'dev'}"
        self._headers = {"Content-Type": "application/json"} | ({"x-inngest-env": env} if env else {})
        self._max_batch_events = max_batch_events
        self._max_batch_bytes = max_batch_bytes
        self._max_event_bytes = max_event_bytes
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            trust_env=True,  # HTTPS_PROXY and its like
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, batch: Sequence[bytes], *, seed: str = "") -> Answer:
        """One request with these encoded events. Never raises for what the network or the server does."""
        if self._session is None:
            raise RuntimeError("not open: use `async with EventApi(...) as api`")
        headers = self._headers | ({"x-inngest-event-id-seed": seed} if seed else {})
        body = BytesIO(b"[%b]" % b",".join(batch))  # aiohttp warns of more than 1 MiB as bytes
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                said = await _whole(response.content)
                heard = {name.lower(): value for name, value in response.headers.items()}
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # UnicodeError: the host can't be a host's name
            return Answer(verdict=Verdict.UNAVAILABLE, error=reason(error, timeout=self._timeout))
        if said is None:
            return Answer(verdict=Verdict.UNAVAILABLE, error=f"answered {response.status} with more than 1 MiB")
        return read(response.status, heard, said, sent=len(batch), key=self._key)

    async def probe(self) -> Answer:
        """Tells a wrong key or URL from good ones, without sending an event."""
        return await self.post([])

    async def send(self, events: Sequence[Event]) -> list[str]:
        """Send them, however many; the Event API's ids, in their order.

        Raises EventInvalid before anything is sent, EventApiUnavailable after several tries, EventApiMisconfigured and
        EventRefused at once; `accepted` has the ids until then.
        """
        encoded = [self._encode(index, event) for index, event in enumerate(events)]
        sizes = [len(event) for event in encoded]
        waiting = deque(batches(sizes, max_events=self._max_batch_events, max_bytes=self._max_batch_bytes))
        # Fresh, for events without an id are all alike: no second call may pass for a repetition of the first.
        now, salt = time.time_ns() // 1_000_000, secrets.token_hex(16)
        accepted: list[str] = []
        while waiting:
            batch = waiting.popleft()
            ids = [events[index].id for index in batch]
            named = seed(ids, at=now, salt=f"{salt}:{batch.start}")
            answer = await self._post_patiently([encoded[index] for index in batch], seed=named)
            accepted += answer.ids
            if answer.verdict is Verdict.TOO_LARGE and len(batch) > 1:
                middle = len(batch) // 2
                waiting.extendleft((batch[middle:], batch[:middle]))
            elif answer.verdict is not Verdict.ACCEPTED:
                raise _failure(answer, accepted)
        return accepted

    def _encode(self, index: int, event: Event) -> bytes:
        try:
            return encode(event, max_bytes=self._max_event_bytes)
        except EventInvalid as invalid:
            raise EventInvalid(f"events[{index}]: {invalid}") from None

    async def _post_patiently(self, batch: Sequence[bytes], *, seed: str) -> Answer:
        attempt = 1
        while True:
            answer = await self.post(batch, seed=seed)
            pause = delay(PATIENCE, attempt=attempt, dice=random.random())
            asked = answer.retry_after or 0.0
            if answer.verdict is not Verdict.UNAVAILABLE or pause is None or asked > LONGEST_WAIT:
                return answer
            await sleep(max(pause / 1000, asked))
            attempt += 1


def batches(sizes: Sequence[int], *, max_events: int, max_bytes: int) -> list[range]:
    """Events of these sizes, in their order, cut into requests. One that is too large for any goes alone."""
    cut: list[range] = []
    start, body = 0, 2  # the brackets
    for index, size in enumerate(sizes):
        comma = 1 if index > start else 0
        if index > start and (index - start == max_events or body + comma + size > max_bytes):
            cut.append(range(start, index))
            start, body, comma = index, 2, 0
        body += comma + size
    return [*cut, range(start, len(sizes))] if sizes else []


def seed(ids: Sequence[str], *, at: int, salt: str = "") -> str:
    """Fixes the Event API's own ids of a request, so that to send it again gives no second run, nor a second event.

    The same ids in the same order, `at` (ms) and salt always give the same: nothing else has to survive a crash.
    https://github.com/inngest/inngest/blob/main/pkg/headers/headers.go
    """
    digest = sha256()
    for part in (salt, *ids):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b" % (len(encoded), encoded))
    entropy = base64.b64encode(digest.digest()[:10]).decode()
    return f"{min(max(at, 1), _LATEST_SEED)},{entropy}"


def server_url(url: str) -> str:
    """The URL without the slash at its end. Raises ValueError, without repeating it: people paste whole ones, with the key."""
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        fine = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    # `/e/{key}` is ours to add: whoever pasted it with the URL would have the key where it is shown.
    if not fine or parts.query or parts.fragment or not url.isprintable() or " " in url or "/e/" in f"{parts.path}/":
        raise ValueError("base_url must be http:// or https://, a host, and no more than a path, without /e/ and a key")
    return url


async def _whole(content: aiohttp.StreamReader) -> bytes | None:
    """None: longer than any answer of the Event API."""
    said = bytearray()
    async for chunk in content.iter_any():
        said += chunk
        if len(said) > LONGEST_ANSWER:
            return None
    return bytes(said)


def reason(error: Exception, *, timeout: float) -> str:
    """Why there was no answer, by the error's class and number alone: what it says holds the URL, or what the server sent."""
    match error:
        case TimeoutError():
            return f"timed out after {timeout:g} s"
        case aiohttp.ClientConnectorDNSError() | UnicodeError():
            return "the name of the host was not resolved"
        case aiohttp.ClientSSLError():
            return f"no TLS connection ({type(error).__name__})"
        case aiohttp.ClientPayloadError():
            return "the answer was cut off or garbled"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed without an answer"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number).lower()
    return f"no usable answer ({type(error).__name__})"


def _failure(answer: Answer, accepted: Sequence[str]) -> EventApiError:
    match answer.verdict:
        case Verdict.UNAVAILABLE:
            return EventApiUnavailable(answer.error, accepted=accepted, retry_after=answer.retry_after)
        case Verdict.MISCONFIGURED:
            return EventApiMisconfigured(answer.error, accepted=accepted)
    return EventRefused(f"events[{len(accepted)}]: {answer.error}", accepted=accepted)
