"""nginx and Caddy, as deploy/ has them, before a real bridge: what is signed gets through, and what the bridge says gets back."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio
from proxies import CADDY_OF_DEBIAN, HOST, PROXIES, ask, bridge_behind, connection, network
from receiving import Answer, another, answer, request
from service import SECRETS, Service, delivery, elapsed
from slack_sdk.signature import SignatureVerifier
from stripe import WebhookSignature
from tools import run

from bridge import samples

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUSY = {"stripe": 503, "slack": 503, "intercom": 429}
LIMIT = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    with network():
        yield


ALL = (*PROXIES, CADDY_OF_DEBIAN)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ALL, ids=lambda proxy: proxy.command[0])
async def bridge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    async with bridge_behind(request.param, tmp_path_factory.mktemp("proxy")) as running:
        yield running


def signed(provider: str, body: bytes) -> dict[str, str]:
    """By the provider's own library, where it has one."""
    now = int(time.time())
    match provider:
        case "stripe":
            secret = SECRETS["STRIPE_WEBHOOK_SECRET"]
            return {
                "Stripe-Signature": WebhookSignature.generate_signature_header(body.decode(), secret, timestamp=now)
            }
        case "slack":
            made = SignatureVerifier(SECRETS["SLACK_SIGNING_SECRET"]).generate_signature(timestamp=str(now), body=body)
            return {"X-Slack-Request-Timestamp": str(now), "X-Slack-Signature": str(made)}
    mac = hmac.new(SECRETS["INTERCOM_CLIENT_SECRET"].encode(), body, hashlib.sha1)
    return {"X-Hub-Signature": f"sha1={mac.hexdigest()}"}


def post(body: bytes, headers: dict[str, str], path: str = "/webhooks/stripe") -> bytes:
    """The bytes of a webhook."""
    return to_us(request("POST", path, headers, body))


def to_us(asked: bytes) -> bytes:
    return asked.replace(b"Host: bridge.test", f"Host: {HOST}".encode())


def padded(id_: str, size: int) -> bytes:
    """A delivery of Stripe's of exactly so many bytes."""
    return delivery(id_).ljust(size)


def in_chunks(body: bytes, headers: dict[str, str]) -> list[bytes]:
    """The same as `post`, cut into pieces of 64 KiB that nobody knows the number of."""
    pieces = [body[at : at + (1 << 16)] for at in range(0, len(body), 1 << 16)]
    head = post(b"", headers | {"Transfer-Encoding": "chunked"})
    return [head, *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), b"0\r\n\r\n"]


@pytest.mark.parametrize("provider", BUSY)
async def test_every_sample_is_accepted_as_its_provider_signs_it(bridge: Service, provider: str) -> None:
    for name in samples.names(provider):
        body = samples.body(provider, name)
        answered = await ask(post(body, signed(provider, body), f"/webhooks/{provider}"))
        assert (answered.status, answered.body) == (200, b""), name
    ids = {entry.id for entry in (await bridge.entries()).values() if entry.source == provider}
    assert len(ids) == len(samples.names(provider))


