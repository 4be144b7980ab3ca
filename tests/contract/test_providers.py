"""Whom every provider lets in. A new one is found by itself: its module, and its recordings in `bridge/samples/`.

What is asked with any request at all is in `test_requests.py`.
"""

from __future__ import annotations

import json
import pkgutil
from dataclasses import replace

import pytest

from bridge import providers, samples
from bridge.errors import Reason, Rejected
from bridge.model import Delivery, Handshake, Source, WebhookRequest
from bridge.payload import at
from bridge.verify import verify

NOW = 1_795_000_000_000
TOLERANCE = 300_000
PROVIDERS = providers.load()
SAMPLES = [(provider, name) for provider in PROVIDERS for name in samples.names(provider)]


def signed(name: str, body: bytes, *, secret: bytes = b"right", at: int = NOW) -> WebhookRequest:
    headers = PROVIDERS[name].scheme.sign(body, secret=secret, now=at)
    return WebhookRequest(headers=headers, body=body, received_at=NOW)


def check(name: str, request: WebhookRequest, secrets: tuple[bytes, ...] = (b"right",)) -> Delivery | Handshake:
    source = Source(name="mine", provider=name, prefix="p", secrets=secrets, tolerance=TOLERANCE)
    return verify(request, source=source, provider=PROVIDERS[name], now=NOW)


def reason(name: str, request: WebhookRequest, secrets: tuple[bytes, ...] = (b"right",)) -> Reason:
    with pytest.raises(Rejected) as caught:
        check(name, request, secrets)
    return caught.value.reason


# Those whose signature says when it was made.
STAMPED = [name for name in PROVIDERS if signed(name, b"", at=0).headers != signed(name, b"").headers]

every = pytest.mark.parametrize("name", PROVIDERS)
stamped = pytest.mark.parametrize("name", STAMPED)
sampled = pytest.mark.parametrize(("name", "sample"), SAMPLES)


def test_its_name_is_that_of_its_module() -> None:
    assert list(PROVIDERS) == sorted(module.name for module in pkgutil.iter_modules(providers.__path__))


@every
def test_it_says_where_its_documentation_and_its_dashboard_are_and_which_variable_enables_it(name: str) -> None:
    provider = PROVIDERS[name]
    assert provider.docs.startswith("https://")
    assert provider.dashboard.strip()
    assert provider.environment.startswith(name.upper()) and provider.environment.isidentifier()
    assert provider.unavailable_status in {429, 503}
    assert all(header == header.lower() for header in (*provider.scheme.headers, *provider.headers))


@every
def test_it_has_samples(name: str) -> None:
    assert samples.names(name)


@sampled
def test_a_signed_sample_is_delivered_under_its_type_and_an_id(name: str, sample: str) -> None:
    body = samples.body(name, sample)
    request = signed(name, body)
    delivery = check(name, request)
    assert isinstance(delivery, Delivery)
    # It can be verified again.
    assert check(name, replace(request, headers=delivery.headers, body=delivery.body)) == delivery
    assert (delivery.source, delivery.provider, delivery.prefix) == ("mine", name, "p")
    assert (delivery.body, delivery.received_at, delivery.fault) == (body, NOW, "")
    # A sample that shows a variant of a type is named `{type}_{variant}`.
    assert delivery.type == sample or sample.startswith(f"{delivery.type}_")
    assert delivery.id and not delivery.id.startswith("sha256:")
    assert delivery.payload


@sampled
def test_no_secret_of_the_provider_is_left_in_the_payload(name: str, sample: str) -> None:
    provider, body = PROVIDERS[name], samples.body(name, sample)
    payload = provider.parse(signed(name, body))
    planted = [path for path in provider.secret_fields if isinstance(at(payload, *path[:-1]), dict)]
    for *path, last in planted:
        at(payload, *path)[last] = "planted secret"
    delivery = check(name, signed(name, json.dumps(payload).encode()))
    assert isinstance(delivery, Delivery) and not delivery.fault
    assert "planted secret" not in repr(delivery.payload)


@sampled
def test_either_of_two_secrets_will_do(name: str, sample: str) -> None:
    body = samples.body(name, sample)
    for secret in (b"old", b"new"):
        assert isinstance(check(name, signed(name, body, secret=secret), (b"old", b"new")), Delivery)


@every
def test_another_secret_is_a_mismatch(name: str) -> None:
    assert reason(name, signed(name, b"{}", secret=b"wrong")) is Reason.MISMATCH


@every
def test_without_secrets_nothing_gets_in(name: str) -> None:
    for secret in (b"right", b""):
        assert reason(name, signed(name, b"{}", secret=secret), secrets=()) is Reason.MISMATCH


@every
def test_a_header_left_out_or_empty_is_missing(name: str) -> None:
    request = signed(name, b"{}")
    assert set(request.headers) == set(PROVIDERS[name].scheme.headers)
    for gone in request.headers:
        others = {header: value for header, value in request.headers.items() if header != gone}
        assert reason(name, replace(request, headers=others)) is Reason.MISSING
        assert reason(name, replace(request, headers={**others, gone: ""})) is Reason.MISSING


# `１２` is what int() takes for 12; \udce9 is what aiohttp makes of a byte that is not UTF-8.
@stamped
@pytest.mark.parametrize(
    "stamp",
    ["１２", "１７９５００００００", " 5 ", "1_0", "-1", "+1", "1.0", "0x1", "1e9", "9" * 40, "\udce9"],
    ids=ascii,
)
def test_a_timestamp_no_honest_sender_writes_is_malformed(name: str, stamp: str) -> None:
    right = signed(name, b"{}")
    headers = {header: value.replace(str(NOW // 1000), stamp) for header, value in right.headers.items()}
    assert headers != right.headers
    assert reason(name, replace(right, headers=headers)) is Reason.MALFORMED


@stamped
def test_a_signature_is_good_within_the_tolerance_either_way_and_not_beyond(name: str) -> None:
    for age in (0, TOLERANCE, -TOLERANCE):
        check(name, signed(name, b"{}", at=NOW - age))
    assert reason(name, signed(name, b"{}", at=NOW - TOLERANCE - 1000)) is Reason.TOO_OLD
    assert reason(name, signed(name, b"{}", at=NOW + TOLERANCE + 1000)) is Reason.IN_FUTURE


@stamped
def test_of_a_forgery_it_is_not_said_that_it_is_old(name: str) -> None:
    assert reason(name, signed(name, b"{}", secret=b"wrong", at=0)) is Reason.MISMATCH
