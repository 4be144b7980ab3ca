"""What the whole service counts, over all its processes, and what it says of being ready: after traffic that is known."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from processes import kill
from receiving import BODIES
from service import SECRETS, Service, delivery, service, until

from bridge.errors import Reason
from bridge.event_api import Verdict
from bridge.metrics import DELIVERY_OUTCOMES, Metrics, Receipts
from bridge.model import State
from bridge.stand_in import Hang, Refuse, StandIn

NAMES = {
    "bridge_deliveries_total",
    "bridge_rejections_total",
    "bridge_ack_seconds_bucket",
    "bridge_entries_settled_total",
    "bridge_events_total",
    "bridge_forward_seconds_bucket",
    "bridge_event_api_requests_total",
    "bridge_journal_entries",
    "bridge_oldest_pending_seconds",
}
SOURCES = {"stripe", "slack", "intercom"}
# By the metric: which values its labels may have, in the order of the labels' names.
LABELS: dict[str, list[set[str]]] = {
    "bridge_deliveries_total": [set(DELIVERY_OUTCOMES), SOURCES],
    "bridge_rejections_total": [set(Reason), SOURCES],
    "bridge_entries_settled_total": [SOURCES, set(State)],
    "bridge_events_total": [SOURCES],
    "bridge_event_api_requests_total": [set(Verdict)],
    "bridge_journal_entries": [set(State)],
}
TRANSFORM = """
from transforms.stripe import transform as builtin

def transform(delivery):
    if delivery.type == "test.skip":
        return None
    if delivery.type == "test.raise":
        raise ValueError("no")
    return builtin(delivery)
