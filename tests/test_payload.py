"""Reading bodies: what is there is found, and what is wrong with it is named without quoting it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import Unusable
from bridge.model import Payload
from bridge.payload import LONGEST, at, form, json_object, milliseconds, text, usable


def test_a_json_object_is_read_from_bytes_and_from_text() -> None:
    assert json_object('{"a":"é"}'.encode()) == {"a": "é"}
    assert json_object(b'{"a":1,"a":2}') == {"a": 2}
    assert json_object(b'{"a":"\\u0000"}') == {"a": "\x00"}


@pytest.mark.parametrize("body", [b"null", b"[]", b"1", b'"a"', b"true"])
def test_json_that_is_no_object_is_unusable(body: bytes) -> None:
    with pytest.raises(Unusable, match="not an object"):
        json_object(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":"\xff"}',
        b"\xef\xbb\xbf{}",
    ],
    ids=ascii,
)
def test_what_is_no_json_is_unusable(body: bytes) -> None:
    with pytest.raises(Unusable, match="not JSON"):
        json_object(body)


def test_a_fault_in_json_is_located_and_not_quoted() -> None:
    with pytest.raises(Unusable) as caught:
        json_object(b'{"password": "sesame",\n "x" sesame}')
    assert "line 2" in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_a_thousand_levels_are_read_and_a_hundred_thousand_are_not() -> None:
    assert json_object(b'{"a":' * 1_000 + b"1" + b"}" * 1_000)
    with pytest.raises(Unusable):
        json_object(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)


@given(fields=st.dictionaries(st.text(), st.text()))
def test_a_form_is_read_as_it_was_written(fields: dict[str, str]) -> None:
    written = urlencode(fields).encode()
    assert form(written) == fields


def test_of_a_doubled_field_the_first_counts_and_empty_ones_are_kept() -> None:
    assert form(b"a=1&a=2&b=&c") == {"a": "1", "b": "", "c": ""}


@pytest.mark.parametrize(
    "body", [b"a=\xff", b"a=%ff", b"a=%ed%a0%80", b"&".join([b"a=1"] * 1001)], ids=lambda body: ascii(body)[:20]
)
def test_what_is_no_form_is_unusable(body: bytes) -> None:
    with pytest.raises(Unusable, match="not a form"):
        form(body)


@given(
    fields=st.lists(
        st.text("ab=+%&é 7Bz\0", max_size=8) | st.sampled_from(["%C3%A9", "%7B%7d", "%", "%4", "%G1", "+%2B", "a=b=c"]),
        max_size=6,
    )
)
def test_a_form_is_read_as_python_reads_it(fields: list[str]) -> None:
    written = "&".join(fields)
    try:
        pairs = parse_qsl(written, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        with pytest.raises(Unusable, match="not UTF-8"):
            form(written.encode())
    else:
        assert form(written.encode()) == dict(reversed(pairs))


def test_a_thousand_fields_are_not_too_many() -> None:
    assert form(b"&".join([b"a=1"] * 1000)) == {"a": "1"}


@pytest.mark.parametrize("read", [json_object, form])
@given(body=st.binary(max_size=100))
def test_reading_raises_nothing_but_unusable(read: Callable[[bytes], Payload], body: bytes) -> None:
    with suppress(Unusable):
        assert isinstance(read(body), dict)


def test_a_usable_text_is_given_back() -> None:
    for right in ("evt_1", "v2.core.account[requirements].updated", "a b", "é", "x" * LONGEST):
        assert usable(right, "id") == right


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (None, "event.id: missing"),
        (True, "event.id: a boolean instead of a string"),
        (0, "event.id: a number instead of a string"),
        (0.5, "event.id: a number instead of a string"),
        ([], "event.id: an array instead of a string"),
        ({}, "event.id: an object instead of a string"),
        ("", "event.id: empty"),
        ("x" * (LONGEST + 1), "event.id: 256 characters, at most 255 can be used"),
        *((f"a{odd}b", "event.id: contains control characters") for odd in "\x00\n\r\x1b\x7f\x85\u2028\u202e\ud800"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_no_usable_text_is_named_with_its_place_and_never_quoted(found: object, fault: str) -> None:
    with pytest.raises(Unusable) as caught:
        text({"event": {"id": found}}, "event", "id")
    assert str(caught.value) == fault


def test_a_path_leads_to_a_value_or_to_none() -> None:
    payload = {"a": {"b": [{"c": 1}]}, "n": None}
    assert at(payload) == payload
    assert at(payload, "a", "b") == [{"c": 1}]
    for path in (("x",), ("a", "x"), ("a", "b", "c"), ("n", "x"), ("a", "b", "0")):
        assert at(payload, *path) is None
    assert at("text", "a") is None


NO_NUMBERS: tuple[object, ...] = (float("nan"), float("inf"), True, None, "1795000000", [1_795_000_000], {})


@pytest.mark.parametrize(
    ("seconds", "ms"),
    [
        (1_795_000_000, 1_795_000_000_000),
        (1_795_000_000.1239, 1_795_000_000_124),
        (315_532_800, 315_532_800_000),
        (4_102_444_800, 4_102_444_800_000),
        *((number, None) for number in (315_532_799, 4_102_444_801, 0, -1, 1_795_000_000_000, 10**400, 1e308)),
        *((no_number, None) for no_number in NO_NUMBERS),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_seconds_are_a_number_from_1980_to_2100(seconds: object, ms: int | None) -> None:
    assert milliseconds(seconds) == ms
    assert milliseconds(seconds) is None or type(milliseconds(seconds)) is int


def test_what_json_writes_as_a_big_integer_is_no_time() -> None:
    assert milliseconds(json_object(json.dumps({"at": 10**30}).encode())["at"]) is None


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb"cut \ud83d", "cut \ufffd"),
        (rb"\uDE00 cut", "\ufffd cut"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\ud83d\u0041", "\ufffdA"),
        (rb"\\ud83d \ud83d", "\\ud83d \ufffd"),
        (rb"\ud83d\ude00", "\U0001f600"),
        (rb"\ude00\ud83d", "\ufffd\ufffd"),
    ],
)
def test_half_a_surrogate_pair_is_what_the_event_api_makes_of_it(written: bytes, read: str) -> None:
    assert json_object(b'{"a":"%b"}' % written) == {"a": read}


def test_half_a_surrogate_pair_excuses_nothing_else() -> None:
    with pytest.raises(Unusable, match="not JSON"):
        json_object(rb'{"a":"\ud83d", sesame}')
