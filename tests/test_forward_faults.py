"""An Event API that fails, refuses, or is away: nothing is lost, and nothing is dead that is not at fault."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import orjson
import pytest
from forwarding import Bench, bench, finished
from receiving import logging_into

from bridge import retry
from bridge.clock import wall_clock
from bridge.model import Outcome, State
from bridge.send import Parcel
from bridge.stand_in import PAGE, Behaviour, CutOff, Hang, Refuse, Reset, Short


@pytest.mark.parametrize(
    "behaviour",
    [
        Refuse(status=500),
        Refuse(status=429, headers={"Retry-After": "0"}),
        Refuse(status=200),
        Refuse(status=503, body="{}"),
        Refuse(status=200, body='{"ids":[""],"status":200}'),
        Reset(),
        Reset(accepting=True),
        CutOff(),
        Short(),
        Short(taking=False),
        PAGE,
        Refuse(status=303, headers={"Location": "/e"}),
        Refuse(status=401, body='{"status":401,"message":"","error":"Event key not found"}'),
    ],
    ids=repr,
)
async def test_an_event_api_that_fails_uses_up_no_attempt_and_gets_the_same_batch_with_the_same_seed_again(
    tmp_path: Path, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    for policy in ("OUTAGE", "MISCONFIGURED"):
        monkeypatch.setattr(retry, policy, retry.Policy(first=1, longest=1))
    async with bench(tmp_path) as b:
        await b.append("customer.created", "customer.updated")
        b.stand_in.misbehave = [behaviour, behaviour]
        await b.forwarder.drain()
        assert finished(await b.states())
        assert len(await b.attempts("evt_0")) == 1
        requests = [(r.body, r.headers.get("x-inngest-event-id-seed")) for r in b.stand_in.requests]
        assert len(requests) == 3
        assert len(set(requests)) == 1


async def test_while_it_is_away_nothing_is_counted_and_when_it_is_back_all_of_it_arrives(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        port = int(b.stand_in.url.rpartition(":")[2])
        await b.stand_in.stop()
        await b.append(*["customer.created"] * 30)
        running = asyncio.create_task(b.forwarder.run(grace=0.1))
        async with asyncio.timeout(30):
            while not b.gate.reason:
                await asyncio.sleep(0.01)
            assert "connection refused" in b.gate.reason
            assert all(entry.attempts == 0 for entry in (await b.entries()).values())
            await b.stand_in.start(port)
            await b.stand_in.received(30)
            while not finished(await b.states()):
                await asyncio.sleep(0.01)
        b.forwarder.stop()
        await running
        assert {entry.attempts for entry in (await b.entries()).values()} == {1}


async def test_a_refused_event_is_taken_out_tried_once_more_alone_and_dead_and_the_rest_goes_through(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as b:
        b.stand_in.unwanted["stripe/customer.deleted"] = "json: cannot unmarshal something"
        await b.append("customer.created", "customer.deleted", "customer.updated", "customer.deleted", "invoice.paid")
        await b.forwarder.drain()
        states = list((await b.states()).values())
        assert states == [State.FORWARDED, State.DEAD, State.FORWARDED, State.DEAD, State.FORWARDED]
        assert len(b.stand_in.events) == 3
        [attempt] = await b.attempts("evt_1")
        assert (attempt.outcome, attempt.events) == (Outcome.REFUSED, 0)
        assert "json: cannot unmarshal something" in attempt.error


async def test_a_refusal_in_unknown_words_is_tried_again_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "REFUSED_OBSCURELY", retry.Policy(first=1, longest=1, attempts=3))
    async with bench(tmp_path) as b:
        b.stand_in.unwanted["stripe/customer.deleted"] = "nats: no responders available"
        await b.append("customer.deleted", "customer.created")
        await b.until(finished)
        assert await b.states() == {"evt_0": State.DEAD, "evt_1": State.FORWARDED}
        assert [attempt.outcome for attempt in await b.attempts("evt_0")] == [Outcome.REFUSED] * 3


async def test_too_large_a_request_is_halved_until_it_fits(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.append(*["customer.created"] * 4)
        b.stand_in.misbehave = [Refuse(status=413), Refuse(status=413)]
        await b.forwarder.drain()
        assert [len(orjson.loads(request.body)) for request in b.stand_in.requests] == [4, 2, 1, 1, 2]
        assert finished(await b.states())
        assert len(b.stand_in.events) == 4


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pauses."""
    monkeypatch.setattr(retry, "REFUSED_OBSCURELY", retry.Policy(first=1, longest=1, attempts=2))
    monkeypatch.setattr(retry, "UNCLEAR", retry.Policy(first=1, longest=1))


