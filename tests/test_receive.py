"""The addresses and the answers to a provider, row by row, over real HTTP and with a real journal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from receiving import BODIES, LIMIT, NOW, PROVIDERS, Receiving, answer, connection, receiving, request

from bridge import samples
from bridge.model import Source, State

CHALLENGE = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"


@pytest.fixture
async def bridge(tmp_path: Path) -> AsyncIterator[Receiving]:
    async with receiving(tmp_path) as found:
        yield found


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_is_stored_is_answered_200_with_nothing(bridge: Receiving, provider: str) -> None:
    answered = await bridge.post(provider, BODIES[provider])
    assert (answered.status, answered.body) == (200, b"")
    [entry] = await bridge.entries()
    loaded = await bridge.store.load(entry.seq)
    assert loaded is not None and loaded.body == BODIES[provider]
    assert (entry.source, entry.state, entry.received_at) == (provider, State.PENDING, NOW)
    assert set(loaded.headers or {}) >= set(bridge.signed(provider, b"")), "it can be verified again"
    assert bridge.count("bridge_deliveries_total", source=provider, outcome="accepted") == 1
    assert bridge.count("bridge_ack_seconds_count", source=provider) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_was_seen_before_is_answered_the_same_and_stored_once(bridge: Receiving, provider: str) -> None:
    first = await bridge.post(provider, BODIES[provider])
    bridge.now += 1000  # signed anew, as a provider's retry is
    second = await bridge.post(provider, BODIES[provider])
    assert (second.status, second.body) == (first.status, first.body) == (200, b"")
    assert len(await bridge.entries()) == 1
    assert bridge.count("bridge_deliveries_total", source=provider, outcome="accepted") == 1
    assert bridge.count("bridge_deliveries_total", source=provider, outcome="duplicate") == 1


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_trailing_slash_is_the_same_url_without_a_redirect(bridge: Receiving, provider: str) -> None:
    body = BODIES[provider]
    answered = await bridge.ask(request("POST", f"/webhooks/{provider}/", bridge.signed(provider, body), body))
    assert (answered.status, answered.body) == (200, b"")
    assert len(await bridge.entries()) == 1


@pytest.mark.parametrize("target", ["/webhooks/intercom", "/webhooks/intercom/"])
async def test_head_says_that_the_url_is_there(bridge: Receiving, target: str) -> None:
    for there, status in ((target, 200), ("/webhooks/nobody", 404)):
        async with connection(bridge.port) as (reader, writer):
            writer.write(request("HEAD", there))
            assert (await answer(reader, head=True)).status == status


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_other_methods_are_not_allowed(bridge: Receiving, method: str) -> None:
    answered = await bridge.ask(request(method, "/webhooks/stripe"))
    assert (answered.status, answered.headers["allow"]) == (405, "HEAD,POST")


async def test_an_unknown_source_is_not_found_whoever_signed(bridge: Receiving) -> None:
    body = BODIES["stripe"]
    for target in ("/webhooks/nobody", "/webhooks/nobody/", "/webhooks/", "/webhooks", "/webhooks/stripe/x", "/"):
        answered = await bridge.ask(request("POST", target, bridge.signed("stripe", body), body))
        assert answered.status == 404, target
    assert await bridge.entries() == []


async def test_the_public_listener_says_that_it_lives_and_no_more(bridge: Receiving) -> None:
    answered = await bridge.ask(request("GET", "/healthz"))
    assert (answered.status, answered.body) == (200, b"ok\n")
    for private in ("/readyz", "/metrics"):
        assert (await bridge.ask(request("GET", private))).status == 404


@pytest.mark.parametrize(
    ("source", "body", "expected"),
    [
        ("slack", f'{{"token":"t","challenge":"{CHALLENGE}","type":"url_verification"}}'.encode(), CHALLENGE.encode()),
        ("slack", b"token=t&ssl_check=1", b""),
        (
            "intercom",
            b'{"type":"notification_event","topic":"ping","id":"notif_1","data":{"item":{"type":"ping"}}}',
            b"",
        ),
        ("stripe", b'{"id":"evt_1","object":"v2.core.event","type":"v2.core.event_destination.ping"}', b""),
    ],
    ids=["url_verification", "ssl_check", "ping", "event_destination.ping"],
)
async def test_a_handshake_is_answered_and_gives_no_entry(
    bridge: Receiving, source: str, body: bytes, expected: bytes
) -> None:
    answered = await bridge.post(source, body)
    assert (answered.status, answered.body) == (200, expected)
    assert answered.headers["content-type"] == "text/plain; charset=utf-8"
    assert answered.headers["x-content-type-options"] == "nosniff"
    assert await bridge.entries() == []
    assert bridge.count("bridge_deliveries_total", source=source, outcome="handshake") == 1
    assert (await bridge.post(source, body, secret=b"another")).status == 401


async def test_every_rejection_looks_the_same_from_outside_and_the_reason_is_logged_and_counted(
    bridge: Receiving,
) -> None:
    body = BODIES["stripe"]
    [(name, good)] = bridge.signed("stripe", body).items()
    reasons = {
        "missing": {},
        "malformed": {name: "t=1,v1=xyz"},
        "mismatch": {name: good[:-4] + ("0000" if good[-4:] != "0000" else "1111")},
        "too_old": bridge.signed("stripe", body, now=NOW - 301_000),
        "in_future": bridge.signed("stripe", body, now=NOW + 301_000),
    }
    answers = [await bridge.post("stripe", body, headers) for headers in reasons.values()]
    assert {(each.status, each.body) for each in answers} == {(401, b"The signature could not be verified.\n")}
    assert await bridge.entries() == []
    lines = [line for line in bridge.log() if line["event"] == "delivery.rejected"]
    assert [(line["source"], line["reason"], line["count"]) for line in lines] == [
        ("stripe", reason, 1) for reason in reasons
    ]
    for reason in reasons:
        assert bridge.count("bridge_rejections_total", source="stripe", reason=reason) == 1, reason
    assert bridge.count("bridge_deliveries_total", source="stripe", outcome="rejected") == 5
    assert bridge.count("bridge_ack_seconds_count", source="stripe") == 0, "only what was acknowledged"


async def test_the_tolerance_reaches_to_its_very_end(bridge: Receiving) -> None:
    for now in (NOW - 300_000, NOW + 300_000):
        assert (await bridge.post("slack", BODIES["slack"], now=now)).status == 200


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_largest_body_is_stored_and_one_byte_more_is_not(bridge: Receiving, provider: str) -> None:
    largest = BODIES[provider][:-1].ljust(LIMIT - 1) + b"}"
    assert (await bridge.post(provider, largest)).status == 200
    refused = await bridge.post(provider, largest + b" ")
    assert (refused.status, refused.body) == (413, b"")
    assert refused.headers["connection"] == "close"
    assert len(await bridge.entries()) == 1
    assert bridge.count("bridge_rejections_total", source=provider, reason="too_large") == 1


async def test_a_chunked_body_is_stored_as_any_other_and_refused_when_it_grows_too_large(bridge: Receiving) -> None:
    body = BODIES["stripe"]
    headers = bridge.signed("stripe", body) | {"Transfer-Encoding": "chunked"}
    head, chunk = request("POST", "/webhooks/stripe", headers), b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    pieces = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:])]
    assert (await bridge.ask(head, *pieces, b"0\r\n\r\n")).status == 200
    assert len(await bridge.entries()) == 1
    refused = await bridge.ask(head, *[chunk] * (LIMIT // 0x1000 + 1), b"0\r\n\r\n")
    assert (refused.status, refused.headers["connection"]) == (413, "close")


async def test_any_of_several_secrets_will_do(tmp_path: Path) -> None:
    rotated = Source(name="stripe", provider="stripe", prefix="stripe", secrets=(b"new", b"old"))
    async with receiving(tmp_path, sources=[rotated]) as bridge:
        for secret, status in ((b"new", 200), (b"old", 200), (b"older", 401)):
            assert (await bridge.post("stripe", BODIES["stripe"], secret=secret)).status == status


async def test_two_sources_of_one_provider_know_nothing_of_each_other(tmp_path: Path) -> None:
    both = [Source(name=n, provider="stripe", prefix=n, secrets=(n.encode(),)) for n in ("live", "test")]
    async with receiving(tmp_path, sources=both) as bridge:
        assert (await bridge.post("live", BODIES["stripe"], secret=b"test")).status == 401
        for name in ("live", "test"):
            assert (await bridge.post(name, BODIES["stripe"])).status == 200
        assert [(e.source, e.prefix, e.id) for e in await bridge.entries()] == [
            ("live", "live", "evt_1"),
            ("test", "test", "evt_1"),
        ]
        assert (await bridge.ask(request("POST", "/webhooks/stripe"))).status == 404


async def test_slacks_own_retries_are_stored_with_what_they_say_of_themselves(bridge: Receiving) -> None:
    body = BODIES["slack"]
    retry = {"X-Slack-Retry-Num": "2", "X-Slack-Retry-Reason": "http_timeout"}
    assert (await bridge.post("slack", body, bridge.signed("slack", body) | retry)).status == 200
    [entry] = await bridge.entries()
    loaded = await bridge.store.load(entry.seq)
    assert loaded is not None and loaded.headers is not None
    assert (loaded.headers["x-slack-retry-num"], loaded.headers["x-slack-retry-reason"]) == ("2", "http_timeout")
    assert "x-slack-no-retry" not in (await bridge.post("slack", body)).headers


@pytest.mark.parametrize("name", [name for name in samples.names("slack") if b"=" in samples.body("slack", name)[:20]])
async def test_slacks_forms_are_stored_under_their_type(bridge: Receiving, name: str) -> None:
    body = samples.body("slack", name)
    headers = bridge.signed("slack", body) | {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await bridge.post("slack", body, headers)).status == 200
    [entry] = await bridge.entries()
    assert (entry.type, entry.state) == (name, State.PENDING)


async def test_a_slack_form_without_anything_to_name_it_by_is_stored_dead(bridge: Receiving) -> None:
    assert (await bridge.post("slack", urlencode({"payload": "{}"}).encode())).status == 200
    entry, attempt = await bridge.only_attempt()
    assert (entry.state, attempt.error) == (State.DEAD, "type: missing")
