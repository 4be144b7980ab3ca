"""What the stand-in accepts of a request's body, and what it says to the rest. Pure.

Follows https://github.com/inngest/inngest (pkg/eventstream/eventstream.go, pkg/event/event.go) and what a real server was
seen to answer, in the words of Go's encoding/json. It does not round integers over 2^53, merge a `data` given twice, or
nest deeper than Python's own JSON reader.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isinf
from typing import Any

MOST_EVENTS = 5_000
LARGEST_EVENT = 3 * 1024 * 1024
_EARLIEST, _LATEST = 315_532_800_000_000_000, 4_102_444_800_000_000_000  # ns: 1980 and 2100
_NOT_EVENTS = "Request body must contain an event object or an array of event objects"
_OBJECT, _STRING = "map[string]interface {}", "string"
_TYPES = {"name": _STRING, "data": _OBJECT, "user": _OBJECT, "id": _STRING, "ts": "int64", "v": _STRING}
# Python's word for a fault in JSON, and Go's for the character it is at.
_PLACES = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name": "looking for beginning of object key string",
    "Illegal trailing comma": "looking for beginning of object key string",  # Python 3.13 and later
    "Expecting ':'": "after object key",
    "Expecting ','": "after object key:value pair",
    "Extra data": "after top-level value",
    "Invalid control character": "in string literal",
    "Invalid \\escape": "in string escape code",
}
_SEED = re.compile(r"([0-9]{1,15}),([A-Za-z0-9+/]{14}==)")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(slots=True)
class Intake:
    """The events accepted, which are the first of those sent, and why the next was not; empty: all were."""

    events: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""


class _Refused(Exception):
    """The text is the Event API's own."""


class _Broken(_Refused):
    """The body is no JSON from here on."""


def take(body: bytes) -> Intake:
    """Read a request's body as the Event API does: an object, or an array event by event until one is bad."""
    text = body.decode(errors="replace").lstrip(" \t\r\n")
    intake = Intake()
    try:
        if text.startswith("["):
            _take_array(text, intake.events)
        elif text.startswith("{"):
            intake.events.append(_take_one(text))
        elif text:
            intake.error = _NOT_EVENTS
    except _Broken as broken:
        intake.error = str(broken)
        # The real server's reader is ahead of what stores: it often loses the event before the break.
        del intake.events[-1:]
    except _Refused as refused:
        intake.error = str(refused)
    return intake


def _take_one(text: str) -> dict[str, Any]:
    _check_size(text)
    value, end = _value(text, 0, at_end="unexpected end of JSON input")
    rest = text[end:].strip(" \t\r\n")
    if rest:
        raise _Broken(f"invalid character '{rest[0]}' after top-level value")
    return _event(value, text)


def _take_array(text: str, events: list[dict[str, Any]]) -> None:
    """What follows the closing bracket is never looked at, and the bracket itself may be missing."""
    at = _skip(text, 1)
    while at < len(text) and text[at] != "]":
        if events:
            if text[at] != ",":
                raise _Broken("expected comma after array element")
            at = _skip(text, at + 1)
        if len(events) == MOST_EVENTS:
            raise _Broken(f"Cannot have more than {MOST_EVENTS} events in a batch")
        value, end = _value(text, at, at_end="EOF" if at == len(text) else "unexpected EOF")
        _check_size(text[at:end])
        events.append(_event(value, text[at:end]))
        at = _skip(text, end)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _value(text: str, at: int, *, at_end: str) -> tuple[object, int]:
    """The JSON value that begins there, and where it ends."""
    try:
        return _DECODER.raw_decode(text, at)
    except RecursionError:
        raise _Broken("invalid character '[' exceeded max depth") from None
    except json.JSONDecodeError as error:
        place = next((place for word, place in _PLACES.items() if error.msg.startswith(word)), "")
        found = text[error.pos + error.msg.startswith("Illegal trailing comma") :].lstrip(" \t\r\n")[:1]
        if not place or not found:  # no place: a string without an end
            raise _Broken(at_end) from None
        raise _Broken(f"invalid character '{found}' {place}") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise _Refused("json: cannot unmarshal number into Go struct field raw.data of type float64") from None


