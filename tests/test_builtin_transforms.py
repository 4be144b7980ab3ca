"""The names the built-in transforms give: closed tables, checked against the lists of the providers."""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import transforms
from bridge import Delivery, Event, providers, samples
from bridge.event import complete, encode
from bridge.model import Source, WebhookRequest
from bridge.verify import verify
from transforms import intercom, slack, stripe

NOW = 1_795_300_000_000
PROVIDERS = providers.load()
TRANSFORMS: dict[str, Callable[[Delivery], Event | list[Event] | None]] = {
    "intercom": intercom.transform,
    "slack": slack.transform,
    "stripe": stripe.transform,
}
VERSION = "2026-11-21.1"
ODD: tuple[object, ...] = (None, "", 20, True, [], ["file_share"], {})

EXAMPLE = {"intercom": "company.created", "slack": "message", "stripe": "customer.created"}

every = pytest.mark.parametrize("provider", TRANSFORMS)


def deliver(provider: str, body: bytes, *, prefix: str = "") -> Delivery:
    headers = PROVIDERS[provider].scheme.sign(body, secret=b"s", now=NOW)
    source = Source(name="mine", provider=provider, prefix=prefix or provider, secrets=(b"s",))
    request = WebhookRequest(headers=headers, body=body, received_at=NOW)
    delivery = verify(request, source=source, provider=PROVIDERS[provider], now=NOW)
    assert isinstance(delivery, Delivery)
    return delivery


def event(delivery: Delivery) -> Event:
    made = TRANSFORMS[delivery.provider](delivery)
    assert isinstance(made, Event)
    return made


def completed(provider: str, name: str) -> Event:
    delivery = deliver(provider, samples.body(provider, name))
    user = PROVIDERS[provider].user(delivery.payload)
    [whole] = complete([event(delivery)], delivery=delivery, user=user, version="unused", now=NOW)
    encode(whole)
    return whole


def typed(provider: str, type_: str, payload: dict[str, Any] | None = None) -> Delivery:
    return replace(deliver(provider, samples.body(provider, EXAMPLE[provider])), type=type_, payload=payload or {})


def documented(name: str) -> list[str]:
    lines = (Path(__file__).parent / "vectors" / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


# --- all of them


def test_each_is_named_after_a_provider_and_has_a_version() -> None:
    assert {module.name for module in pkgutil.iter_modules(transforms.__path__)} == set(TRANSFORMS) <= set(PROVIDERS)
    assert {module.VERSION for module in (intercom, slack, stripe)} == {VERSION}


@every
def test_the_name_begins_with_the_prefix_of_the_source_and_the_data_is_the_payload(provider: str) -> None:
    for name in samples.names(provider):
        delivery = deliver(provider, samples.body(provider, name), prefix="shop")
        assert event(delivery).name.startswith("shop/")
        assert event(delivery).data == delivery.payload
        assert (event(delivery).id, event(delivery).ts, event(delivery).user) == ("", None, None)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["event", "subtype", "api_version", "type"]), inner)
    ),
    max_leaves=6,
)


@every
@settings(max_examples=200, deadline=None)
@given(
    type_=st.text(min_size=1) | st.sampled_from(["message", "block_actions", "conversation.admin.closed"]),
    payload=st.dictionaries(st.sampled_from(["event", "subtype", "api_version"]), VALUES),
)
def test_it_makes_one_event_of_whatever_a_payload_holds(provider: str, type_: str, payload: dict[str, Any]) -> None:
    made = event(typed(provider, type_, payload))
    assert re.fullmatch(rf"{provider}/.+", made.name, re.DOTALL)
    assert isinstance(made.v, str) and made.v


@every
def test_a_type_it_does_not_know_keeps_its_name(provider: str) -> None:
    for unknown in ("brand.new", "brand_new", "admin.assigned", "Message", "v3.x[y].z", "message.channels"):
        assert event(typed(provider, unknown)).name == f"{provider}/{unknown}"


# --- Stripe


@pytest.mark.parametrize("name", samples.names("stripe"))
def test_stripe_keeps_its_types(name: str) -> None:
    assert completed("stripe", name).name == f"stripe/{name}"


def test_the_version_of_a_snapshot_is_the_api_version_and_of_a_thin_event_our_own() -> None:
    assert completed("stripe", "invoice.paid").v == "2026-10-28.endive"
    assert completed("stripe", "v1.customer.created").v == VERSION
    for odd in ODD:
        assert event(typed("stripe", "a.b", {"api_version": odd})).v == VERSION


def test_an_event_of_stripe_tells_whose_it_is_and_when_it_happened() -> None:
    created = completed("stripe", "customer.created")
    assert created.id == f"stripe/customer.created:{json.loads(samples.body('stripe', 'customer.created'))['id']}"
    assert created.ts == 1_795_169_472_000
    assert created.user == {"stripe_customer_id": "cus_TSdWq4nB8yKp2E", "email": "zoe@example.com"}
    assert completed("stripe", "checkout.session.completed").user == {
        "external_id": "order-1001",
        "email": "ada@example.com",
    }
    assert completed("stripe", "v1.customer.created").user == {"stripe_customer_id": "cus_TSdWq4nB8yKp2E"}
    assert completed("stripe", "v1.customer.created").ts == 1_795_169_472_345


