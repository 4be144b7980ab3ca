"""Reads bodies and the fields in them. Whatever is not as it should be raises `Unusable`, and nothing else does."""

from __future__ import annotations

import re
from binascii import unhexlify
from typing import Any

import orjson

from bridge.errors import Unusable
from bridge.model import Payload

# No provider's id or type comes near. The Event API's limit for a name is 256 characters, our ids' is 255.
LONGEST = 255
# What the Event API takes for a `ts`; a date outside is a slip of the sender.
_1980, _2100 = 315_532_800, 4_102_444_800


def json_object(body: bytes) -> Payload:
    """The JSON object in `body`: UTF-8 alone, no NaN, at most 1,024 levels deep; of duplicate keys the last wins.

    Half a surrogate pair, as JavaScript writes a text that was cut inside an emoji, becomes U+FFFD: the Event API would
    do the same.
    """
    try:
        payload = _loads(body)
    except orjson.JSONDecodeError as error:
        # Not str(error): some of its messages quote the document.
        raise Unusable(f"the body is not JSON (line {error.lineno}, column {error.colno})") from None
    if not isinstance(payload, dict):
        raise Unusable("the body is JSON, but not an object")
    return payload


# Any escape; first of all a whole pair, and the halves that are left over.
_ESCAPE = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def _loads(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if b"\\ud" not in body.lower():
            raise
    return orjson.loads(_ESCAPE.sub(lambda match: b"\\ufffd" if match["half"] else match[0], body))


# Slack's slash commands have fifteen. Without a bound, their number is the sender's to choose.
_MOST_FIELDS = 1000
# `++` keeps nothing to go back to; for `+` a long run takes fifty times its own memory.
_PERCENT_ENCODED = re.compile(rb"(?:%[0-9a-fA-F]{2})++")


def form(body: bytes) -> dict[str, str]:
    """The fields of an `application/x-www-form-urlencoded` body; of a doubled field the first wins."""
    if body.count(b"&") >= _MOST_FIELDS:
        raise Unusable(f"the body is not a form (more than {_MOST_FIELDS:,} fields)")
    fields: dict[str, str] = {}
    try:
        for field in filter(None, body.split(b"&")):
            name, _, value = field.partition(b"=")
            fields.setdefault(_decoded(name), _decoded(value))
    except UnicodeDecodeError:
        raise Unusable("the body is not a form (its text is not UTF-8)") from None
    return fields


def _decoded(encoded: bytes) -> str:
    """A percent sign that encodes nothing stands for itself, as everywhere on the web.

    Into one buffer: urllib makes two objects of each sign, and so takes two hundred times the memory of a body of them.
    """
    plain, decoded, end = encoded.replace(b"+", b" "), bytearray(), 0
    for run in _PERCENT_ENCODED.finditer(plain):
        decoded += plain[end : run.start()]
        decoded += unhexlify(run[0].replace(b"%", b""))
        end = run.end()
    return (decoded + plain[end:]).decode()


def text(payload: Payload, *path: str) -> str:
    """The string at `path`, as `usable` wants it."""
    return usable(at(payload, *path), ".".join(path))


def usable(found: object, where: str) -> str:
    """A string, not empty, at most LONGEST characters, none of them a control character. `where` names it in the error."""
    if found is None:
        raise Unusable(f"{where}: missing")
    if not isinstance(found, str):
        raise Unusable(f"{where}: {_kind(found)} instead of a string")
    if not found:
        raise Unusable(f"{where}: empty")
    if len(found) > LONGEST:
        raise Unusable(f"{where}: {len(found)} characters, at most {LONGEST} can be used")
    if not found.isprintable():
        raise Unusable(f"{where}: contains control characters")
    return found


def at(payload: object, *path: str) -> Any:
    """What lies at `path`, or None where there is no such way."""
    for key in path:
        if not isinstance(payload, dict):
            return None
        payload = payload.get(key)
    return payload


def milliseconds(seconds: object) -> int | None:
    """Seconds as a JSON number, in ms; None where it is no number from 1980 to 2100."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return None
    return round(seconds * 1000) if _1980 <= seconds <= _2100 else None


def _kind(value: object) -> str:
    """What JSON calls it."""
    names = {bool: "a boolean", int: "a number", float: "a number", list: "an array", dict: "an object"}
    return names.get(type(value), "null")
