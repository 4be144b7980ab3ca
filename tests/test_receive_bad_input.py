"""What anybody may send: never a 500, never a byte of it in the log, and nothing unproven in the journal."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from receiving import BODIES, NOW, PROVIDERS, Receiving, receiving, request

from bridge.model import Outcome, State

CANARY = b"canary-in-the-request"
SIGNATURES = {"stripe": "Stripe-Signature", "slack": "X-Slack-Signature", "intercom": "X-Hub-Signature"}
STAMPS = {
    "full-width digits": "１２".encode(),
    "full-width now": "".join(chr(0xFEE0 + ord(d)) for d in str(NOW // 1000)).encode(),
    "spaces": b" 5 ",
    "underscore": b"1_0",
    "negative": b"-1",
    "plus": b"+%d" % (NOW // 1000),
    "40 digits": b"1" * 40,
    "a fraction": b"%d.0" % (NOW // 1000),
    "exponent": b"1e9",
    "bytes that are no text": b"\xe9\xff",
    "nothing": b"",
}
LOGGED = {"delivery.rejected", "delivery.failed", "entry.dead", "library.message"}


@pytest.fixture
async def bridge(tmp_path: Path) -> AsyncIterator[Receiving]:
    async with receiving(tmp_path, read_timeout=0.2) as found:
        yield found
        assert CANARY.decode() not in found.logged.getvalue()
        assert "Traceback" not in found.logged.getvalue()
        assert {line["event"] for line in found.log()} <= LOGGED
        assert not [line for line in found.log() if line.get("error")], "nothing was raised that nobody expected"


def headers_of(bridge: Receiving, source: str, body: bytes, *, instead: bytes) -> list[tuple[str, bytes]]:
    """What signs the body, with another value of the signature header."""
    signed = {name.lower(): value.encode() for name, value in bridge.signed(source, body).items()}
    return [*(signed | {SIGNATURES[source].lower(): instead}).items()]


@pytest.mark.parametrize("source", PROVIDERS)
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"\xe9\xff",
        b"v0=\xe9\xff",
        b"sha1=" + "ü".encode() * 20,
        b"t=\xe9\xff,v1=\xe9\xff",
        b"t=,v1=",
        b"t=%d,v1=zz" % (NOW // 1000),
        b"t=%d,v1=" % (NOW // 1000) + b"0" * 63,
        b"v0=" + b"0" * 64,
        b"sha1=" + b"f" * 40,
        b",=,=,=,",
        b"v1,bm90IGhleA==",
        b"t=%d" % (NOW // 1000) + b",v1=00" * 500,
        CANARY,
    ],
)
async def test_a_signature_no_honest_sender_writes_is_refused(bridge: Receiving, source: str, value: bytes) -> None:
    body = BODIES[source]
    headers = headers_of(bridge, source, body, instead=value)
    refused = await bridge.ask(request("POST", f"/webhooks/{source}", headers, body))
    assert (refused.status, refused.body) == (401, b"The signature could not be verified.\n")
    assert await bridge.entries() == []


@pytest.mark.parametrize("source", PROVIDERS)
async def test_a_signature_beside_another_is_refused(bridge: Receiving, source: str) -> None:
    """Which of them would a proxy in front of us have looked at?"""
    name, body = SIGNATURES[source], BODIES[source]
    signed = {name.lower(): value.encode() for name, value in bridge.signed(source, body).items()}
    forged = {name.lower(): value.encode() for name, value in bridge.signed(source, body, secret=b"x").items()}
    good, bad = signed[name.lower()], forged[name.lower()]
    for first, second in ((good, good), (good, bad), (bad, good)):
        headers = [*(signed | {name.lower(): first}).items(), (name, second)]
        assert (await bridge.ask(request("POST", f"/webhooks/{source}", headers, body))).status == 401
    assert await bridge.entries() == []


@pytest.mark.parametrize("source", PROVIDERS)
async def test_a_header_of_64_kib_is_refused(bridge: Receiving, source: str) -> None:
    headers = headers_of(bridge, source, b"{}", instead=CANARY * 3200)
    assert (await bridge.ask(request("POST", f"/webhooks/{source}", headers, b"{}"))).status in {400, 401}


@pytest.mark.parametrize("stamp", STAMPS.values(), ids=STAMPS)
async def test_a_timestamp_that_is_no_plain_number_is_refused(bridge: Receiving, stamp: bytes) -> None:
    """Signed over the header's own text, so that the number alone is at fault."""
    body = BODIES["slack"]
    signed = bridge.signed("slack", body) | {"x-slack-request-timestamp": stamp}
    assert (await bridge.post("slack", body, signed)).status == 401
    assert (await bridge.post("stripe", body, {"Stripe-Signature": b"t=" + stamp + b",v1=" + b"0" * 64})).status == 401
    assert await bridge.entries() == []


