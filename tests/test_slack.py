"""What is peculiar to Slack; what holds for every provider is in `contract/`."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import pytest

from bridge.errors import Unusable
from bridge.model import Delivery, Entry, Handshake, Payload, Source, WebhookRequest
from bridge.providers.slack import PROVIDER
from bridge.verify import Identity, restore, verify

STAMP = {"x-slack-request-timestamp": "1795000000"}
EVENT = {
    "type": "event_callback",
    "team_id": "T1",
    "event_id": "Ev1",
    "event_time": 1_795_000_000,
    "event": {"type": "reaction_added", "user": "U1", "event_ts": "1794999999.123456"},
}


def request(body: bytes) -> WebhookRequest:
    return WebhookRequest(headers=STAMP, body=body, received_at=0)


def interactive(payload: Payload) -> bytes:
    return urlencode({"payload": json.dumps(payload)}).encode()


def identify(body: bytes | Payload) -> Identity:
    asked = request(body if isinstance(body, bytes) else interactive(body))
    return PROVIDER.identify(PROVIDER.parse(asked), asked)


def event(**changes: Any) -> Identity:
    return identify(json.dumps({**EVENT, **changes}).encode())


# --- three shapes of request


def test_json_is_told_from_a_form_by_how_it_begins() -> None:
    assert PROVIDER.parse(request(b' \r\n{"type":"x"}')) == {"type": "x"}
    assert PROVIDER.parse(request(b"payload=%7B%22type%22%3A%22x%22%7D")) == {"type": "x"}
    assert PROVIDER.parse(request(b"command=%2Fx&text=a+%26+b")) == {"command": "/x", "text": "a & b"}


def test_a_command_whose_text_says_payload_is_a_command() -> None:
    """Slack's own framework once took it for an interaction."""
    body = b"command=%2Fx&text=payload&payload=%7B%7D&trigger_id=1.2.a"
    assert identify(body).type == "slash_command"


@pytest.mark.parametrize("body", [b"[]", b"payload=", b"payload=[]", b"payload=%7B", b"text=x", b"payload=%ff", b""])
def test_what_is_none_of_the_three_is_unusable(body: bytes) -> None:
    with pytest.raises(Unusable):
        identify(body)


# --- handshakes


def test_a_challenge_is_answered() -> None:
    assert PROVIDER.handshake({"type": "url_verification", "challenge": "3eZb"}) == Handshake(answer="3eZb")


@pytest.mark.parametrize("challenge", [None, "", 5, ["x"], "x" * 1025])
def test_a_challenge_that_is_none_is_unusable(challenge: object) -> None:
    with pytest.raises(Unusable, match="challenge"):
        PROVIDER.handshake({"type": "url_verification", "challenge": challenge})


def test_a_challenge_that_was_stored_with_a_fault_gives_no_event_when_it_is_replayed() -> None:
    """Once it did: only `verify` asked for handshakes."""
    body = b'{"type":"url_verification","team_id":"T1"}'
    signed = WebhookRequest(headers=PROVIDER.scheme.sign(body, secret=b"s", now=0), body=body, received_at=0)
    source = Source(name="slack", provider="slack", prefix="slack", secrets=(b"s",))
    stored = verify(signed, source=source, provider=PROVIDER, now=0)
    assert isinstance(stored, Delivery) and stored.fault
    with pytest.raises(Unusable, match="challenge"):
        restore(Entry.of(stored), provider=PROVIDER)


def test_a_handshake_that_is_in_the_journal_gives_no_event() -> None:
    """As it is where an older bridge did not know it for one."""
    body = b'{"type":"url_verification","challenge":"3eZb"}'
    unknown = replace(PROVIDER, handshake=lambda _: None)
    signed = WebhookRequest(headers=PROVIDER.scheme.sign(body, secret=b"s", now=0), body=body, received_at=0)
    source = Source(name="slack", provider="slack", prefix="slack", secrets=(b"s",))
    stored = verify(signed, source=source, provider=unknown, now=0)
    assert isinstance(stored, Delivery) and not stored.fault
    with pytest.raises(Unusable, match="handshake"):
        restore(Entry.of(stored), provider=PROVIDER)


