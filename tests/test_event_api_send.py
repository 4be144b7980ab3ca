"""Events sent from Python: cut into batches, sent again with patience, their ids in order."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.errors import EventApiMisconfigured, EventApiUnavailable, EventInvalid, EventRefused
from bridge.event_api import EventApi, batches, seed
from bridge.model import Event
from bridge.stand_in import Refuse, Reset, Short, StandIn


@pytest.fixture
async def server() -> AsyncIterator[StandIn]:
    server = StandIn(key="k")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def api(server: StandIn) -> AsyncIterator[EventApi]:
    async with EventApi("k", base_url=server.url, max_batch_events=4, max_event_bytes=100) as api:
        yield api


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds `send` would have waited."""
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("bridge.event_api.sleep", note)
    return waited


def events(count: int) -> list[Event]:
    return [Event(name=f"n/{n}", id=str(n)) for n in range(count)]


def names(server: StandIn) -> list[list[str]]:
    """Of the events of each request."""
    return [[event["name"] for event in json.loads(request.body)] for request in server.requests]


def seeds(server: StandIn) -> list[str]:
    return [request.headers["x-inngest-event-id-seed"] for request in server.requests]


async def test_ids_come_in_the_order_of_the_events(server: StandIn, api: EventApi) -> None:
    ids = await api.send(events(9))
    assert names(server) == [["n/0", "n/1", "n/2", "n/3"], ["n/4", "n/5", "n/6", "n/7"], ["n/8"]]
    assert len(set(ids)) == 9 and len(set(seeds(server))) == 3
    assert [event["id"] for event in server.events] == list("012345678")


async def test_no_events_are_no_request(server: StandIn, api: EventApi) -> None:
    assert await api.send([]) == []
    assert server.requests == []


async def test_a_batch_keeps_within_its_bytes(server: StandIn) -> None:
    async with EventApi("k", base_url=server.url, max_batch_bytes=70) as api:
        await api.send(events(4))
    assert names(server) == [["n/0", "n/1"], ["n/2", "n/3"]]
    assert all(len(request.body) <= 70 for request in server.requests)


async def test_an_id_that_is_missing_stays_missing(server: StandIn, api: EventApi) -> None:
    await api.send([Event(name="a")])
    assert json.loads(server.requests[0].body) == [{"name": "a", "data": {}}]


