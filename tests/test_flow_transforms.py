"""From a signed request to the Event API through transforms of the user's: what they change, and what they break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from service import Service, delivery, service, until

from bridge.model import Outcome, State
from bridge.stand_in import StandIn

STRIPE = """
import os
from bridge import Event
from transforms.stripe import transform as builtin

VERSION = "2026-01-31.1"

def transform(delivery):
    match delivery.type:
        case "invoice.paid":
            return Event(name="billing/invoice.paid", data={"n": delivery.payload["data"]["object"]["n"]})
        case "test.skip":
            return None
        case "test.loop":
            while True:
                pass
        case "test.exit":
            os._exit(3)
        case "test.raise":
            return mend(delivery)
    return builtin(delivery)
"""
MENDED = STRIPE.replace("mend(delivery)", 'Event(name="test/mended", data={"id": delivery.id})')


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    api = StandIn()
    await api.start()
    yield api
    await api.stop()


@pytest.fixture
async def running(tmp_path: Path, stand_in: StandIn) -> AsyncIterator[Service]:
    (tmp_path / "transforms").mkdir()
    (tmp_path / "transforms" / "stripe.py").write_text(STRIPE)
    (tmp_path / "bridge.toml").write_text("transform_timeout = 0.3\n")
    async with service(tmp_path, stand_in.url, {"BRIDGE_TRANSFORMS": "transforms"}) as found:
        yield found


async def test_a_transform_of_the_users_decides_what_is_sent(running: Service, stand_in: StandIn) -> None:
    for n, type_ in enumerate(["invoice.paid", "test.skip", "customer.created"]):
        assert (await running.post(delivery(n, type_))).status == 200
    entries = await running.until_finished(3)
    assert {id_: entry.state for id_, entry in entries.items()} == {
        "evt_0": State.FORWARDED,
        "evt_1": State.SKIPPED,
        "evt_2": State.FORWARDED,
    }
    events = {event["id"]: event for event in stand_in.events}
    assert set(events) == {"billing/invoice.paid:evt_0", "stripe/customer.created:evt_2"}
    billing = events["billing/invoice.paid:evt_0"]
    assert (billing["data"], billing["v"], billing["ts"]) == ({"n": 0}, "2026-01-31.1", 1_767_225_600_000)


async def test_transforms_that_never_end_or_take_their_process_down_hold_up_nobody_else(
    running: Service, stand_in: StandIn
) -> None:
    fatal = {"evt_loop": "test.loop", "evt_exit": "test.exit"}
    for id_, type_ in fatal.items():
        assert (await running.post(delivery(id_.removeprefix("evt_"), type_))).status == 200
    answers = await asyncio.gather(*(running.post(delivery(n)) for n in range(50)))
    assert {each.status for each in answers} == {200}
    await stand_in.received(50)
    meanwhile = await running.entries()
    assert {meanwhile[id_].state for id_ in fatal} == {State.PENDING}, "they are tried alone, and take their time"
    entries = await running.until_finished(52)
    assert {id_ for id_, entry in entries.items() if entry.state is State.DEAD} == set(fatal)
    assert {entry.attempts for id_, entry in entries.items() if id_ not in fatal} == {1}
    reasons = {"evt_loop": "the transform took longer than 0.3 s", "evt_exit": "its process ended with exit status 3"}
    for id_, reason in reasons.items():
        assert [(a.outcome, a.error) for a in await running.attempts(id_)] == [(Outcome.STUCK, reason)] * 3
    assert {event["data"]["id"] for event in stand_in.events} == {f"evt_{n}" for n in range(50)}


async def test_a_transform_that_raises_is_mended_and_its_deliveries_replayed(
    running: Service, stand_in: StandIn
) -> None:
    assert (await running.post(delivery(7, "test.raise"))).status == 200
    entries = await running.until_finished(1)
    assert entries["evt_7"].state is State.DEAD
    shown = await running.run("show", "evt_7")
    assert "NameError: name 'mend' is not defined" in shown
    assert "return mend(delivery)" in shown, "with the line at fault"
    assert "Traceback" not in running.logged, "what it quotes is the operator's alone"
    assert await running.stop() == 0
    (running.folder / "transforms" / "stripe.py").write_text(MENDED)
    await running.start()
    for count in (1, 2):  # and once more, now that it was forwarded
        printed = orjson.loads(await running.run("replay", "evt_7", "--json"))
        assert printed == {"selected": 1, "replayed": 1}
        events = await stand_in.received(count)
        assert (await running.until_finished(1))["evt_7"].state is State.FORWARDED
    assert [event["id"] for event in events] == ["test/mended:evt_7"] * 2
    [raised, *forwarded] = await running.attempts("evt_7")
    assert [each.outcome for each in (raised, *forwarded)] == [Outcome.RAISED, Outcome.FORWARDED, Outcome.FORWARDED]


async def test_a_module_that_is_gone_holds_what_it_was_for_until_it_is_back(
    running: Service, stand_in: StandIn
) -> None:
    """Sent as the built-in one has it, they would have other names, and some should not be sent at all."""
    module = running.folder / "transforms" / "stripe.py"
    away = module.rename(module.with_suffix(".away"))
    assert (await running.post(delivery(0, "test.exit"))).status == 200  # with it goes what was loaded
    assert (await running.post(delivery(1, "invoice.paid"))).status == 200
    assert (await running.post(delivery(2, "test.skip"))).status == 200

    async def is_held() -> bool:
        return "stripe.py: was here when the bridge started, and is gone" in (await running.ready()).text

    await until(is_held)
    assert stand_in.events == []
    away.rename(module)
    await stand_in.received(1)
    await running.until_finished(3)
    await running.until_ready()
    assert [event["name"] for event in stand_in.events] == ["billing/invoice.paid"]
    events = [line["event"] for line in running.log()]
    assert events.count("worker.unavailable") == events.count("worker.back") == 1
