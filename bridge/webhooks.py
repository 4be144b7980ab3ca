"""Signs webhooks and posts them, as a provider would: for `bridge send`, and for a first try of a new bridge."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp

from bridge import providers, samples
from bridge.clock import wall_clock
from bridge.errors import Unusable
from bridge.model import Source, WebhookRequest
from bridge.verify import Identity

TIMEOUT = 30.0
# Bytes of an answer: enough for a challenge, and for what a proxy in between has to say.
_SHOWN = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a bridge answered."""

    status: int
    text: str
    seconds: float

    @property
    def is_accepted(self) -> bool:
        """A redirect is no yes: a provider would not follow it either."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES


def sample(provider: str, name: str, *, unchanged: bool = False) -> bytes:
    """A recorded body, as a new delivery that happens now, or `unchanged`. Raises LookupError for an unknown one."""
    body = samples.body(provider, name)
    if unchanged:
        return body
    return samples.fresh(providers.load()[provider], body, now=wall_clock(), nonce=secrets.token_hex(16))


def identity(provider: str, body: bytes) -> Identity:
    """What a bridge will know the body by; empty where it won't."""
    record = providers.load()[provider]
    request = WebhookRequest(headers={}, body=body, received_at=wall_clock())
    try:
        return record.identify(record.parse(request), request)
    except Unusable:
        return Identity(id="", type="")


def url_of(source: str, *, base: str) -> str:
    """The source's URL at a bridge; a `base` with a path of its own is taken as it is. Raises ValueError for no URL."""
    base = base if "://" in base else f"http://{base}"
    if not urlsplit(base).hostname:
        raise ValueError("a URL without a host")
    return base if urlsplit(base).path.strip("/") else f"{base.rstrip('/')}/webhooks/{source}"


async def post(body: bytes, *, source: Source, url: str) -> Reply:
    """Sign with the source's first secret and post. Raises aiohttp.ClientError and TimeoutError."""
    scheme = providers.load()[source.provider].scheme
    kind = "application/json" if body.lstrip()[:1] in {b"{", b"["} else "application/x-www-form-urlencoded"
    headers = {"Content-Type": kind, "User-Agent": "bridge-send"}
    headers |= scheme.sign(body, secret=source.secrets[0], now=wall_clock())
    started = time.perf_counter()
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session,
        session.post(url, data=body, headers=headers, allow_redirects=False) as response,
    ):
        said = await response.content.read(_SHOWN)
        text = said.decode("utf-8", "replace").strip()
        return Reply(status=response.status, text=text, seconds=time.perf_counter() - started)
