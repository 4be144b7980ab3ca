"""Intercom's notifications under their topics, less the actor where a topic has only one.

Topics of conversations and tickets name who acted: `conversation.admin.closed`. Where Intercom lists an action for one
actor only, the actor tells nothing and is left out (`conversation.closed`); where two share it, it stays
(`conversation.admin.replied`, `conversation.user.replied`). What is no actor stays as well: the kind of a contact
(`contact.user.created`), whoever is attached (`ticket.contact.attached`) or assigned to (`ticket.team.assigned`).

The table is closed: a topic that is not in it keeps its name, so that no name changes when Intercom adds a topic.
https://developers.intercom.com/docs/references/2.17/webhooks/webhook-models
"""

from __future__ import annotations

from bridge import Delivery, Event

VERSION = "2026-11-21.1"

NAMES = {
    "conversation.admin.assigned": "conversation.assigned",
    "conversation.admin.closed": "conversation.closed",
    "conversation.admin.noted": "conversation.noted",
    "conversation.admin.open.assigned": "conversation.open.assigned",
    "conversation.admin.opened": "conversation.opened",
    "conversation.admin.replied.translated": "conversation.replied.translated",
    "conversation.admin.single.created": "conversation.single.created",
    "conversation.admin.snoozed": "conversation.snoozed",
    "conversation.admin.unsnoozed": "conversation.unsnoozed",
    "conversation.user.created": "conversation.created",
    "ticket.admin.replied.translated": "ticket.replied.translated",
    "ticket.admin.snoozed": "ticket.snoozed",
    "ticket.admin.unsnoozed": "ticket.unsnoozed",
}


def transform(delivery: Delivery) -> Event | list[Event] | None:
    name = NAMES.get(delivery.type, delivery.type)
    return Event(name=f"{delivery.prefix}/{name}", data=delivery.payload, v=VERSION)
