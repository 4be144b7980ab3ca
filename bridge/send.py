"""Sends the events of many entries: in batches, the same batch again while the Event API is away, a refused event alone.

Says for each entry what became of it and settles nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from bridge import log, retry
from bridge.event_api import Answer, EventApi, Verdict, batches, seed
from bridge.gate import Gate
from bridge.metrics import Metrics
from bridge.model import Entry


@dataclass(slots=True, kw_only=True)
class Parcel:
    """An entry, its events, and how far they have come."""

    entry: Entry
    events: Sequence[bytes]
    ids: Sequence[str]
    accepted: int = 0
    refusal: Answer | None = None
    """What was said of the event that is refused for good."""
    refusals: dict[int, int] = field(default_factory=dict)
    """How often each event was refused."""

    @property
    def delivered(self) -> bool:
        return self.accepted == len(self.events)

    @property
    def decided(self) -> bool:
        return self.delivered or self.refusal is not None


# One event on its way: its parcel, and its place in it.
_Item = tuple[Parcel, int]
Asking: TypeAlias = Callable[[Sequence[tuple[Entry, str]]], Callable[[Answer], None]]


class Sender:
    """One for all that is forwarded, so that all of it waits at the same gate."""

    def __init__(
        self,
        *,
        api: EventApi,
        gate: Gate,
        metrics: Metrics,
        max_batch_events: int,
        max_batch_bytes: int,
        asking: Asking | None = None,
    ) -> None:
        """`asking` is called when a request begins, and what it gives with the answer."""
        self._api = api
        self._gate = gate
        self._metrics = metrics
        self._max_batch_events = max_batch_events
        self._max_batch_bytes = max_batch_bytes
        self._asking = asking

    @property
    def is_shut(self) -> bool:
        """Whether nothing can be sent just now."""
        return bool(self._gate.reason)

    async def send(self, parcels: Sequence[Parcel], *, until: float) -> AsyncIterator[list[Parcel]]:
        """The parcels as they are decided: delivered, or with a refusal. Those that are neither when `until` comes
        (of the loop's clock) are not among them.
        """
        undecided = list(parcels)
        items = [(parcel, place) for parcel in parcels for place in range(len(parcel.events))]
        sizes = [len(parcel.events[place]) for parcel, place in items]
        waiting = deque(
            items[span.start : span.stop]
            for span in batches(sizes, max_events=self._max_batch_events, max_bytes=self._max_batch_bytes)
        )
        while waiting:
            batch = waiting.popleft()
            answer = await self._ask(batch, until=until)
            if answer is None:
                return
            waiting.extendleft(reversed(self._what_is_left(batch, answer)))
            if decided := [parcel for parcel in undecided if parcel.decided]:
                undecided = [parcel for parcel in undecided if not parcel.decided]
                yield decided

    def _what_is_left(self, batch: list[_Item], answer: Answer) -> list[list[_Item]]:
        """Note what was said of the batch. The batches still to be sent for it."""
        if answer.verdict is Verdict.TOO_LARGE and len(batch) > 1:
            return [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        for parcel, _ in batch[: len(answer.ids)]:
            parcel.accepted += 1
        if answer.verdict is Verdict.ACCEPTED:
            return []
        bad, place = batch[len(answer.ids)]
        rest = [batch[len(answer.ids) + 1 :]] if len(batch) > len(answer.ids) + 1 else []
        bad.refusals[place] = bad.refusals.get(place, 0) + 1
        if retry.delay(retry.REFUSED, attempt=bad.refusals[place], dice=0) is None:
            # Our own limit let it pass, so 413 may be that of a proxy, of whatever size.
            bad.refusal = replace(answer, obscure=answer.obscure or answer.verdict is Verdict.TOO_LARGE)
            return rest
        return [*rest, [(bad, place)]]

    async def _ask(self, batch: list[_Item], *, until: float) -> Answer | None:
        """What the Event API says of the batch, however often it has to be asked; None: not by then."""
        first = batch[0][0].entry
        ids = [parcel.ids[place] for parcel, place in batch]
        # A replay is meant to be a new request: Inngest answers a known seed with the runs it had.
        replays = ",".join(str(parcel.entry.replays) for parcel, _ in batch)
        seeded = seed(ids, at=first.received_at, salt=replays)
        encoded = [parcel.events[place] for parcel, place in batch]
        while True:
            async with AsyncExitStack() as passing:
                try:
                    async with asyncio.timeout_at(until):
                        await passing.enter_async_context(self._gate.request())
                except TimeoutError:
                    return None
                if asyncio.get_running_loop().time() >= until:  # an open gate takes no time to pass
                    return None
                tell = self._asking and self._asking([(parcel.entry, parcel.ids[place]) for parcel, place in batch])
                answer = await self._api.post(encoded, seed=seeded)
                if tell:
                    tell(answer)
                self._metrics.event_api_requests.labels(answer.verdict).inc()
                if self._heard(answer):
                    return answer

    def _heard(self, answer: Answer) -> bool:
        """Whether it spoke of the events; if not, nothing is sent for a while."""
        if answer.verdict is Verdict.UNAVAILABLE:
            policy, event = retry.OUTAGE, "event_api.unavailable"
        elif answer.verdict is Verdict.MISCONFIGURED:
            policy, event = retry.MISCONFIGURED, "event_api.misconfigured"
        else:
            if self._gate.reason:
                log.info("event_api.back")
            self._gate.open()
            return True
        wait = self._gate.shut(answer.error, policy=policy, retry_after=answer.retry_after)
        log.error(event, reason=answer.error, next_try_in_seconds=round(wait, 1))
        return False
