"""What every event gets, and what no event may have."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from bridge.errors import EventInvalid
from bridge.event import EARLIEST, LATEST, LONGEST_ID, LONGEST_NAME, MAX_BYTES, check, complete, encode, event_id
from bridge.model import Delivery, Event

NOW = 1_800_000_000_000
DELIVERY = Delivery(
    source="stripe",
    provider="stripe",
    prefix="stripe",
    id="evt_1",
    type="customer.created",
    occurred_at=NOW - 5_000,
    received_at=NOW - 1_000,
    headers={},
    body=b"{}",
    payload={},
)


def completed(
    *events: Event,
    delivery: Delivery = DELIVERY,
    user: Mapping[str, Any] | None = None,
    version: str | None = None,
    generation: int = 0,
    now: int = NOW,
) -> list[Event]:
    return complete(events, delivery=delivery, user=user or {}, version=version, generation=generation, now=now)


def ids(*events: Event, generation: int = 0) -> list[str]:
    return [event.id for event in completed(*events, generation=generation)]


def test_an_event_is_named_after_what_happened_and_where() -> None:
    assert ids(Event(name="stripe/customer.created")) == ["stripe/customer.created:evt_1"]


def test_several_events_of_one_name_are_numbered_from_the_second_on() -> None:
    a, b = Event(name="a"), Event(name="b")
    assert ids(a, b, a, a, b) == ["a:evt_1", "b:evt_1", "a:evt_1:2", "a:evt_1:3", "b:evt_1:2"]


def test_a_key_takes_the_place_of_the_number() -> None:
    assert ids(Event(name="a", key="x"), Event(name="a"), Event(name="a", key="y")) == [
        "a:evt_1:x",
        "a:evt_1:2",
        "a:evt_1:y",
    ]


@pytest.mark.parametrize(
    "events",
    [
        (Event(name="a", key="x"), Event(name="a", key="x")),
        (Event(name="a", key="2"), Event(name="a")),
        (Event(name="a", id="same"), Event(name="b", id="same")),
        (Event(name="a"), Event(name="b", id="a:evt_1")),
    ],
)
def test_two_events_of_one_id_are_an_error(events: tuple[Event, ...]) -> None:
    """Inngest would run but the first of them."""
    with pytest.raises(EventInvalid, match="two events have the id"):
        completed(*events)


def test_an_id_of_the_transform_is_left_alone() -> None:
    assert ids(Event(name="a", id="own:1")) == ["own:1"]


def test_new_ids_are_new_in_every_generation_and_the_same_within_one() -> None:
    events = (Event(name="a"), Event(name="a", key="k"), Event(name="b", id="own"))
    assert ids(*events, generation=1) == ["a:evt_1::r1", "a:evt_1:k:r1", "own:r1"]
    assert ids(*events, generation=1) == ids(*events, generation=1)
    assert len({each for generation in range(4) for each in ids(*events, generation=generation)}) == 12


_PARTS = st.text(st.sampled_from("a%:25A3r1\u00e9\ud800"), max_size=6) | st.text(max_size=300)


_TRIPLES = st.tuples(_PARTS, _PARTS, _PARTS, st.integers(0, 3))


@given(_TRIPLES, _TRIPLES)
@example(("a:b", "c", "", 0), ("a", "b:c", "", 0))
@example(("a", "b", "c", 0), ("a", "b:c", "", 0))
@example(("a%3A", "b", "", 0), ("a:", "b", "", 0))
@example(("a", "b", "", 1), ("a", "b", "r1", 0))
@example(("a", "b", "x" * 300, 0), ("a", "b", "x" * 299 + "y", 0))
@example(("a", "x" * 300, "", 0), ("a", "x" * 299 + "y", "", 0))
def test_different_events_never_have_one_id(one: tuple[str, str, str, int], other: tuple[str, str, str, int]) -> None:
    assume(one != other)
    assert event_id(*one) != event_id(*other)


def test_an_id_of_255_characters_is_left_and_a_longer_one_ends_in_its_sha_256() -> None:
    fits, longer = "x" * (LONGEST_ID - 2), "x" * (LONGEST_ID - 1)
    assert event_id("a", fits) == f"a:{fits}"
    folded = event_id("a", longer)
    assert len(folded) == LONGEST_ID == 255 and folded.startswith("a:xxx")
    assert folded.endswith(":" + hashlib.sha256(f"a:{longer}".encode()).hexdigest())


@given(st.text(max_size=600), st.text(max_size=600), st.text(max_size=600), st.integers(0, 10**9))
@example("\ud800" * 300, "", "", 0)
def test_no_id_is_longer_than_255_characters(name: str, delivery_id: str, key: str, generation: int) -> None:
    assert len(event_id(name, delivery_id, key, generation)) <= LONGEST_ID


def test_a_new_id_keeps_within_255_characters_too() -> None:
    [found] = ids(Event(name="a", id="x" * LONGEST_ID), generation=1)
    assert len(found) == LONGEST_ID and found != ids(Event(name="a", id="x" * LONGEST_ID))[0]


@pytest.mark.parametrize(
    ("given_ts", "occurred_at", "received_at", "ts"),
    [
        (None, NOW - 5, NOW - 1, NOW - 5),
        (None, NOW + 5, NOW - 1, NOW - 1),  # the provider's clock is ahead
        (None, NOW + 5, NOW + 5, NOW),  # and ours went back
        (NOW - 9, NOW - 5, NOW - 1, NOW - 9),
        (NOW + 9, NOW - 5, NOW - 1, NOW),
        (0, NOW - 5, NOW - 1, NOW - 5),
    ],
)
def test_no_event_happens_later_than_now(given_ts: int | None, occurred_at: int, received_at: int, ts: int) -> None:
    """A `ts` in the future delays the run until then."""
    delivery = replace(DELIVERY, occurred_at=occurred_at, received_at=received_at)
    assert [event.ts for event in completed(Event(name="a", ts=given_ts), delivery=delivery)] == [ts]


def test_version_and_user_are_filled_in_where_the_transform_left_them_out() -> None:
    events = (Event(name="a"), Event(name="b", v="own", user={"own": 1}), Event(name="c", user={}))
    found = completed(
        *events, version="2026-01-01.1", user={"email": "a@b", "stripe_customer_id": None, "x": "", "y": 1}
    )
    assert [event.v for event in found] == ["2026-01-01.1", "own", "2026-01-01.1"]
    assert [event.user for event in found] == [{"email": "a@b"}, {"own": 1}, {}]


def test_where_nothing_is_known_nothing_is_filled_in() -> None:
    [found] = completed(Event(name="a"), user={"email": None})
    assert (found.user, found.v) == (None, None)


def test_the_same_delivery_gives_the_same_events_whenever_it_is_asked() -> None:
    events = (Event(name="a"), Event(name="a", data={"b": [1]}))
    assert completed(*events) == completed(*events, now=NOW + 10**9)


def test_an_event_is_written_with_what_it_has_and_no_more() -> None:
    full = Event(name="a", data={"x": 1}, id="i", key="k", ts=NOW, v="1", user={"email": "e"})
    assert json.loads(encode(full)) == {
        "name": "a",
        "data": {"x": 1},
        "id": "i",
        "ts": NOW,
        "v": "1",
        "user": {"email": "e"},
    }
    assert encode(Event(name="a")) == b'{"name":"a","data":{}}'


@pytest.mark.parametrize(
    ("event", "fault"),
    [
        (Event(name=""), "name is empty"),
        (Event(name=" \t"), "name is empty"),
        (Event(name=5), "name is int"),  # type: ignore[arg-type]  # a transform may give anything
        (Event(name="a\nb"), "control characters"),
        (Event(name="a\x00"), "control characters"),
        (Event(name="a\u2028"), "control characters"),
        (Event(name="a\ud800"), "control characters"),
        (Event(name="n" * (LONGEST_NAME + 1)), "at most 256"),
        (Event(name="inngest/function.failed"), "Inngest's own"),
        (Event(name="InNgEsT/x"), "Inngest's own"),
        (Event(name="a", data=[1]), "data is list"),  # type: ignore[arg-type]  # a user's mistake
        (Event(name="a", data=None), "data is NoneType"),  # type: ignore[arg-type]  # a user's mistake
        (Event(name="a", id=5), "id is int"),  # type: ignore[arg-type]  # a user's mistake
        (Event(name="a", ts=EARLIEST - 1), "ts must be"),
        (Event(name="a", ts=LATEST + 1), "ts must be"),
        (Event(name="a", ts=1.7e12), "ts must be"),  # type: ignore[arg-type]  # a user's mistake
        (Event(name="a", ts=True), "ts must be"),
        (Event(name="a", ts=NOW // 1000), "ts must be"),
        (Event(name="a", v=1), "v is int"),  # type: ignore[arg-type]  # a user's mistake
        (Event(name="a", user="u"), "user is str"),  # type: ignore[arg-type]  # a user's mistake
        (Event(name="a", data={"x": object()}), "cannot be written as JSON"),
        (Event(name="a", data={1: "x"}), "cannot be written as JSON"),  # type: ignore[dict-item]  # a user's mistake
        (Event(name="a", data={"x": "\ud800"}), "cannot be written as JSON"),
        (Event(name="a", data={"x": 1 << 64}), "cannot be written as JSON"),
    ],
)
def test_what_the_event_api_would_refuse_or_lose_is_invalid(event: Event, fault: str) -> None:
    with pytest.raises(EventInvalid, match=fault):
        encode(event)


@pytest.mark.parametrize(
    "event",
    [
        Event(name="n" * LONGEST_NAME),
        Event(name="inngest"),
        Event(name="inngestfoo/x"),
        Event(name="a b/c?d#%\u00e9\"'"),
        Event(name="a", ts=EARLIEST),
        Event(name="a", ts=LATEST),
        Event(name="a", user={}),
    ],
)
def test_what_the_event_api_takes_is_valid(event: Event) -> None:
    check(event)
    assert json.loads(encode(event))["name"] == event.name


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(depth):
        inner = {"x": inner}
    return inner


def test_what_is_nested_too_deep_is_invalid() -> None:
    assert json.loads(encode(Event(name="a", data=nested(600)))), "though orjson writes no more than 254 levels"
    with pytest.raises(EventInvalid, match="cannot be written as JSON"):
        encode(Event(name="a", data=nested(2_000)))
    with pytest.raises(EventInvalid, match="more than 254 levels") as raised:
        encode(Event(name="a", data={"deep": nested(600), "also": "secret \ud800", "n": math.nan}))
    assert "secret" not in str(raised.value)


def test_an_event_keeps_within_its_bytes() -> None:
    room = MAX_BYTES - len(b'{"name":"a","data":{"x":""}}')
    assert len(encode(Event(name="a", data={"x": "x" * room}))) == MAX_BYTES
    with pytest.raises(EventInvalid, match="262,145 bytes, at most 262,144"):
        encode(Event(name="a", data={"x": "x" * (room + 1)}))
    with pytest.raises(EventInvalid, match="at most 10 are allowed"):
        encode(Event(name="a"), max_bytes=10)


def test_bytes_are_counted_not_characters() -> None:
    with pytest.raises(EventInvalid, match="at most"):
        encode(Event(name="a", data={"x": "\u00e9" * (MAX_BYTES // 2)}))


def test_no_error_repeats_what_is_in_the_data() -> None:
    for value in (object(), "\ud800", nested(2_000), 1 << 64):
        with pytest.raises(EventInvalid) as raised:
            encode(Event(name="a", data={"s3cret": "s3cret", "x": value}))
        assert "s3cret" not in str(raised.value) and raised.value.__cause__ is None


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), _JSON, max_size=3))
def test_data_is_written_as_it_is(data: dict[str, Any]) -> None:
    assume(all(_utf8(text) for text in _texts(data)))
    assert orjson.loads(encode(Event(name="a", data=data)))["data"] == data


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(text for inner in value.values() for text in _texts(inner))]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) else []


def _utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
