"""nginx and Caddy with their files changed as they say: several bridges, larger bodies; and Caddy's file by itself."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from proxies import CADDY, HOST, NGINX, PROXIES, Proxy, ask, bridge_behind, network
from receiving import Answer, request
from receiving import ask as ask_without_tls
from service import SECRETS, delivery, until
from tools import DEPLOY, run

from bridge import providers
from bridge.clock import wall_clock

SEVERAL = {
    NGINX.name: {"#server 10.0.0.2:8080": "server 127.0.0.1:8082"},
    CADDY.name: {"127.0.0.1:8080 {": "127.0.0.1:8080 127.0.0.1:8082 {\nlb_try_duration 2s\nfail_duration 2s"},
}
LARGER = {
    NGINX.name: {"client_max_body_size 1m": "client_max_body_size 32m"},
    CADDY.name: {"max_size 1MiB": "max_size 32MiB"},
}
LARGEST = 32 << 20


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    with network():
        yield


@pytest.fixture(params=PROXIES, ids=lambda proxy: proxy.name)
def proxy(request: pytest.FixtureRequest) -> Proxy:
    found: Proxy = request.param
    return found


@asynccontextmanager
async def listening(port: int, says: bytes) -> AsyncIterator[list[bytes]]:
    """In the place of a bridge: what it was sent. Says always the same, or nothing, and hangs up."""
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"{}"))
        writer.write(says)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield asked
    finally:
        server.close()


def post(body: bytes) -> bytes:
    """Of Stripe's."""
    secret = SECRETS["STRIPE_WEBHOOK_SECRET"].encode()
    signed = providers.load()["stripe"].scheme.sign(body, secret=secret, now=wall_clock())
    return request("POST", "/webhooks/stripe", signed, body).replace(b"bridge.test", HOST.encode())


async def answers(count: int) -> list[Answer]:
    return [await ask(post(b"{}")) for _ in range(count)]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def test_while_one_of_several_bridges_is_away_the_other_has_everything(proxy: Proxy, tmp_path: Path) -> None:
    async with proxy.running(tmp_path, SEVERAL[proxy.name]):
        async with listening(8082, OK) as second:
            assert {each.status for each in await answers(30)} == {200}
            assert len(second) == 30
        await asyncio.sleep(3)  # for 2 s the first is left out
        async with listening(8080, OK) as first:
            assert {each.status for each in await answers(30)} == {200}
            assert len(first) == 30


async def test_a_webhook_that_was_sent_to_one_bridge_is_not_sent_to_another(proxy: Proxy, tmp_path: Path) -> None:
    """One that was killed then, say. Nobody knows whether it had stored it: the provider repeats it."""
    async with (
        proxy.running(tmp_path, SEVERAL[proxy.name]),
        listening(8080, b"") as first,
        listening(8082, b"") as second,
    ):
        [told] = await answers(1)
        assert (told.status, told.headers["retry-after"]) == (503, "5")
        assert len(first) + len(second) == 1


async def test_a_larger_body_needs_a_larger_limit(proxy: Proxy, tmp_path: Path) -> None:
    largest = f'[sources.stripe]\nprovider = "stripe"\nmax_body = {LARGEST}\n'
    async with bridge_behind(proxy, tmp_path, changes=LARGER[proxy.name], settings=largest):
        assert (await ask(post(delivery("largest").ljust(LARGEST)))).status == 200
        assert (await ask(post(delivery("larger").ljust(LARGEST + 1)))).status == 413


async def test_without_tls_there_is_nothing_but_caddy_s_redirect(proxy: Proxy, tmp_path: Path) -> None:
    async with proxy.running(tmp_path):
        if proxy is NGINX:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", 80)
        else:
            told = await ask_without_tls(80, post(b"{}"))
            assert (told.status, told.headers["location"]) == (308, f"https://{HOST}/webhooks/stripe")


def test_the_caddyfile_is_valid_and_formatted() -> None:
    file = DEPLOY / CADDY.file
    assert "Valid configuration" in run("caddy", "validate", "--adapter", "caddyfile", "--config", file)
    assert run("caddy", "fmt", file) == file.read_text()


async def test_caddy_gets_a_certificate_for_its_host_alone(tmp_path: Path) -> None:
    """Here from an authority of its own: the one it would ask is not on this network."""
    given = f"\ttls {tmp_path}/chain.pem {tmp_path}/key.pem\n"
    its_own = "{\n\tlocal_certs\n\tskip_install_trust\n\tservers"
    authority = tmp_path / "caddy/pki/authorities/local/root.crt"
    async with CADDY.running(tmp_path, {given: "", "{\n\tservers": its_own}):
        await until((tmp_path / f"caddy/certificates/local/{HOST}/{HOST}.crt").exists)
        trusting = ssl.create_default_context(cafile=authority)
        _, writer = await asyncio.open_connection("127.0.0.1", 443, ssl=trusting, server_hostname=HOST)
        writer.close()
        with pytest.raises(ssl.SSLError, match="ALERT"):
            await asyncio.open_connection("127.0.0.1", 443, ssl=trusting, server_hostname="elsewhere.example.com")
