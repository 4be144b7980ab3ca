"""What the stand-in Event API accepts, beyond what was recorded: limits, oddities, and every body there could be."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.stand_in.intake import take

_LARGEST = 3_145_728


def test_of_5001_events_4999_are_accepted() -> None:
    events = [{"name": "a", "data": {"n": n}} for n in range(6000)]
    assert take(json.dumps(events[:5000]).encode()).events == events[:5000]
    for count in (5001, 6000):
        taken = take(json.dumps(events[:count]).encode())
        assert taken.events == events[:4999]
        assert taken.error == "Cannot have more than 5000 events in a batch"


def test_the_largest_event_has_3_mib() -> None:
    largest = b'{"name":"a","data":{"x":"%b"}}' % (b"x" * (_LARGEST - 28))
    larger = b'{"name":"ab","data":{"x":"%b"}}' % (b"x" * (_LARGEST - 28))
    assert len(largest) == _LARGEST and len(larger) == _LARGEST + 1
    error = "Event is over the max size: Max 3145728 bytes / Size 3145729 bytes"
    for body, accepted, said in [
        (largest, 1, ""),
        (b" " * 1000 + largest, 1, ""),
        (larger, 0, error),
        (b'[{"name":"1"},%b,{"name":"3"}]' % largest, 3, ""),
        (b'[{"name":"1"},%b,{"name":"3"}]' % larger, 1, error),
    ]:
        taken = take(body)
        assert (len(taken.events), taken.error) == (accepted, said)


def test_events_are_kept_as_the_event_api_keeps_them() -> None:
    sent = {"name": "a", "ts": 0, "user": None, "id": "1", "V": "2", "other": 3, "data": {"_inngest": 4, "kept": 5}}
    assert take(json.dumps(sent).encode()).events == [{"name": "a", "id": "1", "v": "2", "data": {"kept": 5}}]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ('{"name":x}', "invalid character 'x' looking for beginning of value"),
        ('{"name" 1}', "invalid character '1' after object key"),
        ('{"name":1 2}', "invalid character '2' after object key:value pair"),
        ('[{"name":"a"} {"name":"b"}]', "expected comma after array element"),
        ('{"name":"a","data":{"x":1e400}}', "json: cannot unmarshal number 1e400 into Go struct field raw.data"),
        ('{"name":"a","data":' + '{"x":' * 9999 + "1" + "}" * 10_000, "invalid character '[' exceeded max depth"),
    ],
)
def test_what_was_not_recorded_is_refused_in_the_words_of_go(body: str, error: str) -> None:
    assert take(body.encode()).error.startswith(error)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "data", "ts", "ID", "x"]), inner),
    max_leaves=8,
)


@given(st.binary() | _VALUES.map(json.dumps).map(str.encode), st.integers(0, 40))
@example(b"[" + b"9" * 5000 + b"]", 0)
@example(b"[" * 10_000, 0)
def test_no_body_is_too_strange(body: bytes, cut: int) -> None:
    for sent in (body, body[:cut]):
        taken = take(sent)
        assert all(event["name"] and isinstance(event["data"], dict) for event in taken.events)
        assert taken.error or sent.strip()[:1] in {b"", b"{", b"["}
