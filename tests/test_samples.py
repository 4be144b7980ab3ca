"""The recorded webhooks, and that each can be sent again and again as a new delivery."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from urllib.parse import parse_qsl

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge import providers, samples
from bridge.errors import Unusable
from bridge.model import Delivery, Source, WebhookRequest
from bridge.verify import verify

NOW = 1_800_000_123_456
PROVIDERS = providers.load()
SAMPLES = [(provider, name) for provider in PROVIDERS for name in samples.names(provider)]

every = pytest.mark.parametrize(("provider", "name"), SAMPLES)


def deliver(provider: str, body: bytes, *, now: int = NOW) -> Delivery:
    headers = PROVIDERS[provider].scheme.sign(body, secret=b"s", now=now)
    request = WebhookRequest(headers=headers, body=body, received_at=now)
    source = Source(name=provider, provider=provider, prefix=provider, secrets=(b"s",))
    delivery = verify(request, source=source, provider=PROVIDERS[provider], now=now)
    assert isinstance(delivery, Delivery)
    return delivery


def fresh(provider: str, name: str, nonce: str = "n", *, now: int = NOW) -> bytes:
    return samples.fresh(PROVIDERS[provider], samples.body(provider, name), now=now, nonce=nonce)


def test_a_sample_is_found_by_its_name() -> None:
    assert "customer.created" in samples.names("stripe")
    assert samples.names("stripe") == sorted(samples.names("stripe"))
    assert json.loads(samples.body("stripe", "customer.created"))["type"] == "customer.created"
    assert samples.body("slack", "slash_command").startswith(b"token=")
    assert json.loads(samples.body("stripe", "v2.core.account[requirements].updated"))["object"] == "v2.core.event"


@pytest.mark.parametrize("name", ["", "customer", "customer.created.json", "../stripe/customer.created"])
def test_an_unknown_name_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(LookupError, match=r"no sample `.*` of stripe; there are: account\.updated, charge\.refunded, "):
        samples.body("stripe", name)


def test_a_provider_without_samples_has_no_names() -> None:
    assert samples.names("nobody") == []
    with pytest.raises(LookupError, match="no sample `x` of nobody; there are: none"):
        samples.body("nobody", "x")


@every
def test_a_sample_looks_like_what_is_sent_and_holds_no_secret(provider: str, name: str) -> None:
    body = samples.body(provider, name)
    assert 100 < len(body) < 6_000
    assert not re.search(rb"sk_(live|test)|rk_live|xox[abp]-|whsec_|-----BEGIN|[?&](token|secret)=", body)
    assert re.findall(rb"[\w.+-]+(?:@|%40)(?!example\.|[\w-]+\.example\.)[\w-]+\.", body) == []


@every
def test_a_fresh_one_is_another_delivery_of_the_same_type_that_happens_now(provider: str, name: str) -> None:
    old, new = deliver(provider, samples.body(provider, name)), deliver(provider, fresh(provider, name))
    assert not new.fault
    assert new.type == old.type
    assert new.id != old.id
    assert re.sub("[0-9a-zA-Z]", "x", new.id) == re.sub("[0-9a-zA-Z]", "x", old.id)
    assert 0 <= NOW - new.occurred_at < 1000


@every
def test_a_fresh_one_depends_on_its_arguments_alone(provider: str, name: str) -> None:
    assert fresh(provider, name, "a") == fresh(provider, name, "a")
    ids = {deliver(provider, fresh(provider, name, str(nonce))).id for nonce in range(50)}
    assert len(ids) == 50


@every
def test_a_fresh_one_keeps_everything_but_ids_and_times(provider: str, name: str) -> None:
    body = samples.body(provider, name)
    old, new = (list(leaves(content(text))) for text in (body, fresh(provider, name)))
    assert len(fresh(provider, name)) == len(body)
    assert [path for path, _ in old] == [path for path, _ in new]
    changed = {path[-1] for (path, before), (_, after) in zip(old, new, strict=True) if before != after}
    ids = {"event_id", "hash", "id", "team_id", "trigger_id", "root_view_id"}
    assert changed - ids <= TIMES


# Where the samples have times.
TIMES = frozenset(
    {
        *("action_ts", "billing_cycle_anchor", "cache_ts", "created", "created_at", "current_period_end"),
        *("current_period_start", "date", "effective_at", "end", "event_time", "event_ts", "expires_at"),
        *("finalized_at", "first_contact_reply_at", "first_sent_at", "message_ts", "minute_rate_limited"),
        *("notified_at", "paid_at", "period_end", "period_start", "remote_created_at", "signed_up_at", "start"),
        *("start_date", "ts", "updated", "updated_at", "waiting_since", "webhooks_delivered_at"),
    }
)


def test_all_times_of_a_sample_move_together() -> None:
    old, new = (json.loads(body) for body in (samples.body("stripe", "invoice.paid"), fresh("stripe", "invoice.paid")))
    paid = [invoice["data"]["object"]["status_transitions"]["paid_at"] for invoice in (old, new)]
    due = [invoice["data"]["object"]["lines"]["data"][0]["period"]["end"] for invoice in (old, new)]
    assert due[1] - paid[1] == due[0] - paid[0]
    assert paid[1] == NOW // 1000


def test_a_time_of_slack_keeps_its_milliseconds_and_its_microseconds() -> None:
    event = json.loads(fresh("slack", "message"))["event"]
    assert event["ts"] == event["event_ts"] == "1800000123.456119"


def test_a_time_in_iso_8601_is_moved_to_the_millisecond() -> None:
    created = json.loads(fresh("stripe", "v1.customer.created"))["created"]
    assert created.endswith(".456Z")
    assert round(datetime.fromisoformat(created).timestamp() * 1000) == NOW


def test_an_id_keeps_its_look() -> None:
    looks = {
        ("stripe", "customer.created"): "evt_[0-9][0-9A-Za-z]{23}",
        ("stripe", "v1.customer.created"): "evt_test_[0-9]{2}[0-9A-Za-z]+",
        ("slack", "message"): "Ev[0-9]{2}[0-9A-Z]{8}",
        ("slack", "view_closed"): r"slack:view_closed:V0[0-9A-Z]{9}:17[0-9]{8}\.[0-9A-Za-z]{8}",
        ("slack", "shortcut"): r"slack:shortcut:[0-9]{13}\.[0-9]{12}\.[0-9a-f]{32}",
        ("slack", "slash_command"): r"slack:cmd:[0-9]{13}\.[0-9]{12}\.[0-9a-f]{32}",
        ("intercom", "ticket.created"): "notif_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    }
    for (provider, name), look in looks.items():
        assert re.fullmatch(look, deliver(provider, fresh(provider, name)).id)


def test_a_text_that_looks_like_a_time_is_left_alone() -> None:
    body = b'{"object":"event","id":"evt_1a","type":"x","created":1763633472,"text":"call 1763633472, at 1763633472.000100"}'
    made = samples.fresh(PROVIDERS["stripe"], body, now=NOW, nonce="n")
    assert b'"text":"call 1763633472, at 1763633472.000100"}' in made
    assert b'"created":1800000123,' in made


def test_a_time_that_does_not_exist_is_left_alone() -> None:
    for odd in (b"2026-02-31T00:00:00.000", b"0001-01-01T00:00:00.000", b"9999-12-31T23:59:59.999"):
        body = b'{"object":"event","id":"evt_1a","type":"x","created":315532800,"at":"%bZ"}' % odd
        now = 315_532_800_000 + (-86_400_000 if odd.startswith(b"0001") else 86_400_000)
        assert odd in samples.fresh(PROVIDERS["stripe"], body, now=now, nonce="n")


def has_an_id(body: bytes) -> bool:
    """Any bytes may: Hypothesis also tries the constants it finds in our code, and some of those are whole webhooks."""
    with suppress(ValueError):
        found = json.loads(body)
        return isinstance(found, dict) and "id" in found
    return False


@given(body=st.binary(max_size=100).filter(lambda body: not has_an_id(body)))
@example(body=b"{}")
@example(body=b'{"id":""}')
@example(body=b'{"id":1}')
@example(body=b'["id"]')
def test_of_a_body_without_an_id_there_is_no_fresh_one(body: bytes) -> None:
    with pytest.raises(Unusable):
        samples.fresh(PROVIDERS["intercom"], body, now=NOW, nonce="n")


def content(body: bytes) -> object:
    if body.startswith(b"{"):
        return json.loads(body)
    fields = dict(parse_qsl(body.decode()))
    return json.loads(fields["payload"]) if "payload" in fields else fields


def leaves(value: object, *path: str) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, *path, key)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, *path)
    else:
        yield path, value
