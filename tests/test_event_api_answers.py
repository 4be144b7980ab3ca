"""Every answer of the Event API, seen or feared, has one meaning."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.event_api import Answer, Verdict, read
from bridge.event_api.answer import LONGEST_ERROR, LONGEST_PAUSE

ACCEPTED, REFUSED, UNAVAILABLE = Verdict.ACCEPTED, Verdict.REFUSED, Verdict.UNAVAILABLE
MISCONFIGURED, TOO_LARGE = Verdict.MISCONFIGURED, Verdict.TOO_LARGE
RECORDINGS = Path(__file__).parent / "recordings" / "event-api.jsonl"
HTML = b"<!DOCTYPE html><html></html>"


def recorded() -> list[Any]:
    found = [json.loads(line) for line in RECORDINGS.read_text().splitlines()]
    return [pytest.param(each["response"], id=each["case"]) for each in found if each["request"]["method"] != "OPTIONS"]


@pytest.mark.parametrize("response", recorded())
def test_recorded_answers_are_understood(response: Any) -> None:
    status, body = response["status"], json.loads(response["body"] or "{}")
    ids = tuple(each for each in body.get("ids", ()) if each)
    headers = {name.lower(): value for name, value in response["headers"].items()}
    answer = read(status, headers, response["body"].encode(), sent=len(ids) + (status == 400))
    if status in {303, 401, 405}:
        assert answer.verdict is MISCONFIGURED
    elif not body:
        assert answer.verdict is UNAVAILABLE and answer.error.endswith("is the base URL right?")
    elif status == 200:
        assert answer == Answer(verdict=ACCEPTED, ids=ids)
    else:
        cut_off_on_its_way = body["error"] in {"EOF", "unexpected EOF"}
        error = f"answered 400: {body['error']}"
        assert answer == Answer(verdict=REFUSED, ids=ids, error=error, obscure=cut_off_on_its_way)


def said(ids: object = ("A", "B"), status: object = 200, **other: object) -> bytes:
    return json.dumps({"ids": ids, "status": status} | other).encode()


@pytest.mark.parametrize(
    ("body", "verdict", "ids"),
    [
        (said(), ACCEPTED, ("A", "B")),
        (said(error=""), ACCEPTED, ("A", "B")),
        (said(error=None), ACCEPTED, ("A", "B")),
        (said(["A"]), UNAVAILABLE, ()),
        (said(["A", ""]), UNAVAILABLE, ()),
        (said(["A", None]), UNAVAILABLE, ()),
        (said(["A", "B", "C"]), UNAVAILABLE, ()),
        (said(["A", "B", ""]), UNAVAILABLE, ()),
        (said("AB"), UNAVAILABLE, ()),
        (said(None), UNAVAILABLE, ()),
        (said(error="lost"), UNAVAILABLE, ()),
        (said(status=None), UNAVAILABLE, ()),
        (said(status="200"), UNAVAILABLE, ()),
        (said(status=True), UNAVAILABLE, ()),
        (said(status=500), UNAVAILABLE, ()),
        (said(status=429), UNAVAILABLE, ()),
        (said(status=401), MISCONFIGURED, ()),
        (said(status=413), TOO_LARGE, ()),
        (said(["A", ""], status=400, error="event name is empty"), REFUSED, ("A",)),
        (b"{}", UNAVAILABLE, ()),
        (b"", UNAVAILABLE, ()),
        (b" \n", UNAVAILABLE, ()),
        (said()[:-1], UNAVAILABLE, ()),
        (HTML, MISCONFIGURED, ()),
        (b"ok", MISCONFIGURED, ()),
        (b'"ok"', MISCONFIGURED, ()),
        (b"[]", MISCONFIGURED, ()),
        (b"null", MISCONFIGURED, ()),
        (b"\xff\xfe", MISCONFIGURED, ()),
    ],
)
def test_a_200_is_success_only_with_an_id_for_every_event(body: bytes, verdict: Verdict, ids: tuple[str, ...]) -> None:
    answer = read(200, {}, body, sent=2)
    assert (answer.verdict, answer.ids) == (verdict, ids)
    assert bool(answer.error) == (verdict is not ACCEPTED)


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ([201, 202, 204, 206, 300, 301, 302, 303, 307, 308], MISCONFIGURED),
        ([401, 402, 403, 404, 405, 406, 407, 410], MISCONFIGURED),
        ([408, 425, 429, 500, 501, 502, 503, 504, 520, 599, 600, 999, 100, 0, -1], UNAVAILABLE),
        ([409, 411, 412, 414, 415, 418, 422, 451], REFUSED),
        ([413], TOO_LARGE),
    ],
)
@pytest.mark.parametrize("body", [b"", HTML, b"null", b"{}", said(), b'{"error":"so"}', said([""], status=400)])
def test_any_other_status_speaks_for_itself(statuses: list[int], verdict: Verdict, body: bytes) -> None:
    for status in statuses:
        answer = read(status, {}, body, sent=2)
        assert (answer.verdict, answer.ids, answer.obscure) == (verdict, (), verdict is REFUSED)
        assert answer.error.startswith(f"answered {status}")
        assert (": so" in answer.error) == (b'"so"' in body)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (HTML, Answer(verdict=MISCONFIGURED, error="answered 400, but not as the Event API: is the base URL right?")),
        (b"", Answer(verdict=MISCONFIGURED, error="answered 400, but not as the Event API: is the base URL right?")),
        (b'{"message":"no"}', Answer(verdict=REFUSED, error="answered 400", obscure=True)),
        (b'{"error":{"a":1}}', Answer(verdict=REFUSED, error="answered 400", obscure=True)),
        (
            said(["A"], status=400, error="redis: connection refused"),
            Answer(verdict=REFUSED, ids=("A",), error="answered 400: redis: connection refused", obscure=True),
        ),
        (
            said([""], status=400, error="event name is empty"),
            Answer(verdict=REFUSED, error="answered 400: event name is empty"),
        ),
        (
            said(["A", "", "C"], status=400, error="EOF"),
            Answer(verdict=REFUSED, ids=("A",), error="answered 400: EOF", obscure=True),
        ),
        (
            said(["A", 5], status=400, error="EOF"),
            Answer(verdict=REFUSED, ids=("A",), error="answered 400: EOF", obscure=True),
        ),
        (said("A", status=400, error="EOF"), Answer(verdict=REFUSED, error="answered 400: EOF", obscure=True)),
        (said(5, status=400, error="EOF"), Answer(verdict=REFUSED, error="answered 400: EOF", obscure=True)),
        # All were accepted: then none is to blame.
        (said(status=400, error="late"), Answer(verdict=UNAVAILABLE, error="answered 400: late")),
    ],
)
def test_a_400_refuses_the_event_behind_the_accepted_ones(body: bytes, answer: Answer) -> None:
    assert read(400, {}, body, sent=2) == answer


@pytest.mark.parametrize(
    "error",
    [
        "event name is empty",
        "event name is reserved for internal use: inngest/x",
        "timestamp is before Jan 1, 1980",
        "timestamp is after Jan 1, 2100",
        "json: cannot unmarshal number into Go struct field raw.id of type string",
        "Event is over the max size: Max 3145728 bytes / Size 3145729 bytes",
        "Cannot have more than 5000 events in a batch",
        "Request body must contain an event object or an array of event objects",
        "unexpected end of JSON input",
        "invalid character 'N' looking for beginning of value",
    ],
)
def test_words_about_the_event_are_known(error: str) -> None:
    assert not read(400, {}, said([""], status=400, error=error), sent=1).obscure
    assert read(400, {}, said([""], status=400, error=f"it may be that {error}"), sent=1).obscure


def test_to_a_probe_every_answer_of_the_event_api_itself_is_good() -> None:
    assert read(200, {}, b'{"ids":[""],"status":200}', sent=0) == Answer(verdict=ACCEPTED)
    assert read(400, {}, b'{"ids":[""],"status":400,"error":"no events"}', sent=0) == Answer(verdict=ACCEPTED)
    assert read(200, {}, said(["A"]), sent=0).verdict is UNAVAILABLE
    assert read(200, {}, b'{"status":200}', sent=0).verdict is UNAVAILABLE
    assert read(200, {}, HTML, sent=0).verdict is MISCONFIGURED
    assert read(400, {}, HTML, sent=0).verdict is MISCONFIGURED


@pytest.fixture
def in_japan() -> Iterator[None]:
    """A machine's own zone must not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("asked", "date", "seconds"),
    [
        ("7", "", 7.0),
        (" 7 ", "", 7.0),
        ("0", "", 0.0),
        ("3601", "", LONGEST_PAUSE),
        ("999999999999", "", LONGEST_PAUSE),
        ("-7", "", None),
        ("7.5", "", None),
        ("soon", "", None),
        ("", "", None),
        ("٣", "", None),
        ("9" * 5000, "", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", DATE, 30.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", DATE, 30.0),
        ("Wed, 21 Oct 2026 09:28:30 +0200", DATE, 30.0),
        ("Wed, 21 Oct 2026 07:00:00 GMT", DATE, 0.0),
        ("Wed, 21 Oct 2027 07:28:00 GMT", DATE, LONGEST_PAUSE),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "", None),
        ("Wed, 99 Oct 2026 07:28:30 GMT", DATE, None),
    ],
)
@pytest.mark.usefixtures("in_japan")
def test_retry_after_is_honoured_where_it_makes_sense(asked: str, date: str, seconds: float | None) -> None:
    answer = read(503, {"retry-after": asked, "date": date}, b"", sent=1)
    assert answer == Answer(verdict=UNAVAILABLE, error="answered 503", retry_after=seconds)


