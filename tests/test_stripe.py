"""What is peculiar to Stripe; what holds for every provider is in `contract/`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.errors import Unusable
from bridge.model import Handshake, WebhookRequest
from bridge.providers.stripe import PROVIDER
from bridge.verify import Identity

REQUEST = WebhookRequest(headers={}, body=b"", received_at=0)
SNAPSHOT = {"object": "event", "id": "evt_1", "type": "customer.created", "created": 1_795_000_000}
THIN = {"object": "v2.core.event", "id": "evt_2", "type": "v1.customer.created", "created": "2026-11-18T12:26:40.345Z"}


def identify(payload: dict[str, Any]) -> Identity:
    return PROVIDER.identify(payload, REQUEST)


def user(thing: dict[str, Any]) -> dict[str, Any]:
    found = PROVIDER.user({"data": {"object": thing}})
    return {name: value for name, value in found.items() if value is not None}


def test_a_snapshot_is_dated_in_seconds_and_a_thin_event_in_iso_8601() -> None:
    assert identify(SNAPSHOT) == Identity(id="evt_1", type="customer.created", occurred_at=1_795_000_000_000)
    assert identify(THIN) == Identity(id="evt_2", type="v1.customer.created", occurred_at=1_795_004_800_345)


@pytest.mark.parametrize(
    ("created", "occurred_at"),
    [
        ("2026-11-18T12:26:40Z", 1_795_004_800_000),
        ("2026-11-18T13:26:40.345+01:00", 1_795_004_800_345),
        *((odd, None) for odd in ("2026-11-18T12:26:40", "2026-11-18", "", "1795004800", "0001-01-01T00:00:00+14:00")),
        ("9999-12-31T23:59:59-14:00", None),
        ("2026-11-18\udc8012:26:40Z", None),  # fromisoformat() takes any one character there
        ("２０２６-11-18T12:26:40Z", None),
        (None, None),
        ([], None),
    ],
    ids=ascii,
)
def test_a_date_that_is_none_is_left_to_the_time_of_arrival(created: object, occurred_at: int | None) -> None:
    assert identify({**THIN, "created": created}).occurred_at == occurred_at


@pytest.mark.parametrize("kind", [None, "", "customer", "v2.core.account", 5, ["event"], {"event": 1}], ids=ascii)
def test_what_is_no_event_object_is_unusable(kind: object) -> None:
    """Also what can't be looked up in a set: once this raised TypeError."""
    with pytest.raises(Unusable, match="object: neither"):
        identify({**SNAPSHOT, "object": kind})


def test_the_ping_of_an_event_destination_is_a_handshake() -> None:
    assert PROVIDER.handshake({**THIN, "type": "v2.core.event_destination.ping"}) == Handshake()
    assert PROVIDER.handshake(SNAPSHOT) is None


def test_the_customer_is_found_as_an_id_expanded_or_as_the_object_itself() -> None:
    assert user({"object": "invoice", "customer": "cus_1"}) == {"stripe_customer_id": "cus_1"}
    assert user({"object": "invoice", "customer": {"id": "cus_1"}}) == {"stripe_customer_id": "cus_1"}
    assert user({"object": "customer", "id": "cus_1"}) == {"stripe_customer_id": "cus_1"}
    assert user({"object": "invoice", "id": "in_1"}) == {}


def test_the_customer_of_a_thin_event_is_its_related_object() -> None:
    related = {"id": "cus_1", "type": "customer", "url": "/v1/customers/cus_1"}
    assert PROVIDER.user({**THIN, "related_object": related})["stripe_customer_id"] == "cus_1"
    assert PROVIDER.user({**THIN, "related_object": {**related, "type": "invoice"}})["stripe_customer_id"] is None


def test_the_most_telling_address_is_taken() -> None:
    addresses = {
        "email": "a@example.com",
        "customer_email": "b@example.com",
        "customer_details": {"email": "c@example.com"},
        "receipt_email": "d@example.com",
        "billing_details": {"email": "e@example.com"},
    }
    for kind, wanted in zip(list(addresses), "abcde", strict=True):
        assert user(json.loads(json.dumps(addresses))) == {"email": f"{wanted}@example.com"}
        del addresses[kind]
    assert user(addresses) == {}
