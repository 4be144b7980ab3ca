"""What the Event API's answer to a request means. Pure: status, headers and body are arguments.

A 200 alone says little: a wrong base URL gives the dashboard's page with a 200, and of a batch with one bad event
everything before it is accepted, under a 400.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from urllib.parse import quote

import orjson

LONGEST_ERROR = 300
# Seconds. Whoever asks for more has made a slip, and nobody would be told for a day.
LONGEST_PAUSE = 3_600.0

_OUR_FAULT = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.PAYMENT_REQUIRED,
        HTTPStatus.FORBIDDEN,  # the key has a list of the events it may send
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.NOT_ACCEPTABLE,
        HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
        HTTPStatus.GONE,
    }
)
_PATIENCE = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
# What the open-source server says about an event (https://github.com/inngest/inngest: pkg/event/event.go,
# pkg/eventstream/eventstream.go, and Go's encoding/json); it says 400 also of its own faults. Its `EOF` is not here:
# what we send is whole, so the request was cut off on its way.
_ABOUT_THE_EVENT = (
    "event name is empty",
    "event name is reserved for internal use",
    "timestamp is before",
    "timestamp is after",
    "json: cannot unmarshal",
    "Event is over the max size",
    "Cannot have more than",
    "Request body must contain",
    "unexpected end of JSON input",
    "invalid character",
)


class Verdict(StrEnum):
    """What an answer means: a closed set, because it labels a metric."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    """For the event at `len(ids)`: those before it were accepted, those behind it were not looked at."""
    UNAVAILABLE = "unavailable"
    """Send the same again later, with the same seed."""
    MISCONFIGURED = "misconfigured"
    """Wrong key, wrong URL: a person has to mend it."""
    TOO_LARGE = "too_large"
    """Nothing was accepted: send less at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was said to one request."""

    verdict: Verdict
    ids: tuple[str, ...] = ()
    """The Event API's own ids of what it accepted: one for each of the first events sent."""
    error: str = ""
    """One line, at most 300 characters; never the key, the URL or a body."""
    retry_after: float | None = None
    """Seconds it asked for."""
    obscure: bool = False
    """Refused in words not known to be about the event: it may be the server's own fault."""


def read(status: int, headers: Mapping[str, str], body: bytes, *, sent: int, key: str = "") -> Answer:
    """The answer to a request with `sent` events, 0 for a probe. Never raises.

    `headers`: names in lower case. `key`: taken out of what is quoted, should a server repeat it.
    """
    document = _json(body)
    if status != HTTPStatus.OK:
        return _failure(status, headers, document, sent=sent, key=key)
    if not body.strip():
        return Answer(verdict=Verdict.UNAVAILABLE, error="answered 200 with nothing in it: is the base URL right?")
    if isinstance(document, dict):
        return _success(headers, document, sent=sent, key=key)
    if body.lstrip().startswith(b"{"):
        return Answer(verdict=Verdict.UNAVAILABLE, error="answered 200, then was cut off")
    return Answer(verdict=Verdict.MISCONFIGURED, error="answered 200, but not as the Event API: is the base URL right?")


def _success(headers: Mapping[str, str], document: Mapping[str, object], *, sent: int, key: str) -> Answer:
    """HTTP said 200. Only a 200 inside it and an id for every event make a success."""
    status = document.get("status")
    if type(status) is int and status != HTTPStatus.OK:
        return _failure(status, headers, document, sent=sent, key=key)
    if type(status) is not int or document.get("error"):
        return Answer(verdict=Verdict.UNAVAILABLE, error=_line("answered 200, but no success", document, key))
    ids, listed = _ids(document), document.get("ids")
    # Where nothing was sent there is one id, an empty one.
    if len(ids) != sent or not isinstance(listed, list) or len(listed) > max(sent, 1):
        return Answer(verdict=Verdict.UNAVAILABLE, error=f"answered 200, with {len(ids)} ids for {sent} events")
    return Answer(verdict=Verdict.ACCEPTED, ids=ids)


def _failure(status: int, headers: Mapping[str, str], document: object, *, sent: int, key: str) -> Answer:
    error = _line(f"answered {status}", document, key)
    if status in _PATIENCE or not HTTPStatus.OK <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Answer(verdict=Verdict.UNAVAILABLE, error=error, retry_after=_retry_after(headers))
    if status in _OUR_FAULT:
        return Answer(verdict=Verdict.MISCONFIGURED, error=error)
    if status < HTTPStatus.BAD_REQUEST:  # a redirect is not followed: a GET behind it would succeed with nothing sent
        return Answer(verdict=Verdict.MISCONFIGURED, error=f"{error}: is the base URL right?")
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Answer(verdict=Verdict.TOO_LARGE, error=error)
    if status == HTTPStatus.BAD_REQUEST and isinstance(document, dict) and "error" in document:
        return _refusal(document, error, sent=sent)
    if status == HTTPStatus.BAD_REQUEST and not isinstance(document, dict):  # it says all it says in JSON
        return Answer(verdict=Verdict.MISCONFIGURED, error=f"{error}, but not as the Event API: is the base URL right?")
    return Answer(verdict=Verdict.REFUSED, error=error, obscure=True)


def _refusal(document: Mapping[str, object], error: str, *, sent: int) -> Answer:
    ids, said = _ids(document), document.get("error")
    if not sent:  # the key is looked at before the body
        return Answer(verdict=Verdict.ACCEPTED)
    if len(ids) >= sent:
        return Answer(verdict=Verdict.UNAVAILABLE, error=error)
    known = isinstance(said, str) and said.startswith(_ABOUT_THE_EVENT)
    return Answer(verdict=Verdict.REFUSED, ids=ids, error=error, obscure=not known)


def _ids(document: Mapping[str, object]) -> tuple[str, ...]:
    """Those before the first that is empty, or no id at all."""
    listed = document.get("ids")
    ids: list[str] = []
    for found in listed if isinstance(listed, list) else ():
        if not isinstance(found, str) or not found:
            break
        ids.append(found)
    return tuple(ids)


def _json(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _line(said: str, document: object, key: str) -> str:
    """With the Event API's own words, where it has some."""
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, str) or not error:
        return said
    for secret in {key, quote(key, safe="")} - {""}:
        error = re.sub(re.escape(secret), "[event key]", error, flags=re.IGNORECASE)
    error = "".join(character if character.isprintable() else " " for character in error)
    return f"{said}: {error}"[:LONGEST_ERROR]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """https://www.rfc-editor.org/rfc/rfc9110#field.retry-after - a date counts from the answer's own: clocks differ."""
    asked = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,12}", asked):
        return min(float(asked), LONGEST_PAUSE)
    until, since = _date(asked), _date(headers.get("date", ""))
    return None if until is None or since is None else min(max(until - since, 0.0), LONGEST_PAUSE)


def _date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        # `-0000` gives a time without a zone, meant as UTC.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):  # the first is documented
        return None