def test_the_key_is_taken_out_of_what_is_quoted() -> None:
    key = "s3cret/ä.k"
    for repeated in (key, key.upper(), "s3cret%2F%C3%A4.k", "s3cret%2f%c3%a4.k"):
        body = json.dumps({"error": f"Cannot POST /e/{repeated}, {repeated}\n"}).encode()
        assert read(404, {}, body, sent=1, key=key).error == "answered 404: Cannot POST /e/[event key], [event key] "


def test_what_is_quoted_is_one_short_line() -> None:
    body = json.dumps({"error": "a\nb\x00\x1b\u2028\u202e" + "x" * 5000}).encode()
    error = read(500, {}, body, sent=1).error
    assert error.startswith("answered 500: a b    ") and error.isprintable() and len(error) == LONGEST_ERROR


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 700) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["ids", "status", "error", "x"]), inner),
)
_BODIES = st.binary() | _JSON.map(json.dumps).map(str.encode)
_HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "date", "x"]), st.text() | st.datetimes().map(format_datetime)
)


@given(st.integers(-1, 1000), _HEADERS, _BODIES, st.integers(0, 3), st.text(max_size=3))
def test_no_answer_is_too_strange(status: int, headers: dict[str, str], body: bytes, sent: int, key: str) -> None:
    answer = read(status, headers, body, sent=sent, key=key)
    assert len(answer.ids) <= sent and all(answer.ids)
    assert answer.verdict is not ACCEPTED or len(answer.ids) == sent
    assert answer.verdict is not REFUSED or len(answer.ids) < sent or sent == 0
    assert answer.verdict in {ACCEPTED, REFUSED} or not answer.ids
    assert answer.retry_after is None or 0 <= answer.retry_after <= LONGEST_PAUSE
    assert answer.error.isprintable() and len(answer.error) <= LONGEST_ERROR