async def test_events_that_look_the_same_stay_several(
    server: StandIn, api: EventApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two batches of one call, and in two calls in the same millisecond."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_743_130_137_367_000_000)
    ids = await api.send([Event(name="a")] * 8) + await api.send([Event(name="a")] * 4)
    assert len(set(ids)) == 12 and len(set(seeds(server))) == 3


@pytest.mark.parametrize("bad", [Event(name=""), Event(name="a", data={"x": "x" * 100})])
async def test_nothing_is_sent_when_one_event_is_invalid(bad: Event, server: StandIn, api: EventApi) -> None:
    with pytest.raises(EventInvalid, match=re.escape("events[1]: ")):
        await api.send([Event(name="a"), bad])
    assert server.requests == []


async def test_what_may_have_been_lost_is_sent_again_with_the_same_seed(
    server: StandIn, api: EventApi, pauses: list[float]
) -> None:
    server.misbehave = [Refuse(status=503), Reset(accepting=True), Short(), Refuse(status=429)]
    assert len(await api.send(events(2))) == 2
    assert names(server) == [["n/0", "n/1"]] * 5 and len(set(seeds(server))) == 1
    assert len(pauses) == 4
    assert all(0.749 * full <= pause <= full for pause, full in zip(pauses, [0.2, 0.4, 0.8, 1.6], strict=True))


async def test_patience_ends_after_five_tries(server: StandIn, api: EventApi, pauses: list[float]) -> None:
    server.misbehave = [Refuse(status=503), Reset(accepting=True)]
    server.always = Refuse(status=503, headers={"Retry-After": "9"})
    with pytest.raises(EventApiUnavailable, match="answered 503") as raised:
        await api.send(events(1))
    assert (raised.value.accepted, raised.value.retry_after) == ((), 9.0)
    assert len(server.requests) == 5 and pauses[2:] == [9.0, 9.0]


async def test_who_is_asked_for_more_than_30_seconds_of_patience_is_told_at_once(
    server: StandIn, api: EventApi, pauses: list[float]
) -> None:
    server.misbehave = [Refuse(status=429, headers={"Retry-After": "31"})]
    with pytest.raises(EventApiUnavailable) as raised:
        await api.send(events(1))
    assert raised.value.retry_after == 31.0
    assert len(server.requests) == 1 and pauses == []


async def test_those_accepted_before_a_failure_are_named(server: StandIn, api: EventApi) -> None:
    body = json.dumps({"ids": ["X", "Y", ""], "status": 400, "error": "event name is empty"})
    server.misbehave = [Short(by=0), Refuse(status=400, body=body)]
    with pytest.raises(EventRefused, match=re.escape("events[6]: answered 400: event name is empty")) as raised:
        await api.send(events(9))
    assert len(raised.value.accepted) == 6 and raised.value.accepted[4:] == ("X", "Y")
    assert len(server.requests) == 2


async def test_a_wrong_key_is_told_at_once(server: StandIn) -> None:
    async with EventApi("wrong", base_url=server.url) as api:
        with pytest.raises(EventApiMisconfigured, match="Event key not found"):
            await api.send(events(1))
    assert len(server.requests) == 1


async def test_what_is_too_large_is_halved_in_its_order(server: StandIn, api: EventApi) -> None:
    server.misbehave = [Refuse(status=413), Refuse(status=413)]
    assert len(await api.send(events(5))) == 5
    assert names(server) == [
        ["n/0", "n/1", "n/2", "n/3"],
        ["n/0", "n/1"],
        ["n/0"],
        ["n/1"],
        ["n/2", "n/3"],
        ["n/4"],
    ]
    assert [event["name"] for event in server.events] == ["n/0", "n/1", "n/2", "n/3", "n/4"]


async def test_one_event_that_is_too_large_is_refused(server: StandIn, api: EventApi) -> None:
    server.always = Refuse(status=413)
    with pytest.raises(EventRefused, match=re.escape("events[0]: answered 413")):
        await api.send(events(2))
    assert names(server) == [["n/0", "n/1"], ["n/0"]]


@given(st.lists(st.integers(1, 30)), st.integers(1, 5), st.integers(2, 60))
@example([10, 10], 5, 23)
@example([10, 10], 5, 22)
def test_batches_are_full_and_no_fuller(sizes: list[int], max_events: int, max_bytes: int) -> None:
    cut = batches(sizes, max_events=max_events, max_bytes=max_bytes)

    def body(batch: range) -> int:
        return len(b"[%b]" % b",".join(b"x" * sizes[index] for index in batch))

    assert [index for batch in cut for index in batch] == list(range(len(sizes)))
    for batch in cut:
        assert len(batch) == 1 or (0 < len(batch) <= max_events and body(batch) <= max_bytes)
    for batch in cut[:-1]:
        longer = range(batch.start, batch.stop + 1)
        assert len(longer) > max_events or body(longer) > max_bytes


_IDS = st.lists(st.text(), max_size=3)


@given(_IDS, st.text(), _IDS, st.text())
@example(["a", "b"], "", ["ab"], "")
@example(["a"], "b", ["b"], "a")
@example(["1:a"], "", ["1", "a"], "")
@example([], "a", ["a"], "")
@example(["\ud800"], "", ["?"], "")
def test_only_the_same_batch_has_the_same_seed(ids: list[str], salt: str, others: list[str], other_salt: str) -> None:
    same = (ids, salt) == (others, other_salt)
    assert (seed(ids, at=1, salt=salt) == seed(others, at=1, salt=other_salt)) == same


@pytest.mark.parametrize(("at", "written"), [(1743130137367, 1743130137367), (0, 1), (-5, 1), (1 << 50, (1 << 48) - 1)])
async def test_every_seed_is_one_the_event_api_heeds(at: int, written: int, api: EventApi) -> None:
    chosen = seed(["a", "b"], at=at)
    assert chosen == f"{written},{seed(['a', 'b'], at=1)[2:]}"
    first = await api.post([b'{"name":"a"}'], seed=chosen)
    assert await api.post([b'{"name":"a"}'], seed=chosen) == first


def test_a_seed_is_the_same_in_every_release() -> None:
    """A batch sent before an update and again after it must not run twice."""
    assert seed(["stripe/a:evt_1", "stripe/a:evt_2"], at=1743130137367, salt="0,0") == "1743130137367,ugLtgbU2DFaQnw=="