async def tried(b: Bench, times: int) -> None:
    async with asyncio.timeout(10):
        while len(await b.attempts("evt_0")) < times:
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("quickly")
async def test_413_for_one_event_kills_it_only_where_others_are_accepted(tmp_path: Path) -> None:
    """Our own limit let it pass: a proxy that lets nothing through says the same."""
    with logging_into(logged := io.StringIO()):
        async with bench(tmp_path) as b:
            b.stand_in.always = Refuse(status=413)
            await b.append("customer.created")
            running = asyncio.create_task(b.forwarder.run(grace=0.1))
            await tried(b, 4)
            assert await b.states() == {"evt_0": State.PENDING}
            assert {attempt.outcome for attempt in await b.attempts("evt_0")} == {Outcome.UNCLEAR}
            b.forwarder._accepted_at = wall_clock()
            async with asyncio.timeout(10):
                while not finished(await b.states()):
                    await asyncio.sleep(0.01)
            assert [each.outcome for each in await b.attempts("evt_0")][-2:] == [Outcome.REFUSED] * 2
            b.forwarder.stop()
            await running
    assert '"event":"event_api.refusing"' in logged.getvalue()


@pytest.mark.usefixtures("quickly")
async def test_one_acceptance_makes_nothing_of_what_was_refused_while_all_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Event API was ill for long, was well for a moment, and is ill again."""
    now = wall_clock() + 60_000
    monkeypatch.setattr("bridge.journal.sqlite.journal.wall_clock", lambda: now)
    async with bench(tmp_path, clock=lambda: now) as b:
        b.stand_in.unwanted["stripe/customer.deleted"] = "redis: connection refused"
        await b.append("customer.deleted")
        for _ in range(4):
            await b.forwarder.drain()
            now += 300_000
        b.forwarder._accepted_at = now - 100_000
        await b.forwarder.drain()
        outcomes = [attempt.outcome for attempt in await b.attempts("evt_0")]
        assert outcomes == [*[Outcome.UNCLEAR] * 4, Outcome.REFUSED], "since the last time, though not lately"
        assert await b.states() == {"evt_0": State.PENDING}
        now += 300_000
        await b.forwarder.drain()
        assert await b.states() == {"evt_0": State.PENDING}, "nothing was accepted since"
        now += 300_000
        b.forwarder._accepted_at = now
        await b.forwarder.drain()
        assert await b.states() == {"evt_0": State.DEAD}


async def test_a_refusal_in_unknown_words_kills_nothing_while_nothing_else_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The open-source server answers 400 also when its own store is away."""
    monkeypatch.setattr(retry, "REFUSED_OBSCURELY", retry.Policy(first=1, longest=1, attempts=2))
    monkeypatch.setattr(retry, "UNCLEAR", retry.Policy(first=1, longest=1))
    async with bench(tmp_path) as b:
        b.stand_in.unwanted["stripe/customer.created"] = "redis: connection refused"
        await b.append("customer.created")
        running = asyncio.create_task(b.forwarder.run(grace=0.1))
        async with asyncio.timeout(30):
            while len(await b.attempts("evt_0")) < 4:
                await asyncio.sleep(0.01)
            assert await b.states() == {"evt_0": State.PENDING}
            b.stand_in.unwanted.clear()
            await b.stand_in.received(1)
        b.forwarder.stop()
        await running


async def test_what_was_decided_is_settled_while_the_rest_is_still_on_its_way(tmp_path: Path) -> None:
    async with bench(tmp_path, events=1) as b:
        await b.append("customer.created", "customer.updated")
        b.stand_in.misbehave = [Short(by=0), Hang()]
        running = asyncio.create_task(b.forwarder.run(grace=0.1))
        async with asyncio.timeout(10):
            await b.stand_in.requested(2)
            while (await b.states())["evt_0"] is State.PENDING:
                await asyncio.sleep(0.01)
        assert (await b.states())["evt_1"] is State.PENDING
        b.forwarder.stop()
        await running


async def test_a_claim_too_slow_to_be_transformed_in_its_time_goes_out_in_parts_and_each_event_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, it outlived its lease, was settled by nobody, and was sent again every minute."""
    async with bench(tmp_path, time_limit=1) as b:
        monkeypatch.setattr(b.forwarder, "_transforming", 0.4)
        await b.append(*["test.slow"] * 12)
        await b.until(finished)
        ids = [event["id"] for event in b.stand_in.events]
        assert len(ids) == len(set(ids)) == 12
        assert {entry.attempts for entry in (await b.entries()).values()} == {1}


async def test_nothing_is_sent_once_the_time_for_it_is_over(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.append("customer.created")
        [entry] = await b.store.claim(1, now=wall_clock(), lease=1000)
        parcel = Parcel(entry=entry, events=[b"{}"], ids=["a"])
        past = asyncio.get_running_loop().time() - 1
        assert [decided async for decided in b.sender.send([parcel], until=past)] == []
        assert not b.stand_in.requests