DEAD = {
    "nothing": (b"", "the body is not JSON"),
    "not UTF-8": (b'{"id":"\xff\xfe"}', "the body is not JSON"),
    "not JSON": (b"<xml>%b</xml>" % CANARY, "the body is not JSON"),
    "a BOM": (b"\xef\xbb\xbf" + BODIES["stripe"], "the body is not JSON"),
    "no object": (b'["%b"]' % CANARY, "JSON, but not an object"),
    "a number": (b"1", "JSON, but not an object"),
    "too deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "the body is not JSON"),
    "arrays too deep": (b"[" * 100_000, "the body is not JSON"),
    "NaN": (BODIES["stripe"][:-1] + b',"x":NaN}', "the body is not JSON"),
    "Infinity": (BODIES["stripe"][:-1] + b',"x":-Infinity}', "the body is not JSON"),
    "a raw NUL": (BODIES["stripe"][:-1] + b',"x":"\0"}', "the body is not JSON"),
    "gzip": (gzip.compress(BODIES["stripe"]), "the body is not JSON"),
    "cut in half": (BODIES["stripe"][:40], "the body is not JSON"),
}


@pytest.mark.parametrize("source", PROVIDERS)
@pytest.mark.parametrize(("body", "reason"), DEAD.values(), ids=DEAD)
async def test_what_is_authentic_but_unusable_is_stored_dead_with_the_reason(
    bridge: Receiving, source: str, body: bytes, reason: str
) -> None:
    assert (await bridge.post(source, body, {})).status == 401, "unsigned"
    assert await bridge.entries() == []
    if source == "slack" and not body.startswith((b"{", b"[")):
        reason = ""  # read as a form, which says something else of each
    answered = await bridge.post(source, body)
    assert (answered.status, answered.body) == (200, b"")
    entry, attempt = await bridge.only_attempt()
    loaded = await bridge.store.load(entry.seq)
    assert loaded is not None and loaded.body == body
    assert (entry.state, attempt.outcome) == (State.DEAD, Outcome.UNUSABLE)
    assert reason in attempt.error and attempt.error
    assert CANARY.decode() not in attempt.error


SNAPSHOT = {"id": "evt_1", "object": "event", "type": "customer.created", "created": 1767225599}
USELESS = {
    "an id that is no string": ({"id": 5}, "id: a number instead of a string"),
    "an id that is a list": ({"id": ["evt_1"]}, "id: an array instead of a string"),
    "no id": ({"id": None}, "id: missing"),
    "an empty id": ({"id": ""}, "id: empty"),
    "an id of 10 KB": ({"id": "e" * 10_000}, "id: 10000 characters, at most 255 can be used"),
    "an id with a line break": ({"id": "evt\n1"}, "id: contains control characters"),
    "an id with a NUL": ({"id": "evt\x001"}, "id: contains control characters"),
    "no type": ({"type": None}, "type: missing"),
    "a type that is an object": ({"type": {}}, "type: an object instead of a string"),
    "a type that is a boolean": ({"type": True}, "type: a boolean instead of a string"),
    "a type of 10 KB": ({"type": "t" * 10_000}, "type: 10000 characters, at most 255 can be used"),
    "a type with an escape": ({"type": "a\x1b[31m"}, "type: contains control characters"),
    "Inngest's own name": ({"type": "inngest/function.failed"}, "type: begins with `inngest/`"),
    "Inngest's own name, shouted": ({"type": "INNGEST/x"}, "type: begins with `inngest/`"),
    "no event at all": ({"object": None}, "object: neither `event` nor `v2.core.event`"),
}


@pytest.mark.parametrize(("fields", "reason"), USELESS.values(), ids=USELESS)
async def test_an_id_or_a_type_that_cannot_be_used_is_stored_dead_with_the_reason(
    bridge: Receiving, fields: dict[str, object], reason: str
) -> None:
    body = orjson.dumps(SNAPSHOT | fields)
    assert (await bridge.post("stripe", body)).status == 200
    assert (await bridge.post("stripe", body)).status == 200, "and the same again is the same delivery"
    entry, attempt = await bridge.only_attempt()
    assert (entry.state, attempt.outcome) == (State.DEAD, Outcome.UNUSABLE)
    assert attempt.error.startswith(reason)


async def test_numbers_and_names_that_look_odd_are_the_senders_own_affair(bridge: Receiving) -> None:
    """Of duplicate keys the last wins, as in every parser; an escaped NUL is a character like others."""
    twice = BODIES["stripe"].replace(b'"id":"evt_1"', b'"id":"evt_0","id":"evt_2","x":"a\\u0000b"')
    assert (await bridge.post("stripe", twice)).status == 200
    [entry] = await bridge.entries()
    assert (entry.id, entry.state) == ("evt_2", State.PENDING)


async def test_what_was_signed_is_what_was_sent_whatever_content_encoding_says(bridge: Receiving) -> None:
    """A bomb stays a bomb: nobody inflates it, so its inflated bytes prove nothing."""
    bomb = gzip.compress(b" " * (50 << 20) + BODIES["stripe"])
    headers = {"Content-Encoding": "gzip"}
    assert (await bridge.post("stripe", bomb, bridge.signed("stripe", bomb) | headers)).status == 200
    entry, attempt = await bridge.only_attempt()
    assert (entry.state, entry.size, attempt.outcome) == (State.DEAD, len(bomb), Outcome.UNUSABLE)
    inflated = gzip.compress(BODIES["stripe"])
    assert (await bridge.post("stripe", inflated, bridge.signed("stripe", BODIES["stripe"]) | headers)).status == 401
    # A header that does not hold changes nothing for who signed what was sent.
    assert (
        await bridge.post("stripe", BODIES["stripe"], bridge.signed("stripe", BODIES["stripe"]) | headers)
    ).status == 200
