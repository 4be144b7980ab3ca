"""What comes out of nginx and Caddy is what went in: method, path, body and headers, held against the same request without them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from proxies import HOST, PROXIES, Proxy, ask, network
from receiving import ask as ask_directly

pytestmark = pytest.mark.asyncio(loop_scope="module")

# https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1, and those that say how the body comes, which may be another way.
# Who waits for a 100 waits for the proxy's.
BETWEEN_TWO = {"connection", "keep-alive", "te", "transfer-encoding", "upgrade", "content-length", "expect"}


@dataclass(frozen=True, slots=True)
class Seen:
    start: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    """All that are for whoever is at the end, in the order of their names, each as often as it was sent."""
    body: bytes


class Upstream:
    """In the place of the bridge: notes each request, reading no more into it than where it ends."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                start, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
                pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
                body = await _body(reader, dict(pairs))
                kept = sorted(pair for pair in pairs if pair[0].decode() not in BETWEEN_TWO)
                self.seen.append(Seen(start, tuple(kept), body))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                if (b"connection", b"close") in pairs:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def _body(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> bytes:
    if b"transfer-encoding" not in headers:
        return await reader.readexactly(int(headers.get(b"content-length", 0)))
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    with network():
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PROXIES, ids=lambda proxy: proxy.name)
async def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Upstream]:
    proxy: Proxy = request.param
    found = Upstream()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 8080)
    async with proxy.running(tmp_path_factory.mktemp(proxy.name)):
        yield found
    server.close()


def webhook(*lines: bytes, start: bytes = b"POST /webhooks/stripe HTTP/1.1", body: bytes = b"{}") -> bytes:
    length = [] if any(b"chunked" in line for line in lines) else [b"Content-Length: %d" % len(body)]
    return b"\r\n".join((start, b"Host: " + HOST.encode(), *lines, *length, b"", body))


def to(target: bytes, method: bytes = b"POST") -> bytes:
    return webhook(start=method + b" " + target + b" HTTP/1.1")


REQUESTS = {
    "Stripe's": webhook(
        b"Stripe-Signature: t=1767225600,v1=00ff,v0=11ee", b"User-Agent: Stripe/1.0", b"Accept: */*; q=0.5, text/xml"
    ),
    "Slack's": webhook(
        b"X-Slack-Signature: v0=0a", b"x-slack-request-timestamp: 1767225600", b"Accept-Encoding: gzip,deflate"
    ),
    "Intercom's": webhook(
        b"X-Hub-Signature: sha1=0a", b"Cache-Control: no-cache", b"Content-Type: application/json; charset=utf-8"
    ),
    "no header but the host": webhook(),
    "the same header twice": webhook(b"X-A: 1", b"x-a: 2", b"X-A: 1"),
    "an empty header": webhook(b"X-Empty:", b"X-Blank:   "),
    "odd values": webhook(b'X-Odd: a  b,c;d="e\\"f" ;; %20 \xc3\xa4 \xe4', b"X-Tab: a\tb"),
    "a long header": webhook(b"X-Long: " + b"v" * 7000),
    "many headers": webhook(*(b"X-%d: %d" % (n, n) for n in range(90))),
    "what a proxy might take for itself": webhook(
        b"Authorization: Basic eDp5",
        b"Cookie: a=b; c=d",
        b"Origin: https://a.test",
        b"Range: bytes=0-1",
        b"If-Match: x",
    ),
    "packed": webhook(b"Content-Encoding: gzip", body=bytes(range(256))),
    "chunks": webhook(b"Transfer-Encoding: chunked", body=b"2\r\n{}\r\n5;a=b\r\n\r\n\0\xff\r\r\n0\r\n\r\n"),
    "who waits": webhook(b"Expect: 100-continue"),
    "a megabyte": webhook(body=bytes(range(256)) * 4096),
    "an empty body": webhook(body=b""),
    "no length": webhook(start=b"HEAD /webhooks/intercom HTTP/1.1", body=b"").replace(b"Content-Length: 0\r\n", b""),
    "a slash at the end": to(b"/webhooks/stripe/"),
    "a query": to(b"/webhooks/stripe?a=b&c=%2f%2F+%20;d&&e=?#"[:-1]),
    "percent signs": to(b"/webhooks/%73tripe"),
    "percent signs in small letters": to(b"/webhooks/%c3%a4"),
    "a slash in percent signs": to(b"/webhooks/a%2Fb"),
    "slashes in a row": to(b"/webhooks/a//b"),
    "odd characters": to(b"/webhooks/a-_.~!$&'()*+,;=:@b"),
    "another method": to(b"/webhooks/stripe", b"PUT"),
    "an unknown method": to(b"/webhooks/stripe", b"QUERY"),
    "health": to(b"/healthz", b"GET"),
}


@pytest.mark.parametrize("raw", REQUESTS.values(), ids=REQUESTS)
async def test_a_request_comes_out_as_it_went_in(upstream: Upstream, raw: bytes) -> None:
    upstream.seen.clear()
    assert (await ask_directly(8080, raw)).status == 200
    assert (await ask(raw, head=raw.startswith(b"HEAD"))).status == 200
    directly, through = upstream.seen
    assert through == directly


async def test_a_header_with_an_underscore_is_left_out(upstream: Upstream) -> None:
    """Both do, since much that stands behind proxies takes one for a dash. No provider sends any."""
    upstream.seen.clear()
    assert (await ask(webhook(b"X_Signature: 1", b"X-Signature: 2"))).status == 200
    assert upstream.seen[0].headers == ((b"host", HOST.encode()), (b"x-signature", b"2"))


async def test_connections_to_the_bridge_are_kept(upstream: Upstream) -> None:
    """On the loopback too, each takes a port for a minute."""
    before = upstream.connections
    for _ in range(20):
        assert (await ask(webhook())).status == 200
    assert upstream.connections - before < 5
