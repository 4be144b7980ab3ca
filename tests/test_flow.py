"""From a signed request to the Event API, whatever the Event API does: nothing lost, nothing dead, the same ids each time.

One service and one stand-in for all of it: what each test posts, it waits for.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator

import orjson
import pytest
import pytest_asyncio
from receiving import BODIES
from service import Service, delivery, service, until

from bridge.model import Outcome, State
from bridge.stand_in import EMPTY, PAGE, Behaviour, CutOff, Hang, Refuse, Reset, Short, StandIn

pytestmark = pytest.mark.asyncio(loop_scope="module")

numbers = itertools.count()
IDS = {
    "stripe": "stripe/customer.created:evt_1",
    "slack": "slack/team.joined:Ev1",
    "intercom": "intercom/contact.deleted:notif_1",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand_in() -> AsyncIterator[StandIn]:
    api = StandIn()
    await api.start()
    yield api
    await api.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory, stand_in: StandIn) -> AsyncIterator[Service]:
    folder = tmp_path_factory.mktemp("flow")
    (folder / "bridge.toml").write_text("[event_api]\ntimeout = 0.5\n")
    async with service(folder, stand_in.url) as found:
        yield found


async def post(to: Service, count: int, type_: str = "customer.created") -> list[str]:
    """The ids of so many new deliveries, posted at once."""
    ns = [next(numbers) for _ in range(count)]
    answers = await asyncio.gather(*(to.post(delivery(n, type_)) for n in ns))
    assert {each.status for each in answers} == {200}
    return [f"evt_{n}" for n in ns]


async def arrived(running: Service, stand_in: StandIn, ids: list[str]) -> None:
    """All of them, with one event id each however often, at the cost of one attempt."""

    async def finished() -> bool:
        entries = await running.entries()
        return all(entries[id_].due is None for id_ in ids)

    await until(finished)
    entries = await running.entries()
    assert {(entries[id_].state, entries[id_].attempts) for id_ in ids} == {(State.FORWARDED, 1)}
    sent = {id_: {event["id"] for event in stand_in.events if event["data"].get("id") == id_} for id_ in ids}
    assert sent == {id_: {f"stripe/customer.created:{id_}"} for id_ in ids}


async def test_each_providers_webhook_becomes_its_event(running: Service, stand_in: StandIn) -> None:
    for source, body in BODIES.items():
        assert (await running.post(body, source=source)).status == 200

    def all_of_them() -> bool:
        return {event["id"] for event in stand_in.events} >= set(IDS.values())

    await until(all_of_them)
    events = {event["id"]: event for event in stand_in.events}
    for source, body in BODIES.items():
        event = events[IDS[source]]
        assert event["name"] == IDS[source].partition(":")[0]
        assert (event["data"], event["ts"]) == (orjson.loads(body), 1_767_225_599_000)


FAULTS: dict[str, Behaviour] = {
    "429 with Retry-After": Refuse(status=429, headers={"Retry-After": "1"}),
    "500": Refuse(status=500, body="internal error"),
    "502 from a proxy": Refuse(status=502, body="<html>bad gateway</html>", headers={"Content-Type": "text/html"}),
    "401": Refuse(status=401, body='{"status":401,"message":"","error":"Event key not found"}'),
    "a redirect": Refuse(status=303, headers={"Location": "/e"}),
    "a page": PAGE,
    "nothing": EMPTY,
    "fewer ids than events": Short(),
    "fewer ids, and not all accepted": Short(taking=False),
    "a reset before it accepted": Reset(),
    "a reset after it accepted": Reset(accepting=True),
    "half an answer": CutOff(),
    "no answer": Hang(),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_whatever_the_event_api_does_everything_arrives_in_the_end(
    running: Service, stand_in: StandIn, fault: Behaviour
) -> None:
    before = stand_in.asked
    stand_in.misbehave = [fault]
    ids = await post(running, 5)
    await arrived(running, stand_in, ids)
    first, *later = stand_in.requests[before:]
    again = next(request for request in later if request.body == first.body)
    seed = "x-inngest-event-id-seed"
    assert (again.status, again.headers[seed]) == (200, first.headers[seed]), "so that no function runs twice"


async def test_while_nobody_listens_everything_waits_and_then_goes_out(running: Service, stand_in: StandIn) -> None:
    port = int(stand_in.url.rpartition(":")[2])
    await stand_in.stop()
    ids = await post(running, 30)
    await until(lambda: '"event_api.unavailable","reason":"connection refused' in running.logged)
    entries = await running.entries()
    assert {(entries[id_].state, entries[id_].attempts) for id_ in ids} == {(State.PENDING, 0)}
    assert (await running.ready()).status == 200, "an outage elsewhere is no fault of ours"
    await stand_in.start(port)
    await arrived(running, stand_in, ids)
    assert '"event_api.back"' in running.logged


async def test_an_event_that_is_refused_is_dead_alone(running: Service, stand_in: StandIn) -> None:
    stand_in.unwanted = {"stripe/test.unwanted": "event name is reserved for internal use: stripe/test.unwanted"}
    before = stand_in.asked
    os.kill(running.child("forwarder"), signal.SIGSTOP)  # so that all of it goes into one batch
    good = await post(running, 8)
    [bad] = await post(running, 1, "test.unwanted")
    good += await post(running, 8)
    os.kill(running.child("forwarder"), signal.SIGCONT)
    await arrived(running, stand_in, good)
    [attempt] = await running.attempts(bad)
    assert (await running.entries())[bad].state is State.DEAD
    assert (attempt.outcome, attempt.events) == (Outcome.REFUSED, 0)
    assert "event name is reserved" in attempt.error
    refused = [len(orjson.loads(request.body)) for request in stand_in.requests[before:] if request.status == 400]
    assert refused == [17, 1], "in company, and then once more alone"
    assert [line["id"] for line in running.log() if line["event"] == "entry.dead"] == [bad]
