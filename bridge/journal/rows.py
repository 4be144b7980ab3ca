"""What every database keeps alike: a delivery as a row, a row as an entry, and what a settlement must be like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import orjson

from bridge.model import TRANSITIONS, Delivery, Entry, Settlement, State

# source, id, provider, prefix, type, occurred_at, received_at, size, headers, body, fault.
Row: TypeAlias = tuple[str, str, str, str, str, int, int, int, str, bytes, str]

# Entries a census looks at for what is due: more than one forwarder holds, and few enough for every scrape.
NEXT = 1_000
# Bytes of bodies a claim.
MOST_CLAIMED = 4 << 20


def row_of(delivery: Delivery) -> Row:
    """With nothing in it that a database could refuse: it shares a transaction with others."""
    return (
        storable(delivery.source),
        storable(delivery.id),
        storable(delivery.provider),
        storable(delivery.prefix),
        storable(delivery.type),
        delivery.occurred_at,
        delivery.received_at,
        len(delivery.body),
        headers_written(delivery.headers),
        delivery.body,
        storable(delivery.fault),
    )


def entry_of(row: Sequence[Any]) -> Entry:
    """From its fields in the order of `Entry`, less headers and body, which come last."""
    seq, source, provider, prefix, id_, type_, occurred_at, received_at, size, *rest = row
    state, due, token, attempts, replays, generation, headers, body = rest
    return Entry(
        seq=seq,
        source=source,
        provider=provider,
        prefix=prefix,
        id=id_,
        type=type_,
        occurred_at=occurred_at,
        received_at=received_at,
        size=size,
        headers=None if headers is None else json.loads(headers),
        body=body,
        state=State(state),
        due=due,
        token=token,
        attempts=attempts,
        replays=replays,
        generation=generation,
    )


def storable(text: str) -> str:
    """With lone surrogates and NUL escaped: a traceback may quote anything, and databases take neither."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def check(settlements: Sequence[Settlement]) -> None:
    """Raises ValueError on what a claim can't lead to."""
    for each in settlements:
        pending = each.state is State.PENDING
        if each.state not in TRANSITIONS[State.PENDING]:
            raise ValueError(f"a claim can't lead to {each.state!r}")
        if pending != (each.wait is not None):
            raise ValueError(f"{each.state}: `wait` is for pending entries, and they need one")
        if not pending and each.attempt is None:
            raise ValueError(f"{each.state}: an entry that was not tried can only be given back")


def adopted_due(entry: Entry) -> int | None:
    """When it may be claimed here: one that was claimed where it comes from, at once."""
    return entry.received_at if entry.token else entry.due


def headers_written(headers: Mapping[str, str]) -> str:
    try:
        return orjson.dumps(headers).decode()
    except TypeError:  # header bytes that are no text come as lone surrogates
        return json.dumps(dict(headers))
