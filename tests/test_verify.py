"""Our verification against the providers' own: published vectors, and the official SDKs on good and bad input.

Where ours differs from an SDK, it is stricter with headers no provider writes, or it does not care about the case of
hex digits; each difference has a test or a branch that names it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.signature import Clock, SignatureVerifier
from stripe import WebhookSignature

from bridge import providers
from bridge.errors import Reason, Rejected
from bridge.model import Delivery, Handshake, Source, WebhookRequest
from bridge.verify import verify

PROVIDERS = providers.load()
NOW = 1_795_000_000
SECRET = "a secret"
TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)
BODIES = st.text(max_size=50).map(str.encode)
SPELLINGS = st.sampled_from([str.lower, str.upper])

Verdict = Delivery | Handshake | Reason


def ours(name: str, body: bytes, headers: dict[str, str], *, secret: str = SECRET, now: int = NOW) -> Verdict:
    """What `verify` makes of it; `now` in seconds."""
    request = WebhookRequest(headers=headers, body=body, received_at=now * 1000)
    source = Source(name=name, provider=name, prefix=name, secrets=(secret.encode(),))
    try:
        return verify(request, source=source, provider=PROVIDERS[name], now=now * 1000)
    except Rejected as rejected:
        return rejected.reason


def accepts(verifier: Callable[[], bool]) -> bool:
    """The SDKs raise TypeError, ValueError and more on what no provider sends."""
    try:
        return verifier()
    except Exception:  # noqa: BLE001 - whatever it raises, it did not accept
        return False


# --- vectors, each with its source

VECTORS = json.loads((Path(__file__).parent / "vectors" / "providers.json").read_text())
# `format-only`: a signature published without its secret, so there is nothing to check it with.
CHECKED = [vector for vector in VECTORS if vector["kind"] != "format-only"]


def test_every_kind_of_vector_is_known() -> None:
    kinds = {"official", "official-negative", "derived", "negative", "policy", "format-only"}
    assert {vector["kind"] for vector in VECTORS} == kinds
    assert {vector["provider"] for vector in CHECKED} == {"intercom", "slack", "stripe"}


@pytest.mark.parametrize("vector", CHECKED, ids=lambda vector: f"{vector['provider']}-{vector['name']}")
def test_a_vector_is_accepted_or_rejected_as_it_says(vector: dict[str, Any]) -> None:
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    now = vector.get("now", NOW)
    found = ours(vector["provider"], vector["body"].encode(), headers, secret=vector["secret"], now=now)
    # Policy: hex in upper case names the same bytes, so it is accepted.
    wanted = True if vector["kind"] == "policy" else vector["valid"]
    assert isinstance(found, Delivery | Handshake) is wanted
    for field, value in vector.get("expect", {}).items():
        assert getattr(found, {"challenge": "answer", "ts_ms": "occurred_at"}.get(field, field)) == value


# --- Stripe: https://github.com/stripe/stripe-python/blob/master/stripe/_webhook.py


def stripe_sdk(body: bytes, header: str) -> bool:
    return accepts(lambda: bool(WebhookSignature.verify_header(body.decode(), header, SECRET, 300)))


def stripe_ours(body: bytes, header: str, now: int) -> Verdict:
    return ours("stripe", body, {"stripe-signature": header}, now=now)


def stripe_mac(body: bytes, stamp: int, secret: str = SECRET) -> str:
    header: str = WebhookSignature.generate_signature_header(body.decode(), secret, timestamp=stamp)
    return header.rpartition("=")[2]


@given(body=BODIES)
def test_what_we_sign_for_stripe_its_sdk_accepts_and_the_other_way_round(body: bytes) -> None:
    now = int(time.time())
    header = PROVIDERS["stripe"].scheme.sign(body, secret=SECRET.encode(), now=now * 1000)["stripe-signature"]
    assert stripe_sdk(body, header)
    assert header == WebhookSignature.generate_signature_header(body.decode(), SECRET, timestamp=now)


@settings(max_examples=200, deadline=None)
@given(
    body=BODIES,
    age=st.sampled_from([0, 200, 400, 10_000, -200, -10_000]),
    others=st.lists(st.sampled_from(["v1", "v1 of another", "v0", "v1 of zeros", "v2=x", "empty"]), unique=True),
    order=st.randoms(use_true_random=False),
)
def test_on_headers_as_stripe_writes_them_we_agree_with_its_sdk_but_for_the_future(
    body: bytes, age: int, others: list[str], order: Any
) -> None:
    now = int(time.time())  # the SDK asks the clock itself; no age here is near a limit
    stamp = now - age
    good = stripe_mac(body, stamp)
    written = {
        "v1": f"v1={good}",
        "v1 of another": f"v1={stripe_mac(body, stamp, 'another secret')}",
        "v0": f"v0={good}",
        "v1 of zeros": f"v1={'0' * 64}",
        "empty": "",
    }
    parts = [f"t={stamp}", *(written.get(other, other) for other in others)]
    order.shuffle(parts)
    found, theirs = stripe_ours(body, ",".join(parts), now), stripe_sdk(body, ",".join(parts))
    if theirs and age < -300:
        assert found is Reason.IN_FUTURE
    else:
        assert isinstance(found, Delivery) is theirs


PARTS = [
    *("t={now}", "t=0{now}", "t= {now}", "t=+{now}", "t={wide}", " t={now}", "t={now} ", "t=1", "t=", "t", "T={now}"),
    *("v1={good}", " v1={good}", "v1={good} ", "v1={GOOD}", "V1={good}", "v1={good}=", "v1={good}0", "v1=00", "v1=zz"),
    *("v1=é", "v1=\udce9", "v1=", "v1", "v0={good}", "", "x=y"),
]


@settings(max_examples=500, deadline=None)
@given(chosen=st.lists(st.sampled_from(PARTS), max_size=4), junk=st.none() | st.tuples(st.integers(0, 99), TEXT))
def test_on_any_header_we_accept_no_more_than_the_sdk_of_stripe(
    chosen: list[str], junk: tuple[int, str] | None
) -> None:
    now = int(time.time())
    good = stripe_mac(b"{}", now)
    wide = "".join(chr(ord(digit) + 0xFEE0) for digit in str(now))  # full-width digits: int() takes them
    header = ",".join(["t={now}", "v1={good}", *chosen][len(chosen) % 3 :]).format(
        now=now, wide=wide, good=good, GOOD=good.upper()
    )
    if junk is not None:
        header = header[: junk[0]] + junk[1] + header[junk[0] :]
    found, theirs = stripe_ours(b"{}", header, now), stripe_sdk(b"{}", header)
    if isinstance(found, Delivery):
        assert stripe_sdk(b"{}", as_stripe_writes_it(header))
    elif theirs:
        assert no_honest_header(header)


def as_stripe_writes_it(header: str) -> str:
    """Less what we overlook: spaces around a part, a part without a value, the case of hex digits."""
    parts = [part.strip(" ") for part in header.split(",") if "=" in part]
    return ",".join(part.lower() if part.startswith("v1=") else part for part in parts)


def no_honest_header(header: str) -> bool:
    """More than one time, a time with more than digits in it or a leading zero, or a v1 that is no hex."""
    fields = [part.partition("=") for part in header.split(",")]
    stamps = [value for key, _, value in fields if key.strip(" ") == "t"]
    macs = [value for key, _, value in fields if key.strip(" ") == "v1"]
    plain = all(re.fullmatch("[0-9a-fA-F]*", mac) and len(mac) % 2 == 0 for mac in macs)
    return len(stamps) != 1 or re.fullmatch("[1-9][0-9]*", stamps[0]) is None or not plain


# --- Slack: https://github.com/slackapi/python-slack-sdk/blob/main/slack_sdk/signature/__init__.py


class Stopped(Clock):
    def now(self) -> float:
        return NOW


SLACK = SignatureVerifier(SECRET, clock=Stopped())


def slack_headers(stamp: str, signature: str) -> dict[str, str]:
    return {"x-slack-request-timestamp": stamp, "x-slack-signature": signature}


def slack_signature(stamp: str, body: bytes) -> str:
    signature = SLACK.generate_signature(timestamp=stamp, body=body)
    assert signature is not None
    return signature


@given(body=BODIES)
def test_what_we_sign_for_slack_its_sdk_accepts_and_the_other_way_round(body: bytes) -> None:
    headers = PROVIDERS["slack"].scheme.sign(body, secret=SECRET.encode(), now=NOW * 1000)
    assert SLACK.is_valid_request(body, headers)
    assert headers == slack_headers(str(NOW), slack_signature(str(NOW), body))


@pytest.mark.parametrize("age", [0, 299, 300, 301, -299, -300, -301])
def test_we_agree_with_the_sdk_of_slack_about_age_to_the_second(age: int) -> None:
    stamp = str(NOW - age)
    headers = slack_headers(stamp, slack_signature(stamp, b"{}"))
    assert isinstance(ours("slack", b"{}", headers), Delivery) is SLACK.is_valid_request(b"{}", headers)


STAMPS = [
    str(NOW),
    str(NOW - 300),
    str(NOW - 301),
    str(NOW + 301),
    f"0{NOW}",
    f" {NOW}",
    f"{NOW}\n",
    f"+{NOW}",
    "",
    "x",
]


@settings(max_examples=500, deadline=None)
@given(
    body=BODIES,
    stamp=st.sampled_from([*STAMPS, f"{NOW // 10}_{NOW % 10}", "１７９５００００００"]) | TEXT,
    at=st.integers(0, 67),
    junk=st.just("") | TEXT,
    spelt=SPELLINGS,
)
def test_on_any_headers_we_and_the_sdk_of_slack_differ_only_where_no_honest_sender_goes(
    body: bytes, stamp: str, at: int, junk: str, spelt: Callable[[str], str]
) -> None:
    try:
        right = slack_signature(stamp, body)
    except UnicodeEncodeError:  # a surrogate in the stamp: nobody can sign that
        right = slack_signature("", body)
    right = right[:3] + spelt(right[3:])
    headers = slack_headers(stamp, right[:at] + junk + right[at:])
    found, theirs = ours("slack", body, headers), accepts(lambda: SLACK.is_valid_request(body, headers))
    if isinstance(found, Delivery | Handshake):
        assert SLACK.is_valid_request(body, {name: value.lower() for name, value in headers.items()})
    elif theirs:
        assert re.fullmatch("[0-9]{1,12}", stamp) is None


def test_a_body_that_is_not_utf8_is_checked_where_the_sdk_of_slack_raises() -> None:
    headers = PROVIDERS["slack"].scheme.sign(b"\xff", secret=SECRET.encode(), now=NOW * 1000)
    assert isinstance(ours("slack", b"\xff", headers), Delivery)
    with pytest.raises(UnicodeDecodeError):
        SLACK.is_valid_request(b"\xff", headers)


# --- Intercom has no verifier of its own: https://developers.intercom.com/docs/webhooks/webhook-notifications


@given(body=st.binary().filter(lambda body: b"ping" not in body))  # which would be a handshake
def test_intercom_is_plain_hmac_sha1_of_the_body(body: bytes) -> None:
    plain = "sha1=" + hmac.new(SECRET.encode(), body, hashlib.sha1).hexdigest()
    assert PROVIDERS["intercom"].scheme.sign(body, secret=SECRET.encode(), now=0) == {"x-hub-signature": plain}
    assert isinstance(ours("intercom", body, {"x-hub-signature": plain}), Delivery)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 45), end=st.integers(0, 45), junk=TEXT, spelt=SPELLINGS)
def test_for_intercom_only_the_mac_itself_is_accepted(
    at: int, end: int, junk: str, spelt: Callable[[str], str]
) -> None:
    plain = "sha1=" + hmac.new(SECRET.encode(), b"{}", hashlib.sha1).hexdigest()
    header = plain[:at] + junk + plain[end:]
    header = header[:5] + spelt(header[5:])
    same = header[:5] == "sha1=" and header[5:].lower() == plain[5:]
    assert isinstance(ours("intercom", b"{}", {"x-hub-signature": header}), Delivery) is same