def test_the_check_of_a_certificate_is_a_handshake() -> None:
    assert PROVIDER.handshake(PROVIDER.parse(request(b"token=x&ssl_check=1"))) == Handshake()
    assert PROVIDER.handshake({"ssl_check": "0"}) is None


# --- ids and times


def test_an_event_has_an_id_of_its_own_and_happened_at_its_event_ts() -> None:
    assert event() == Identity(id="Ev1", type="reaction_added", type_at="event.type", occurred_at=1_794_999_999_123)


@pytest.mark.parametrize(
    "odd",
    [None, "", 1_794_999_999, "x", "１７９４９９９９９９", "1794999999000016", "-1.0", "99999999999.0", "1.2.3"],
    ids=ascii,
)
def test_an_event_without_a_readable_event_ts_happened_when_it_was_dispatched(odd: object) -> None:
    assert event(event={"type": "x", "event_ts": odd}).occurred_at == 1_795_000_000_000


@pytest.mark.parametrize(("ts", "ms"), [("1794999999", 0), ("1794999999.1", 100), ("1794999999.0099", 9)])
def test_a_ts_is_read_to_the_millisecond_without_rounding(ts: str, ms: int) -> None:
    assert event(event={"type": "x", "event_ts": ts}).occurred_at == 1_794_999_999_000 + ms


@pytest.mark.parametrize(
    ("payload", "id_"),
    [
        ({"type": "block_actions", "trigger_id": "1.2.a"}, "slack:block_actions:1.2.a"),
        ({"type": "message_action", "trigger_id": "1.2.a"}, "slack:message_action:1.2.a"),
        (
            {"type": "view_submission", "view": {"id": "V1", "hash": "1.a"}, "trigger_id": "9"},
            "slack:view_submission:V1:1.a",
        ),
        ({"type": "view_closed", "view": {"id": "V1", "hash": "1.a"}}, "slack:view_closed:V1:1.a"),
        (
            {"type": "shortcut", "callback_id": "c", "action_ts": "5.1", "user": {"id": "U1"}},
            "slack:shortcut:c:5.1:U1",
        ),
    ],
)
def test_an_interaction_gets_an_id_of_what_slack_repeats_unchanged(payload: Payload, id_: str) -> None:
    assert identify(payload).id == id_
    assert identify({**payload, "token": "another", "response_url": "https://example.com"}).id == id_


def test_an_interaction_with_nothing_of_its_own_gets_the_hash_of_its_body() -> None:
    payload: Payload = {"type": "dialog_cancellation", "callback_id": "c"}
    assert identify(payload).id == f"slack:dialog_cancellation:{sha256(interactive(payload)).hexdigest()}"
    assert identify(payload).id != identify({**payload, "callback_id": "d"}).id


def test_a_view_of_another_version_is_another_delivery() -> None:
    views = [{"type": "view_submission", "view": {"id": "V1", "hash": version}} for version in ("1.a", "1.b")]
    assert identify(views[0]).id != identify(views[1]).id


def test_a_command_gets_an_id_of_its_trigger() -> None:
    assert identify(b"command=%2Fx&trigger_id=1.2.a") == Identity(
        id="slack:cmd:1.2.a", type="slash_command", occurred_at=1_795_000_000_000
    )


@pytest.mark.parametrize(
    ("extra", "occurred_at"),
    [
        ({"action_ts": "1794999990.5"}, 1_794_999_990_500),
        ({"actions": [{"action_ts": "1794999991.5"}]}, 1_794_999_991_500),
        *(({"actions": odd}, 1_795_000_000_000) for odd in ([], [5], {"action_ts": "1794999991.5"}, None)),
    ],
)
def test_an_interaction_happened_at_its_action_or_when_it_was_signed(extra: Payload, occurred_at: int) -> None:
    assert identify({"type": "block_actions", "trigger_id": "1.2.a", **extra}).occurred_at == occurred_at