ODD = {
    "every byte": bytes(range(256)),
    "line ends": b'{"id":"evt_ends",\r\n\n\r"type":"a.b"}\r\n',
    "a byte order mark": b"\xef\xbb\xbf" + delivery("bom"),
    "no UTF-8": b'{"id":"evt_odd","type":"a.b","x":"\xe9\xff"}',
    "a form in percent signs": b"payload=%7B%22a%22%3A+%22%c3%a4%22%7d&x=%zz&&=",
    "a request": b"POST /webhooks/slack HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "nothing but zeros": bytes(5000),
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
@pytest.mark.usefixtures("bridge")
async def test_odd_bodies_get_through_byte_by_byte(body: bytes) -> None:
    """What is signed is a 200, whatever it is; one changed byte is a 401."""
    headers = signed("intercom", body)  # the libraries of the others sign text alone
    assert (await ask(post(body, headers, "/webhooks/intercom"))).status == 200
    assert (await ask(post(body[:-1] + b"!", headers, "/webhooks/intercom"))).status == 401


@pytest.fixture
def refused(request: pytest.FixtureRequest) -> set[int]:
    """What a body that is too large comes to. Caddy 2.6 takes it, now and then, for a fault of the bridge's."""
    return {413, 503} if request.node.callspec.params["bridge"] is CADDY_OF_DEBIAN else {413}


@pytest.mark.usefixtures("bridge")
async def test_a_body_as_large_as_the_bridge_takes_gets_through_and_a_larger_one_is_a_413(refused: set[int]) -> None:
    for size, statuses in ((LIMIT - 1, {200}), (LIMIT, {200}), (LIMIT + 1, refused)):
        body = padded(f"large{size}", size)
        assert (await ask(post(body, signed("stripe", body)))).status in statuses, size
        body = padded(f"chunks{size}", size)
        assert (await ask(*in_chunks(body, signed("stripe", body)))).status in statuses, size


@pytest.mark.usefixtures("bridge")
async def test_a_packed_body_stays_packed() -> None:
    """What was signed is what was sent: to unpack it would change it, and a bomb would go off."""
    body = gzip.compress(delivery("packed"))
    headers = signed("intercom", body) | {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert (await ask(post(body, headers, "/webhooks/intercom"))).status == 200


@pytest.mark.usefixtures("bridge")
async def test_who_waits_for_a_100_gets_one() -> None:
    body = padded("waited", 200_000)
    head, rest = post(body, signed("stripe", body) | {"Expect": "100-continue"}).split(b"\r\n\r\n", 1)
    async with connection() as (reader, writer):
        writer.write(head + b"\r\n\r\n")
        assert (await answer(reader)).status == 100
        writer.write(rest)
        assert (await answer(reader)).status == 200


async def test_http_2_or_what_it_becomes_changes_nothing(bridge: Service) -> None:
    """Caddy speaks it, and the bridge does not; nginx speaks 1.1 to all."""
    body = samples.body("slack", "slash_command")
    (bridge.folder / "body").write_bytes(body)
    headers = [part for pair in signed("slack", body).items() for part in ("--header", ": ".join(pair))]
    options: list[str | Path] = [
        "--silent",
        "--http2",
        "--cacert",
        bridge.folder / "authority.pem",
        "--resolve",
        f"{HOST}:443:127.0.0.1",
    ]
    what = ["--data-binary", f"@{bridge.folder / 'body'}", "--write-out", "%{http_version} %{http_code}"]
    said = run("curl", *options, *what, *headers, f"https://{HOST}/webhooks/slack")
    assert said in {"1.1 200", "2 200"}


@pytest.mark.usefixtures("bridge")
async def test_what_else_the_public_listener_has_gets_through() -> None:
    body = delivery("slash")
    assert (await ask(post(body, signed("stripe", body), "/webhooks/stripe/"))).status == 200
    for method, path, status in (
        ("HEAD", "/webhooks/intercom", 200),
        ("HEAD", "/webhooks/intercom/", 200),
        ("HEAD", "/webhooks/nobody", 404),
        ("GET", "/webhooks/stripe", 405),
        ("GET", "/healthz", 200),
        ("HEAD", "/healthz", 200),
    ):
        answered = await ask(to_us(request(method, path)), head=method == "HEAD")
        assert answered.status == status, path
    assert (await ask(post(b"{}", {}))).status == 401


NOT_PUBLIC = (
    *("/", "/metrics", "/readyz", "/admin", "/webhooks", "/webhooks..", "/webhooksx", "/healthz/", "/healthzx", "*"),
    *("//metrics", "/webhooks/../metrics", "/webhooks/stripe/../../metrics", "/webhooks/./../metrics", "/%2fmetrics"),
    *("/healthz/../metrics", "/webhooks/%2e%2e/metrics", "/webhooks/..%2fmetrics", "/webhooks/..%2Freadyz"),
    *("/webhooks%2f..%2fmetrics", "/webhooks/..%5cmetrics", "/webhooks/..;/metrics", "/webhooks/%00/metrics"),
    *("/webhooks/%252e%252e/metrics", "/webhooks/stripe%0d%0aX:y", "http://127.0.0.1:8081/metrics"),
    *("http://localhost:8081/webhooks/../metrics", f"https://{HOST}/metrics", "//127.0.0.1:8081/metrics"),
    *("/webhooks//127.0.0.1:8081/metrics", "/webhooks/http://127.0.0.1:8081/metrics", "/.well-known/x"),
)


@pytest.mark.parametrize("target", NOT_PUBLIC)
@pytest.mark.usefixtures("bridge")
async def test_nothing_else_is_there(target: str) -> None:
    """Above all not the private listener, nor a redirect to anywhere."""
    for method in ("GET", "POST"):
        answered = await ask(to_us(request(method, target)))
        assert answered.status in {400, 404, 405}, method
        assert b"bridge_" not in answered.body and b"ready" not in answered.body


@pytest.mark.usefixtures("bridge")
async def test_another_host_gets_no_200() -> None:
    """A webhook that is answered so is never sent again."""
    assert (await ask(request("POST", "/webhooks/stripe", {}, b"{}"))).status in {401, 404}
    assert (await ask(request("POST", "/", {}, b"{}"))).status == 404


async def each(n: int) -> dict[str, Answer]:
    """What is said to a delivery never seen before, of every provider."""
    bodies = {provider: another(provider, n) for provider in BUSY}
    asked = [ask(post(body, signed(provider, body), f"/webhooks/{provider}")) for provider, body in bodies.items()]
    return dict(zip(bodies, await asyncio.gather(*asked), strict=True))


def are_asked_to_come_again(answers: Mapping[str, Answer]) -> None:
    assert {provider: answered.status for provider, answered in answers.items()} == BUSY
    assert {answered.headers["retry-after"] for answered in answers.values()} == {"5"}


async def test_what_the_bridge_says_when_it_can_not_store_gets_through(bridge: Service) -> None:
    other = sqlite3.connect(bridge.folder / "bridge.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    answers = await each(1)
    other.close()
    are_asked_to_come_again(answers)
    assert {answered.body for answered in answers.values()} == {b""}, "as the bridge itself says it"
    await bridge.until_ready()
    assert {answered.status for answered in (await each(1)).values()} == {200}


async def test_while_the_bridge_is_away_providers_are_asked_to_come_again(bridge: Service) -> None:
    """As the bridge itself would: Intercom gives up after a 502 and another one a minute later."""
    await bridge.stop()
    answers = await each(2)
    health = await ask(to_us(request("GET", "/healthz")))
    await bridge.start()
    are_asked_to_come_again(answers)
    assert (health.status, health.headers["retry-after"]) == (503, "5")
    assert {answered.status for answered in (await each(2)).values()} == {200}


async def test_while_the_bridge_hangs_providers_are_asked_to_come_again(bridge: Service) -> None:
    os.kill(bridge.child("receiver"), signal.SIGSTOP)
    since = elapsed()
    answers = await each(3)
    os.kill(bridge.child("receiver"), signal.SIGCONT)
    are_asked_to_come_again(answers)
    assert 10 < since() < 20, "the bridge itself takes 10 s to say that its journal is stuck"
    assert {answered.status for answered in (await each(3)).values()} == {200}
