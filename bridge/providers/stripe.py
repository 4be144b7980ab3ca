"""Stripe: snapshot events, thin events, and those of connected accounts, all under one signature.

The key is the whole endpoint secret, `whsec_` included: the opposite of Standard Webhooks, which decodes what follows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bridge.errors import Unusable
from bridge.model import Handshake, Payload, WebhookRequest
from bridge.payload import at, milliseconds, text
from bridge.schemes import StampedList
from bridge.verify import Identity, Provider

# Where Stripe's objects keep an e-mail address, the most telling first.
_EMAILS = (
    ("email",),
    ("customer_email",),
    ("customer_details", "email"),
    ("receipt_email",),
    ("billing_details", "email"),
)


def _identify(payload: Payload, request: WebhookRequest) -> Identity:
    del request
    if payload.get("object") not in ("event", "v2.core.event"):  # no set: what came may be unhashable
        raise Unusable("object: neither `event` nor `v2.core.event`")
    return Identity(id=text(payload, "id"), type=payload.get("type"), occurred_at=_created(payload))


def _created(payload: Payload) -> int | None:
    """Seconds in a snapshot event, ISO 8601 in a thin one."""
    created = payload.get("created")
    # fromisoformat takes any one character between date and time, also one that is not ASCII.
    if not isinstance(created, str) or not created.isascii():
        return milliseconds(created)
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return None
    return milliseconds(moment.timestamp()) if moment.tzinfo else None


def _handshake(payload: Payload) -> Handshake | None:
    """The ping of an event destination (https://docs.stripe.com/api/v2/core/event_destinations/ping)."""
    return Handshake() if payload.get("type") == "v2.core.event_destination.ping" else None


def _user(payload: Payload) -> Mapping[str, Any]:
    thing = at(payload, "data", "object") or {}
    related = payload.get("related_object")  # all that a thin event tells
    customer = at(thing, "customer")
    if at(thing, "object") == "customer":
        customer = at(thing, "id")
    elif isinstance(customer, dict):  # expanded
        customer = customer.get("id")
    elif at(related, "type") == "customer":
        customer = at(related, "id")
    email = next((found for path in _EMAILS if (found := at(thing, *path))), None)
    return {"stripe_customer_id": customer, "external_id": at(thing, "client_reference_id"), "email": email}


PROVIDER = Provider(
    name="stripe",
    docs="https://docs.stripe.com/webhooks",
    dashboard=(
        "Stripe Workbench > Webhooks (formerly Developers > Webhooks) > Add destination: paste the URL as the endpoint"
        " URL, choose the events; the secret is the destination's `Signing secret`, `whsec_...`"
    ),
    environment="STRIPE_WEBHOOK_SECRET",
    scheme=StampedList(header="stripe-signature"),
    identify=_identify,
    handshake=_handshake,
    user=_user,
)