def test_a_rate_limit_is_known_by_its_team_and_its_minute() -> None:
    limited = {"type": "app_rate_limited", "team_id": "T1", "minute_rate_limited": 1_795_000_020}
    assert identify(json.dumps(limited).encode()) == Identity(
        id="slack:app_rate_limited:T1:1795000020", type="app_rate_limited", occurred_at=1_795_000_020_000
    )
    for odd in (None, "1795000020", 5):
        with pytest.raises(Unusable, match="minute_rate_limited"):
            identify(json.dumps({**limited, "minute_rate_limited": odd}).encode())


# --- what nobody is to see


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({**EVENT, "token": "secret", "event": {"type": "x", "bot_access_token": "secret"}}).encode(),
        interactive({"type": "block_actions", "trigger_id": "1.2.a", "token": "secret"}),
        interactive({"type": "block_actions", "trigger_id": "1.2.a", "bot_access_token": "secret"}),
        interactive(
            {"type": "block_actions", "trigger_id": "1.2.a", "interactivity": {"interactor": {"secret": "secret"}}}
        ),
        b"command=%2Fx&trigger_id=1.2.a&token=secret",
    ],
)
def test_the_secrets_slack_puts_into_its_payloads_are_taken_out(body: bytes) -> None:
    source = Source(name="slack", provider="slack", prefix="slack", secrets=(b"s",))
    headers = PROVIDER.scheme.sign(body, secret=b"s", now=0)
    delivery = verify(
        WebhookRequest(headers=headers, body=body, received_at=0), source=source, provider=PROVIDER, now=0
    )
    assert isinstance(delivery, Delivery)
    assert delivery.payload
    assert "secret" not in repr(delivery.payload)


# --- whom it is about


@pytest.mark.parametrize(
    "payload",
    [
        {"team_id": "T1", "event": {"user": "U1"}},
        {"team_id": "T1", "event": {"user": {"id": "U1", "profile": {}}}},
        {"team_id": "T1", "event": {"message": {"user": "U1"}}},
        {"team": {"id": "T1"}, "user": {"id": "U1"}},
        {"team": None, "user": {"id": "U1", "team_id": "T1"}},
        {"team_id": "T1", "user_id": "U1"},
    ],
)
def test_the_user_is_found_in_every_shape(payload: Payload) -> None:
    assert PROVIDER.user(payload) == {"slack_user_id": "U1", "slack_team_id": "T1", "email": None}


def test_an_envelope_nobody_knows_keeps_the_id_it_has() -> None:
    unknown = {"type": "new_envelope", "event_id": "Ev_w", "event_time": 1_795_000_000}
    assert identify(json.dumps(unknown).encode()) == Identity(
        id="Ev_w", type="new_envelope", occurred_at=1_795_000_000_000
    )


def test_an_id_composed_of_parts_that_are_too_long_together_is_their_digest() -> None:
    parts = {"id": "\N{GRINNING FACE}" * 255, "hash": "\N{GRINNING FACE}" * 255}
    payload: Payload = {"type": "view_closed", "view": parts}
    body, now = interactive(payload), 1_795_000_000_000
    signed = WebhookRequest(headers=PROVIDER.scheme.sign(body, secret=b"s", now=now), body=body, received_at=now)
    source = Source(name="slack", provider="slack", prefix="slack", secrets=(b"s",))
    made = verify(signed, source=source, provider=PROVIDER, now=now)
    composed = f"slack:view_closed:{parts['id']}:{parts['hash']}"
    assert isinstance(made, Delivery) and not made.fault
    assert made.id == f"sha256:{sha256(composed.encode()).hexdigest()}"
