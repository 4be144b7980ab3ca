"""Intercom: SHA-1 over the body under the app's client secret, and no timestamp.

It repeats a notification once, a minute later, with another `delivery_attempts` in the signed body: the id alone
tells that it is the same. Answered 429 it comes again for two hours; answered 410 it disables the subscription.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.model import Handshake, Payload, WebhookRequest
from bridge.payload import at, milliseconds, text
from bridge.schemes import BodyMac
from bridge.verify import Identity, Provider

_PEOPLE = ("contact", "user", "lead")  # no set: what is looked up may be unhashable


def _identify(payload: Payload, request: WebhookRequest) -> Identity:
    del request
    return Identity(
        id=text(payload, "id"),
        type=payload.get("topic"),
        type_at="topic",
        occurred_at=milliseconds(payload.get("created_at")),
    )


def _handshake(payload: Payload) -> Handshake | None:
    """Sent when the URL is saved, on demand and from time to time."""
    return Handshake() if payload.get("topic") == "ping" else None


def _user(payload: Payload) -> Mapping[str, Any]:
    item = at(payload, "data", "item")
    person = _person(item) or _person(at(item, "ticket"))  # ticket.closed wraps its ticket once more
    return {
        "intercom_contact_id": at(person, "id"),
        "external_id": at(person, "external_id") or at(person, "user_id"),
        "email": at(person, "email"),
    }


def _person(item: object) -> object:
    """The contact an item is, or is about: conversations and tickets list theirs, the customer first."""
    if at(item, "type") in _PEOPLE:
        return item
    listed = at(item, "contacts", "contacts")
    if isinstance(listed, list) and listed:
        return _with_email(listed[0], at(item, "source", "author"))
    if isinstance(item, dict) and item.get("type") == "event":
        return {**item, "id": item.get("intercom_user_id")}
    return at(item, "contact")


def _with_email(contact: object, author: object) -> object:
    """A listed contact has ids alone; whoever wrote first has an address, and is often the same."""
    if isinstance(contact, dict) and at(author, "type") in _PEOPLE and _is_same(at(author, "id"), contact.get("id")):
        return {"email": at(author, "email"), **contact}
    return contact


def _is_same(one: object, other: object) -> bool:
    """Strings alone are compared: two lists that are nested deeply enough can't be, which raises RecursionError."""
    return isinstance(one, str) and isinstance(other, str) and one == other


PROVIDER = Provider(
    name="intercom",
    docs="https://developers.intercom.com/docs/webhooks",
    dashboard=(
        "Intercom Developer Hub > your app > Configure > Webhooks: paste the URL as the endpoint URL, choose the topics;"
        " the secret is the `Client secret` under Basic Information"
    ),
    environment="INTERCOM_CLIENT_SECRET",
    scheme=BodyMac(header="x-hub-signature", prefix="sha1=", digest="sha1"),
    identify=_identify,
    handshake=_handshake,
    user=_user,
    unavailable_status=429,
)
