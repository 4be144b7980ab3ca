"""The process that runs transforms, and the messages between it and the forwarder.

A transform is the user's code: it may loop for ever or take its process down. So it runs in a process of its own, which
holds no claim, no connection and no key; when it is lost, the forwarder knows what was in it, and starts another.
`__main__` is that process, `client` the forwarder's side. A message is two lengths, a JSON head, and raw bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any

import orjson

from bridge.model import Entry, Outcome
from bridge.transform import Result

LENGTHS = Struct("!II")


def frame(head: object, blobs: Sequence[bytes] = ()) -> bytes:
    """One message, whole."""
    encoded = orjson.dumps(head)
    return b"".join((LENGTHS.pack(len(encoded), sum(map(len, blobs))), encoded, *blobs))


def work(entries: Sequence[Entry], *, now: int) -> bytes:
    """The message that asks for these entries to be transformed."""
    rows = [
        (e.source, e.provider, e.prefix, e.id, e.received_at, e.generation, e.headers, len(e.body or b""))
        for e in entries
    ]
    return frame({"now": now, "entries": rows}, [entry.body or b"" for entry in entries])


def read_work(head: dict[str, Any], blob: memoryview) -> list[Entry]:
    """The entries of such a message, with all that a transform can see of them."""
    entries, start = [], 0
    for seq, (source, provider, prefix, id_, received_at, generation, headers, size) in enumerate(head["entries"]):
        body = bytes(blob[start : start + size])
        start += size
        entries.append(
            Entry(
                seq=seq,
                source=source,
                provider=provider,
                prefix=prefix,
                id=id_,
                type="",
                occurred_at=received_at,
                received_at=received_at,
                size=size,
                headers=headers,
                body=None if headers is None else body,
                generation=generation,
            )
        )
    return entries


def results(finished: Sequence[tuple[int, Result]]) -> bytes:
    """The message that answers for some of the entries, by their place in the asking one."""
    rows = [
        (place, result.outcome, result.error, result.after, result.ids, [len(event) for event in result.events])
        for place, result in finished
    ]
    return frame({"results": rows}, [event for _, result in finished for event in result.events])


def read_results(head: dict[str, Any], blob: memoryview) -> list[tuple[int, Result]]:
    """What such a message says."""
    read, start = [], 0
    for place, outcome, error, after, ids, sizes in head["results"]:
        events = []
        for size in sizes:
            events.append(bytes(blob[start : start + size]))
            start += size
        result = Result(
            events=tuple(events),
            ids=tuple(ids),
            outcome=None if outcome is None else Outcome(outcome),
            error=error,
            after=after,
        )
        read.append((place, result))
    return read
