"""What an event is: its id, what is filled in where a transform left it out, and the limits it must keep.

https://www.inngest.com/docs/events#event-format - what is checked here is what the Event API refuses or loses, so that
one bad event never spoils the batch it travels in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import orjson

from bridge.errors import EventInvalid
from bridge.model import Delivery, Event

LONGEST_NAME = 256
LONGEST_ID = 255
EARLIEST, LATEST = 315_532_800_000, 4_102_444_800_000  # 1980 and 2100: all the Event API takes for a `ts`
# The smallest plan's limit for one event; others take 512 KiB or 3 MiB.
MAX_BYTES = 256 * 1024


def complete(
    events: Sequence[Event],
    *,
    delivery: Delivery,
    user: Mapping[str, Any],
    version: str | None,
    generation: int = 0,
    now: int,
) -> list[Event]:
    """The events of one delivery, each with id, ts, v and user: the same for the same delivery, whenever it is asked.

    `generation`: how often new ids were asked for. `now` in ms: no `ts` is later, because that would delay the run.
    Raises EventInvalid where two of them would have the same id.
    """
    known = {name: value for name, value in user.items() if isinstance(value, str) and value} or None
    happened = min(delivery.occurred_at, delivery.received_at)
    seen: Counter[str] = Counter()
    completed = []
    for event in events:
        seen[event.name] += 1
        key = event.key or (str(seen[event.name]) if seen[event.name] > 1 else "")
        completed.append(
            replace(
                event,
                id=_with_generation(event.id, generation) or event_id(event.name, delivery.id, key, generation),
                ts=min(event.ts or happened, now),
                v=event.v or version,
                user=known if event.user is None else event.user,
            )
        )
    ids = Counter(event.id for event in completed)
    if len(ids) < len(completed):
        raise EventInvalid(f"two events have the id {ids.most_common(1)[0][0]}: give them different keys")
    return completed


def event_id(name: str, delivery_id: str, key: str = "", generation: int = 0) -> str:
    """`{name}:{delivery id}`, then `:{key}`, then `:r{generation}` where new ids were asked for.

    Two different inputs never give one id: `%` and `:` inside a part are encoded, and an id over 255 characters
    ends in its own SHA-256.
    """
    parts = [name, delivery_id]
    if key or generation:
        parts.append(key)
    if generation:
        parts.append(f"r{generation}")
    return _fold(":".join(part.replace("%", "%25").replace(":", "%3A") for part in parts))


def _with_generation(given: str, generation: int) -> str:
    return _fold(f"{given}:r{generation}" if given and generation else given)


def _fold(full: str) -> str:
    if len(full) <= LONGEST_ID:
        return full
    digest = sha256(full.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{full[: LONGEST_ID - len(digest) - 1]}:{digest}"


def encode(event: Event, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The event as the Event API's JSON. Raises EventInvalid, saying what is wrong with it."""
    check(event)
    wire: dict[str, object] = {"name": event.name, "data": event.data}
    for field in ("id", "ts", "v", "user"):
        value = getattr(event, field)
        if value:
            wire[field] = value
    try:
        encoded = _dumps(wire)
    except TypeError as error:  # JSONEncodeError is one; its text names types and limits, never values
        raise EventInvalid(f"{event.name}: cannot be written as JSON: {error}") from None
    if len(encoded) > max_bytes:
        raise EventInvalid(f"{event.name}: {len(encoded):,} bytes, at most {max_bytes:,} are allowed")
    return encoded


def _dumps(wire: object) -> bytes:
    try:
        return orjson.dumps(wire)
    except TypeError as error:  # JSONEncodeError is one
        if "ecursion" not in str(error):
            raise
    # orjson reads 1,024 levels and writes 254. What it has read can be written so.
    try:
        return json.dumps(wire, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        raise TypeError(
            "nested in more than 254 levels, and too deep or with something in it that is no JSON"
        ) from None


def check(event: Event) -> None:
    """Raises EventInvalid where the Event API would refuse the event for what is in its fields."""
    _check_name(event.name)
    if not isinstance(event.data, Mapping):
        raise EventInvalid(f"{event.name}: data is {type(event.data).__name__}, must be an object")
    for field in ("id", "key"):
        if not isinstance(value := getattr(event, field), str):
            raise EventInvalid(f"{event.name}: {field} is {type(value).__name__}, must be a string")
    if event.ts is not None and (type(event.ts) is not int or not EARLIEST <= event.ts <= LATEST):
        raise EventInvalid(f"{event.name}: ts must be an integer, milliseconds, 1980 to 2100")
    if event.v is not None and not isinstance(event.v, str):
        raise EventInvalid(f"{event.name}: v is {type(event.v).__name__}, must be a string")
    if event.user is not None and not isinstance(event.user, Mapping):
        raise EventInvalid(f"{event.name}: user is {type(event.user).__name__}, must be an object")


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise EventInvalid(f"name is {type(name).__name__}, must be a string")
    if not name.strip():
        raise EventInvalid("name is empty")
    if len(name) > LONGEST_NAME:
        raise EventInvalid(f"name has {len(name)} characters, at most {LONGEST_NAME} are allowed")
    if not name.isprintable():
        raise EventInvalid("name contains control characters")
    if name.lower().startswith("inngest/"):
        raise EventInvalid(f"{name}: names that begin with `inngest/` are Inngest's own")