"""
CHALLENGE = b'{"type":"url_verification","challenge":"c"}'


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    api = StandIn(key="the event key")
    await api.start()
    yield api
    await api.stop()


@pytest.fixture
async def running(tmp_path: Path, stand_in: StandIn) -> AsyncIterator[Service]:
    (tmp_path / "transforms").mkdir()
    (tmp_path / "transforms" / "stripe.py").write_text(TRANSFORM)
    more = {
        "INNGEST_EVENT_KEY": "the event key",
        "INNGEST_EVENT_API_BASE_URL": stand_in.url,
        "BRIDGE_TRANSFORMS": str(tmp_path / "transforms"),
    }
    async with service(tmp_path, "", more) as found:
        yield found
        secrets = ["the event key", "the%20event%20key", *SECRETS.values()]
        assert not [secret for secret in secrets if secret in found.logged]


async def test_everything_that_happens_is_counted_by_whoever_does_it(running: Service, stand_in: StandIn) -> None:
    before = await running.metrics()
    assert {name for name, *_ in before} >= NAMES, "from the start, so that the first of each is an increase"
    stand_in.misbehave = [Refuse(status=500)]
    types = ["customer.created"] * 3 + ["test.skip", "test.raise", "inngest/reserved"]
    for n, type_ in enumerate(types):
        assert (await running.post(delivery(n, type_))).status == 200
    for n in range(2):
        assert (await running.post(delivery(n))).status == 200
    wrong = {"Stripe-Signature": "t=1,v1=00"}
    for headers in (wrong, {}):
        url = f"{running.public}/webhooks/stripe"
        assert (await running.ask("POST", url, data=b"{}", headers=headers)).status == 401
    assert (await running.post(CHALLENGE, source="slack")).text == "c"
    with closing(sqlite3.connect(running.folder / "bridge.db", isolation_level=None)) as other:
        await running.until_finished(6)
        other.execute("BEGIN EXCLUSIVE")
        assert (await running.post(BODIES["intercom"], source="intercom")).status == 429
    await running.until_counted(1, "failed", "intercom")
    await running.until_ready()  # it looks after a second whether it can store again
    after = await running.metrics()
    assert {key: value for key, value in after.items() if value != before.get(key) and "_seconds" not in key[0]} == {
        ("bridge_deliveries_total", "accepted", "stripe"): 6,
        ("bridge_deliveries_total", "duplicate", "stripe"): 2,
        ("bridge_deliveries_total", "rejected", "stripe"): 2,
        ("bridge_deliveries_total", "handshake", "slack"): 1,
        ("bridge_deliveries_total", "failed", "intercom"): 1,
        ("bridge_rejections_total", "mismatch", "stripe"): 1,
        ("bridge_rejections_total", "missing", "stripe"): 1,
        ("bridge_entries_settled_total", "stripe", "forwarded"): 3,
        ("bridge_entries_settled_total", "stripe", "skipped"): 1,
        ("bridge_entries_settled_total", "stripe", "dead"): 2,
        ("bridge_events_total", "stripe"): 3,
        ("bridge_event_api_requests_total", "unavailable"): 1,
        ("bridge_event_api_requests_total", "accepted"): len(stand_in.requests) - 1,
        ("bridge_journal_entries", "forwarded"): 3,
        ("bridge_journal_entries", "skipped"): 1,
        ("bridge_journal_entries", "dead"): 2,
    }
    assert after["bridge_ack_seconds_count", "stripe"] == 8 and after["bridge_ack_seconds_count", "slack"] == 1
    assert after["bridge_forward_seconds_count", "stripe"] == 3
    assert 0.3 < after["bridge_forward_seconds_sum", "stripe"] < 30, "the first waited for the Event API to come back"
    for name, sets in LABELS.items():
        for key in after:
            assert key[0] != name or all(value in values for value, values in zip(key[1:], sets, strict=True)), key


async def test_what_waits_is_shown_with_its_age(running: Service, stand_in: StandIn) -> None:
    stand_in.always = Hang()
    assert (await running.post(delivery(1))).status == 200
    await stand_in.requested(1)
    found = await running.metrics()
    assert found["bridge_journal_entries", "pending"] == 1
    assert 0 < found["bridge_oldest_pending_seconds",] < 30
    await stand_in.stop()  # or the service would wait a little for its answer


async def test_counters_outlive_the_process_that_counted(running: Service) -> None:
    assert (await running.post(delivery(1))).status == 200
    await running.until_counted(1, "accepted")
    receiver = running.child("receiver")
    kill(receiver)
    await until(lambda: running.child("receiver") not in {0, receiver})
    assert (await running.post(delivery(2))).status == 200
    await running.until_counted(2, "accepted")


async def test_a_wrong_event_key_holds_everything_and_says_so_until_it_is_right(
    running: Service, stand_in: StandIn
) -> None:
    stand_in._key = "another"
    assert (await running.post(delivery(1))).status == 200, "none of the provider's affair"

    async def is_held() -> bool:
        return (await running.ready()).text.startswith("forwarding is held: answered 401: Event key not found")

    await until(is_held)
    assert (await running.ready()).status == 503
    assert (await running.metrics())["bridge_forwarding_held",] == 1
    assert (await running.ask("GET", f"{running.private}/healthz")).status == 200
    stand_in._key = "the event key"
    await running.until_ready()
    await stand_in.received(1)
    assert (await running.metrics())["bridge_forwarding_held",] == 0
    assert {(e.state, e.attempts) for e in (await running.until_finished(1)).values()} == {(State.FORWARDED, 1)}
    events = [line["event"] for line in running.log()]
    assert "event_api.misconfigured" in events and "event_api.back" in events


def test_many_values_at_once_count_as_one_by_one() -> None:
    seconds = [0.0004, 0.001, 0.0011, 0.3, 0.3, 7.0]
    at_once, one_by_one = Metrics(), Metrics()
    at_once.ack_seconds.labels("stripe").observe_all(seconds)
    for each in seconds:
        one_by_one.ack_seconds.labels("stripe").observe(each)
    counted = [
        [sample for family in each.registry.collect() for sample in family.samples if "created" not in sample.name]
        for each in (at_once, one_by_one)
    ]
    assert counted[0] == counted[1]
    assert any(sample.value == len(seconds) for sample in counted[0])


async def test_what_requests_came_to_is_written_when_their_turn_of_the_loop_is_over() -> None:
    metrics = Metrics()
    receipts = Receipts(metrics, "stripe")
    for turn in (1, 2):
        receipts.add("accepted", 0.002)
        receipts.add("accepted", 0.003)
        receipts.add("rejected")
        await asyncio.sleep(0)
        assert metrics.registry.get_sample_value("bridge_ack_seconds_count", {"source": "stripe"}) == 2 * turn
        for outcome, count in (("accepted", 2), ("rejected", 1), ("failed", 0)):
            labels = {"source": "stripe", "outcome": outcome}
            assert metrics.registry.get_sample_value("bridge_deliveries_total", labels) == count * turn
