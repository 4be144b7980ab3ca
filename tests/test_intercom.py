"""What is peculiar to Intercom; what holds for every provider is in `contract/`."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.model import Handshake, WebhookRequest
from bridge.payload import json_object
from bridge.providers.intercom import PROVIDER
from bridge.verify import Identity

REQUEST = WebhookRequest(headers={}, body=b"", received_at=0)
ADA = {"intercom_contact_id": "c1", "external_id": "4711", "email": "ada@example.com"}
CONTACT = {"type": "contact", "id": "c1", "external_id": "4711", "email": "ada@example.com"}
LISTED = {"type": "contact.list", "contacts": [{"type": "contact", "id": "c1", "external_id": "4711"}, {"id": "c2"}]}


def user(item: Any) -> dict[str, Any]:
    found = PROVIDER.user({"data": {"type": "notification_event_data", "item": item}})
    return {name: value for name, value in found.items() if value is not None}


def test_a_notification_has_an_id_of_its_own() -> None:
    payload = {"id": "notif_1", "topic": "company.created", "created_at": 1_795_000_000}
    wanted = Identity(id="notif_1", type="company.created", type_at="topic", occurred_at=1_795_000_000_000)
    assert PROVIDER.identify(payload, REQUEST) == wanted
    assert PROVIDER.identify({**payload, "delivery_attempts": 2}, REQUEST) == wanted
    assert PROVIDER.identify({**payload, "created_at": "then"}, REQUEST).occurred_at is None


def test_a_ping_is_a_handshake() -> None:
    assert PROVIDER.handshake({"topic": "ping"}) == Handshake()
    assert PROVIDER.handshake({"topic": "company.created"}) is None


def test_a_contact_is_the_user_itself() -> None:
    assert user(CONTACT) == user({**CONTACT, "type": "lead"}) == ADA
    old = {"type": "user", "id": "c1", "user_id": "4711", "email": "ada@example.com"}  # before version 2 of their API
    assert user(old) == ADA


def test_a_tag_names_its_contact() -> None:
    assert user({"type": "contact_tag", "tag": {"id": "1"}, "contact": CONTACT}) == ADA


def test_an_event_names_its_contact_in_fields_of_its_own() -> None:
    item = {"type": "event", "id": "e1", "intercom_user_id": "c1", "user_id": "4711", "email": "ada@example.com"}
    assert user(item) == ADA


def test_a_conversation_lists_its_contacts_and_the_author_may_have_an_address() -> None:
    author = {"type": "user", "id": "c1", "email": "ada@example.com"}
    assert user({"type": "conversation", "contacts": LISTED, "source": {"author": author}}) == ADA
    without = {name: ADA[name] for name in ("intercom_contact_id", "external_id")}
    for other in ({**author, "type": "admin"}, {**author, "id": "c2"}, None, "text"):
        assert user({"type": "conversation", "contacts": LISTED, "source": {"author": other}}) == without


def test_ids_that_are_nested_too_deep_to_be_compared_are_those_of_nobody() -> None:
    """Once this raised RecursionError: what is read may have 1,024 levels, and Python compares fewer."""
    deep = json_object(b'{"one":%b,"other":%b}' % ((b"[" * 1020 + b"]" * 1020,) * 2))
    listed = {"contacts": [{"type": "contact", "id": deep["one"]}]}
    author = {"type": "user", "id": deep["other"], "email": "ada@example.com"}
    assert "email" not in user({"type": "conversation", "contacts": listed, "source": {"author": author}})


def test_a_ticket_is_found_also_where_it_is_wrapped_once_more() -> None:
    """As `ticket.closed` has it: https://developers.intercom.com/docs/references/2.17/webhooks/webhook-models"""
    ticket = {"type": "ticket", "contacts": LISTED}
    assert user(ticket) == user({"ticket": ticket}) == {"intercom_contact_id": "c1", "external_id": "4711"}


@pytest.mark.parametrize(
    "item",
    [
        None,
        [],
        "text",
        {},
        {"type": ["contact"], "id": "c1"},  # once this raised TypeError
        {"type": {}, "contacts": {"contacts": [{"id": None}]}, "source": {"author": {"type": []}}},
        {"contacts": {"contacts": [None]}, "source": {"author": {"type": "user"}}},
        {"contacts": {"contacts": ["c1"]}, "source": {"author": {"type": "user", "id": "c1"}}},
        {"contacts": [CONTACT]},
        {"type": "company", "id": "x"},
    ],
)
def test_where_there_is_no_contact_there_is_no_user(item: object) -> None:
    assert user(item) == {}