# --- Slack


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("message", "message.posted"),
        ("message_changed", "message.changed"),
        ("app_mention", "app.mentioned"),
        ("reaction_added", "reaction.added"),
        ("team_join", "team.joined"),
        ("member_joined_channel", "member.joined"),
        ("app_home_opened", "app_home.opened"),
        ("channel_created", "channel.created"),
        ("block_actions", "block_actions.received"),
        ("view_submission", "view.submitted"),
        ("view_closed", "view.closed"),
        ("shortcut", "shortcut.triggered"),
        ("message_action", "message_action.triggered"),
        ("slash_command", "command.invoked"),
        ("app_rate_limited", "app.rate_limited"),
    ],
)
def test_slack_gets_names_of_one_kind(name: str, wanted: str) -> None:
    made = completed("slack", name)
    assert (made.name, made.v) == (f"slack/{wanted}", VERSION)


@pytest.mark.parametrize(
    ("subtype", "wanted"),
    [
        *((posted, "posted") for posted in ("file_share", "thread_broadcast", "me_message", "bot_message")),
        *((f"message_{done}", done) for done in ("changed", "deleted", "replied")),
        *((subtype, subtype) for subtype in ("channel_join", "pinned_item", "ekm_access_denied", "brand_new")),
        *((odd, "posted") for odd in (*ODD, "../x", "posted", "Message_Changed", "x" * 62)),
    ],
    ids=ascii,
)
def test_a_message_is_told_apart_by_its_subtype(subtype: object, wanted: str) -> None:
    payload = {"event": {"type": "message", "subtype": subtype}}
    assert event(typed("slack", "message", payload)).name == f"slack/message.{wanted}"


def test_the_table_of_slack_has_every_documented_type_and_no_other() -> None:
    assert {*slack.NAMES, "message"} == set(documented("slack_types"))


def test_no_two_types_of_slack_share_a_name_and_every_name_says_what_happened() -> None:
    names = [*slack.NAMES.values(), *{*slack.MESSAGES.values()}]
    assert len(set(names)) == len(names)
    for name in slack.NAMES.values():
        assert re.fullmatch(r"[a-z_]+\.([a-z]+ed|left|rate_limited)(_team|_user)?", name)
        assert name not in slack.NAMES


def test_an_event_of_slack_tells_whose_it_is_and_when_it_happened() -> None:
    posted = completed("slack", "message")
    assert posted.id == "slack/message.posted:Ev09TN4KQ7ZB"
    assert posted.ts == 1_795_169_471_482
    assert posted.user == {"slack_user_id": "U05B2M9ZTQC", "slack_team_id": "T03F8K2QW"}
    assert completed("slack", "team_join").user == {
        "slack_user_id": "U09TNB6QF2K",
        "slack_team_id": "T03F8K2QW",
        "email": "grace@example.com",
    }
    for name in ("message_changed", "block_actions", "view_closed", "shortcut", "slash_command"):
        assert completed("slack", name).user == posted.user
    assert completed("slack", "slash_command").ts == NOW
    assert completed("slack", "slash_command").data["text"] == "status 1001"


# --- Intercom


TOPICS = documented("intercom_topics")


def acted(topic: str) -> tuple[str, str] | None:
    """What was done to what, less who did it; None where the topic names nobody who acted."""
    match = re.fullmatch(
        r"(conversation|ticket)\.(admin|user|operator|contact|lead|team)\.(?!attached|detached)(.+)", topic
    )
    return (match[1], match[3]) if match else None


def test_intercom_loses_the_actor_exactly_where_it_lists_only_one() -> None:
    actions = [acted(topic) for topic in TOPICS]
    alone = {topic: ".".join(action) for topic in TOPICS if (action := acted(topic)) and actions.count(action) == 1}
    assert alone == intercom.NAMES


def test_no_two_topics_of_intercom_share_a_name() -> None:
    names = [event(typed("intercom", topic)).name for topic in TOPICS]
    assert len(set(names)) == len(names)
    assert not set(intercom.NAMES.values()) & set(TOPICS)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("conversation.user.created", "conversation.created"),
        ("conversation.user.replied", "conversation.user.replied"),
        ("conversation.admin.replied", "conversation.admin.replied"),
        ("conversation.admin.assigned", "conversation.assigned"),
        ("conversation.admin.closed", "conversation.closed"),
        ("contact.user.created", "contact.user.created"),
        ("ticket.created", "ticket.created"),
    ],
)
def test_intercom_keeps_its_topics_but_for_a_lonely_actor(name: str, wanted: str) -> None:
    made = completed("intercom", name)
    assert (made.name, made.v) == (f"intercom/{wanted}", VERSION)


def test_an_event_of_intercom_tells_whose_it_is_and_when_it_happened() -> None:
    created = completed("intercom", "contact.user.created")
    ada = {"intercom_contact_id": "6564a1f20c9be37d58f4a0c1", "external_id": "4711", "email": "ada@example.com"}
    assert created.id == "intercom/contact.user.created:notif_06f8b3d2-c914-4e57-8b6a-7a2d50e1f9c3"
    assert created.ts == 1_795_169_472_000
    assert created.user == ada
    for name in ("conversation.user.created", "conversation.admin.closed", "event.created"):
        assert completed("intercom", name).user == ada
    assert completed("intercom", "ticket.created").user == {key: ada[key] for key in list(ada)[:2]}
    assert completed("intercom", "company.created").user is None