def _no_constant(name: str) -> object:
    raise _Broken(f"invalid character '{name.lstrip('-')[0]}' looking for beginning of value")


def _finite(literal: str) -> float:
    number = float(literal)
    if isinf(number):
        raise _Refused(f"json: cannot unmarshal number {literal} into Go struct field raw.data of type float64")
    return number


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def _check_size(text: str) -> None:
    size = len(text.encode())
    if size > LARGEST_EVENT:
        raise _Refused(f"Event is over the max size: Max {LARGEST_EVENT} bytes / Size {size} bytes")


def _event(value: object, text: str) -> dict[str, Any]:
    """What is kept of an event. Raises _Refused for the first thing that is wrong with it, in the real server's order."""
    if not isinstance(value, dict):
        if value is not None:
            raise _Refused(f"json: cannot unmarshal {_kind(value)} into Go value of type event.raw")
        value = {}
    # Go finds the fields in whatever case.
    fields = {name.lower(): found for name, found in value.items() if name.lower() in _TYPES and found is not None}
    for name, found in fields.items():
        _check_type(name, found, text)
    name = fields.get("name", "")
    if not name:
        raise _Refused("event name is empty")
    if name.lower().startswith("inngest/"):
        raise _Refused(f"event name is reserved for internal use: {name}")
    _check_ts(fields.get("ts", 0))
    data = {key: found for key, found in fields.get("data", {}).items() if key != "_inngest"}
    return {key: found for key, found in fields.items() if found not in ("", 0)} | {"data": data}


def _check_type(name: str, found: object, text: str) -> None:
    kind, wanted = _kind(found), _TYPES[name]
    if (kind, wanted) in {("string", _STRING), ("object", _OBJECT)}:
        return
    if kind == "number" and wanted == "int64":
        if isinstance(found, int) and -(1 << 63) <= found < 1 << 63:
            return
        kind = f"number {_literal(text, name)}"
    raise _Refused(f"json: cannot unmarshal {kind} into Go struct field raw.{name} of type {wanted}")


def _check_ts(ts: int) -> None:
    # In 64 bits, as the real server has it: what overflows is anywhere.
    moment = (ts * 1_000_000 + (1 << 63)) % (1 << 64) - (1 << 63)
    if ts and moment < _EARLIEST:
        raise _Refused("timestamp is before Jan 1, 1980")
    if moment > _LATEST:
        raise _Refused("timestamp is after Jan 1, 2100")


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    names: Mapping[type, str] = {str: "string", list: "array", dict: "object"}
    return names.get(type(value), "number")


def _literal(text: str, name: str) -> str:
    """The number as it was written."""
    fields = json.loads(text, parse_float=str)
    return next(str(found) for key, found in fields.items() if key.lower() == name)


def ulids(count: int, *, header: str, now: int, dice: bytes) -> list[str]:
    """The ids of so many events: from the seed in the header, or else from `now` (ms) and the dice, 10 bytes an event."""
    match = _SEED.fullmatch(header)
    if match is None or not 0 < int(match[1]) < 1 << 48:
        return [_ulid(now, dice[at : at + 10]) for at in range(0, 10 * count, 10)]
    entropy = base64.b64decode(match[2])
    head, tail = entropy[:6], int.from_bytes(entropy[6:])
    return [_ulid(int(match[1]), head + ((tail + n) % (1 << 32)).to_bytes(4)) for n in range(1, count + 1)]


def _ulid(milliseconds: int, entropy: bytes) -> str:
    """As https://github.com/ulid/spec has it."""
    number = milliseconds << 80 | int.from_bytes(entropy)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
