"""Strangers at nginx and Caddy, as deploy/ has them: slow, many, malformed. They are let go of, and webhooks get through meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress

import malformed
import pytest
import pytest_asyncio
from malformed import Webhook
from proxies import HOST, PROXIES, Proxy, ask, bridge_behind, connection, network
from receiving import Answer, answer
from service import SECRETS, Service, delivery, elapsed

from bridge import providers
from bridge.clock import wall_clock

pytestmark = pytest.mark.asyncio(loop_scope="module")

ELSEWHERE = "127.0.0.2"


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    with network():
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PROXIES, ids=lambda proxy: proxy.name)
async def proxy(request: pytest.FixtureRequest) -> AsyncIterator[Proxy]:
    yield request.param


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bridge(proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    async with bridge_behind(proxy, tmp_path_factory.mktemp(proxy.name)) as running:
        yield running


def webhook(id_: str) -> Webhook:
    body = delivery(id_)
    scheme = providers.load()["stripe"].scheme
    return Webhook(scheme.sign(body, secret=SECRETS["STRIPE_WEBHOOK_SECRET"].encode(), now=wall_clock()), body)


def good(id_: str) -> bytes:
    return to_us(webhook(id_).asking(b"POST /webhooks/stripe HTTP/1.1"))


def to_us(asked: bytes) -> bytes:
    return asked.replace(b"Host: bridge.test", f"Host: {HOST}".encode())


async def lasts(*, first: bytes, then: bytes = b"") -> float:
    """Seconds until a connection is closed on which this is said, then the rest again and again, a bit each second."""
    since = elapsed()
    async with asyncio.timeout(60), connection(ELSEWHERE) as (reader, writer):
        writer.write(first)
        closed = asyncio.create_task(reader.read())
        while not closed.done():
            with suppress(ConnectionError):
                writer.write(then)
            await asyncio.wait([closed], timeout=1)
        with suppress(ConnectionError):
            await closed
    return since()


async def lasts_without_tls() -> float:
    since = elapsed()
    reader, writer = await asyncio.open_connection("127.0.0.1", 443, local_addr=(ELSEWHERE, 0))
    with suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return since()


@pytest.mark.usefixtures("bridge")
async def test_who_is_slow_is_let_go_of() -> None:
    head = to_us(webhook("slow").head(b"Content-Length: 5000"))
    chunked = to_us(webhook("slow").head(malformed.CHUNKED)) + b"5000\r\n"
    took = await asyncio.gather(
        lasts(first=head, then=b"x"),
        lasts(first=head),
        lasts(first=chunked, then=b"x"),
        lasts(first=head[:40], then=b"x"),
        lasts(first=head[:40]),
        lasts(first=b""),
        lasts_without_tls(),
    )
    assert max(took) < 30, took


async def held(stack: AsyncExitStack, first: bytes, count: int) -> list[asyncio.Task[Answer]]:
    """What is said on so many connections of one address that all begin so, and do not go on."""

    async def hold() -> asyncio.Task[Answer]:
        reader, writer = await stack.enter_async_context(connection(ELSEWHERE))
        writer.write(first)
        return asyncio.create_task(answer(reader))

    return await asyncio.gather(*(hold() for _ in range(count)))


@pytest.mark.usefixtures("bridge")
async def test_one_stranger_keeps_nobody_out(proxy: Proxy) -> None:
    """Of one who sends hundreds of bodies at once, nginx holds 256; Caddy has no such limit, and holds them all for 10 s."""
    head = to_us(webhook("held").head(b"Content-Length: 5000"))
    async with AsyncExitStack() as stack:
        answers = await held(stack, head, 300) + await held(stack, head[:40], 100)
        for n in range(20):
            since = elapsed()
            assert (await ask(good(f"meanwhile{n}"))).status == 200
            assert since() < 3
        told = [each.result() for each in answers if each.done()]
        assert len(told) == {"nginx": 300 - 256, "caddy": 0}[proxy.name]
        assert {(each.status, each.headers["retry-after"]) for each in told} <= {(503, "5")}
        for each in answers:
            each.cancel()


@pytest.mark.usefixtures("bridge")
async def test_a_head_has_32_kib() -> None:
    for size, statuses in ((20_000, {200}), (50_000, {400, 431})):
        lines = (b"X-%d: %b" % (n, b"v" * 5_000) for n in range(size // 5_000))
        body = webhook(f"head{size}")
        asked = to_us(body.asking(b"POST /webhooks/stripe HTTP/1.1", *lines))
        assert (await ask(asked)).status in statuses, size


async def test_what_is_malformed_is_taken_whole_or_not_at_all_and_spoils_no_other(bridge: Service) -> None:
    """Where proxy and bridge saw different ends of a request, they would not agree on the answers to all behind it."""
    parts = (malformed.lengths, malformed.encodings, malformed.chunks, malformed.heads)
    all_ = [(part, name) for part in parts for name in part(webhook("any"))]

    async def throw(n: int, part: Callable[[Webhook], dict[str, bytes]], name: str) -> int:
        answered = await ask(to_us(part(webhook(f"malformed{n}"))[name]), source=ELSEWHERE)
        assert (await ask(good(f"after{n}"))).status == 200
        return answered.status

    statuses = await asyncio.gather(*(throw(n, *each) for n, each in enumerate(all_)))
    stored = {id_.removeprefix("evt_") for id_ in await bridge.entries()}
    assert stored >= {f"after{n}" for n in range(len(all_))}
    taken = {n for n, status in enumerate(statuses) if status == 200}
    assert {f"malformed{n}" for n in taken} == {id_ for id_ in stored if "malformed" in id_}
    assert len(taken) < len(all_) / 4
