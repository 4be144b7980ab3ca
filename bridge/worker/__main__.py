"""`python -m bridge.worker DESCRIPTOR PARENT`: loads the transforms, then transforms what the forwarder sends.

Synchronous transforms run one after the other; asynchronous ones of a batch together. Results go back as they come, so
that when this process is lost it is known which deliveries were not done.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from socket import socket
from typing import Any

import orjson

from bridge import process, providers, worker
from bridge.model import Delivery, Entry, Event, Outcome
from bridge.transform import Made, Result, Transforms, begin, end

# Seconds results may wait for each other. A message costs both sides about as much as a transform.
_LINGER = 0.02


def main(descriptor: int, parent: int) -> None:
    """Until the forwarder closes the channel."""
    process.belong_to(parent)
    # The terminal's Ctrl-C is the supervisor's to handle; stopping us is the forwarder's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = process.adopt(descriptor)
    settings, _ = _receive(channel)
    transforms, faults = Transforms.load(
        [Path(directory) for directory in settings["directories"]],
        loading=lambda path: channel.sendall(worker.frame({"loading": str(path)})),
    )
    named = {"own": sorted(transforms.own), "built_in": sorted(transforms.built_in)}
    channel.sendall(worker.frame({"faults": faults, **named}))
    bench = _Bench(channel, transforms, max_event_bytes=settings["max_event_bytes"], time_limit=settings["time_limit"])
    while True:
        head, blob = _receive(channel)
        bench.run(worker.read_work(head, blob), now=head["now"])


class _Bench:
    """One batch after the other."""

    def __init__(self, channel: socket, transforms: Transforms, *, max_event_bytes: int, time_limit: float) -> None:
        self._channel = channel
        self._transforms = transforms
        self._max_event_bytes = max_event_bytes
        self._time_limit = time_limit
        self._waiting: Any = None
        self._finished: list[tuple[int, Result]] = []
        self._flushed_at = 0.0

    def run(self, entries: list[Entry], *, now: int) -> None:
        self._flushed_at = time.monotonic()
        begun: dict[int, Delivery] = {}
        awaitables: list[tuple[int, Awaitable[Made]]] = []

        def done(place: int, made: list[Event] | Result) -> None:
            if not isinstance(made, Result):
                made = self._end(entries[place], begun[place], made, now=now)
            self._finished.append((place, made))
            if time.monotonic() - self._flushed_at > _LINGER:
                self._flush()

        for place, entry in enumerate(entries):
            outcome = self._begin(entry)
            if isinstance(outcome, Result):
                done(place, outcome)
                continue
            begun[place], made = outcome
            if isinstance(made, list):
                done(place, made)
            else:
                awaitables.append((place, made))
        if awaitables:
            self._flush()  # what waits for others' answers must not hold these up
            self._wait().run(awaitables, done)
        self._flush()

    def _begin(self, entry: Entry) -> Any:
        provider = providers.load().get(entry.provider)
        if provider is None:
            return Result(outcome=Outcome.UNUSABLE, error=f"there is no provider `{entry.provider}` any more")
        return begin(entry, provider=provider, transform=self._transforms.find(entry.source, entry.provider))

    def _end(self, entry: Entry, delivery: Delivery, events: list[Event], *, now: int) -> Result:
        return end(
            events,
            delivery=delivery,
            provider=providers.load()[entry.provider],
            transform=self._transforms.find(entry.source, entry.provider),
            generation=entry.generation,
            now=now,
            max_bytes=self._max_event_bytes,
        )

    def _wait(self) -> Any:
        if self._waiting is None:
            from bridge.worker.waiting import Waiting  # noqa: PLC0415 - asyncio only for who needs it

            self._waiting = Waiting(time_limit=self._time_limit)
        return self._waiting

    def _flush(self) -> None:
        if self._finished:
            self._channel.sendall(worker.results(self._finished))
            self._finished = []
        self._flushed_at = time.monotonic()


def _receive(channel: socket) -> tuple[dict[str, Any], memoryview]:
    """One message; leaves the process when the forwarder has closed the channel."""
    head_size, blob_size = worker.LENGTHS.unpack(_exactly(channel, worker.LENGTHS.size))
    head: dict[str, Any] = orjson.loads(_exactly(channel, head_size))
    return head, _exactly(channel, blob_size)


def _exactly(channel: socket, size: int) -> memoryview:
    buffer = memoryview(bytearray(size))
    filled = 0
    while filled < size:
        count = channel.recv_into(buffer[filled:])
        if count == 0:
            try:
                sys.stdout.flush()
            finally:
                os._exit(0)  # at once: what the user's code left open would have much to say on its way out
        filled += count
    return buffer


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
