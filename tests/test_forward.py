"""From the journal to the Event API: a real journal, real workers, and a stand-in for the Event API alone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from forwarding import Bench, bench, delivery, finished

from bridge import retry
from bridge.clock import wall_clock
from bridge.model import Entry, Outcome, State
from bridge.stand_in import Refuse


async def test_what_is_journaled_arrives_and_is_settled(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.append("customer.created", "test.three", "test.skip")
        await b.forwarder.drain()
        assert [event["id"] for event in b.stand_in.events] == [
            "stripe/customer.created:evt_0",
            "test/one:evt_1",
            "test/two:evt_1",
            "test/one:evt_1:2",
        ]
        assert list((await b.states()).values()) == [State.FORWARDED, State.FORWARDED, State.SKIPPED]
        [attempt] = await b.attempts("evt_1")
        assert (attempt.outcome, attempt.events, attempt.error) == (Outcome.FORWARDED, 3, "")


async def test_many_go_out_in_batches(tmp_path: Path) -> None:
    async with bench(tmp_path, events=40) as b:
        await asyncio.gather(*(b.store.append(delivery(n)) for n in range(150)))
        await b.forwarder.drain()
        assert len(b.stand_in.events) == 150
        assert len({event["id"] for event in b.stand_in.events}) == 150
        assert len(b.stand_in.requests) == 4
        assert finished(await b.states())


async def test_a_transform_that_raises_makes_its_entry_dead_with_the_traceback_and_no_other(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.append("customer.created", "test.raise", "customer.updated")
        await b.forwarder.drain()
        assert list((await b.states()).values()) == [State.FORWARDED, State.DEAD, State.FORWARDED]
        [attempt] = await b.attempts("evt_1")
        assert attempt.outcome is Outcome.RAISED
        assert "LookupError: quotes the payload" in attempt.error


@pytest.mark.parametrize("type_", ["test.loop", "test.exit"])
async def test_one_that_takes_its_worker_down_is_tried_alone_and_dead_in_the_end_and_the_others_go_on(
    tmp_path: Path, type_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "STUCK", retry.Policy(first=1, longest=1, attempts=2))
    async with bench(tmp_path) as b:
        await b.append("customer.created", type_, "customer.updated", "test.skip")
        states = await b.until(finished)
        assert list(states.values()) == [State.FORWARDED, State.DEAD, State.FORWARDED, State.SKIPPED]
        attempts = await b.attempts("evt_1")
        assert [attempt.outcome for attempt in attempts] == [Outcome.STUCK, Outcome.STUCK]
        assert "the transform took longer" in attempts[0].error or "its process ended" in attempts[0].error
        assert len(await b.attempts("evt_0")) == 1


async def test_when_one_was_stuck_the_next_of_its_kind_costs_the_others_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path, time_limit=1.0) as b:
        await b.append("test.loop")
        running = asyncio.create_task(b.forwarder.run(grace=0.1))
        async with asyncio.timeout(30):
            while not await b.attempts("evt_0"):
                await asyncio.sleep(0.01)
            # Now the kind is known. In one claim with it, the others must arrive before it can have run over its time.
            await b.append("test.loop", "customer.created", first=1)
            loop = asyncio.get_running_loop()
            started = loop.time()
            await b.stand_in.received(1)
            assert loop.time() - started < 1.0
        b.forwarder.stop()
        await running


async def test_retry_is_asked_for_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "POSTPONED", retry.Policy(first=0, longest=0, attempts=3))
    async with bench(tmp_path) as b:
        await b.append("test.later")
        await b.until(finished)
        attempts = await b.attempts("evt_0")
        assert [(attempt.outcome, attempt.error) for attempt in attempts] == [(Outcome.POSTPONED, "not yet")] * 3
        assert await b.states() == {"evt_0": State.DEAD}


async def test_a_replay_sends_the_same_ids_with_another_seed_and_new_ids_where_asked(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.append("customer.created")
        await b.forwarder.drain()
        seq = (await b.entries())["evt_0"].seq
        for new_ids in (False, True):
            assert await b.store.replay([seq], now=wall_clock(), new_ids=new_ids) == 1
            await b.forwarder.drain()
        ids = [event["id"] for event in b.stand_in.events]
        assert ids == ["stripe/customer.created:evt_0"] * 2 + ["stripe/customer.created:evt_0::r1"]
        seeds = {request.headers["x-inngest-event-id-seed"] for request in b.stand_in.requests}
        assert len(seeds) == 3


async def _pauses(b: Bench, monkeypatch: pytest.MonkeyPatch, *, each: int) -> list[float]:
    """Seconds the forwarder leaves between claims, when each of them finds so many."""
    claim, now, pauses = b.store.claim, asyncio.get_running_loop().time, list[float]()
    came, returned = itertools.count(), 0.0

    async def claiming(limit: int, *, lease: int) -> Sequence[Entry]:
        nonlocal returned
        pauses.append(now() - returned)
        await asyncio.gather(*(b.store.append(delivery(next(came))) for _ in range(each)))
        found = await claim(limit, lease=lease)
        returned = now()
        return found

    monkeypatch.setattr(b.store, "claim", claiming)
    await b.until(lambda _: len(pauses) >= 4)
    return pauses[1:4]


async def test_where_several_come_at_a_time_more_are_waited_for_and_where_few_do_they_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path) as b:
        assert min(await _pauses(b, monkeypatch, each=12)) >= 0.009
    async with bench(tmp_path / "few") as b:
        assert min(await _pauses(b, monkeypatch, each=2)) < 0.009


async def test_a_forwarder_that_was_killed_leaves_nothing_behind_for_long(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.append("customer.created")
        claimed = await b.store.claim(10, now=wall_clock(), lease=b.forwarder.lease)
        assert claimed
        running = asyncio.create_task(b.forwarder.run(grace=0.1))
        async with asyncio.timeout(10):  # far less than the lease
            await b.stand_in.received(1)
        b.forwarder.stop()
        await running


async def test_what_is_on_its_way_when_it_is_stopped_is_given_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.stand_in.stop()
        await b.append("customer.created")
        await b.until(lambda _: bool(b.gate.reason))
        [again] = await b.store.claim(10, now=wall_clock(), lease=b.forwarder.lease)
        assert (again.id, again.attempts) == ("evt_0", 0)


async def test_what_came_by_a_clock_that_is_ahead_is_due_at_once_when_it_is_given_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.append("customer.created")
        [entry] = await b.store.claim(1, lease=b.forwarder.lease)
        b.forwarder._clock = lambda: wall_clock() - 3_600_000
        _, settlement = b.forwarder._given_back(entry)
        assert await b.store.settle([settlement]) == 1
        assert await b.store.claim(1, lease=b.forwarder.lease)


async def test_a_module_that_no_longer_loads_holds_its_entries_and_makes_none_of_them_dead(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        (tmp_path / "transforms" / "stripe.py").write_text("def transform(delivery)")
        await b.append("customer.created")
        await b.forwarder.drain()
        entry = (await b.entries())["evt_0"]
        assert (entry.state, entry.attempts) == (State.PENDING, 0)
        assert entry.due is not None
        assert entry.due > wall_clock()
        assert not b.stand_in.events


async def test_that_transforms_run_again_is_said_when_one_has_not_sooner(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        said: list[str] = []
        b.forwarder._unable = said.append
        b.forwarder._suspected["stripe", "customer.created"] = 1 << 62
        module = tmp_path / "transforms" / "stripe.py"
        works = module.read_text()
        module.write_text("def transform(delivery)")
        await b.append("customer.updated")
        await b.forwarder.drain()
        await b.append("customer.created", first=1)  # a claim with nothing for the worker that failed
        await b.forwarder.drain()
        assert len(said) == 1 and "SyntaxError" in said[0]
        module.write_text(works)
        await b.append("customer.created", first=2)
        await b.forwarder.drain()
        assert said[1:] == [""]


async def test_each_metric_counts_what_its_name_says(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.append("customer.created", "test.three", "test.skip", "test.raise")
        b.stand_in.misbehave = [Refuse(status=200, body='{"ids":[""],"status":200}')]
        await b.forwarder.drain()

        def value(name: str, **labels: str) -> float | None:
            return b.metrics.registry.get_sample_value(name, labels)

        assert value("bridge_events_total", source="stripe") == 4
        assert value("bridge_entries_settled_total", source="stripe", state="forwarded") == 2
        assert value("bridge_entries_settled_total", source="stripe", state="skipped") == 1
        assert value("bridge_entries_settled_total", source="stripe", state="dead") == 1
        assert value("bridge_event_api_requests_total", outcome="accepted") == 1
        assert value("bridge_event_api_requests_total", outcome="unavailable") == 1
        assert value("bridge_forward_seconds_count", source="stripe") == 2
