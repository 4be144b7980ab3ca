"""Stripe's events under the names Stripe gives them: `stripe/customer.created`, with the whole event as data.

The type stays verbatim, that of a thin event too (`v1.customer.created`, `v2.core.account[requirements].updated`), so
that Stripe's own list is the list of names (https://docs.stripe.com/api/events/types). `v` is the API version the
snapshot was rendered in: it decides what the object looks like. A thin event has none.
"""

from __future__ import annotations

from bridge import Delivery, Event

VERSION = "2026-11-21.1"


def transform(delivery: Delivery) -> Event | list[Event] | None:
    rendered_in = delivery.payload.get("api_version")
    return Event(
        name=f"{delivery.prefix}/{delivery.type}",
        data=delivery.payload,
        v=rendered_in if isinstance(rendered_in, str) and rendered_in else VERSION,
    )
