"""Every metric the processes count. Labels come from closed sets: sources, outcomes, reasons, states.

With PROMETHEUS_MULTIPROC_DIR set before this is imported, prometheus_client keeps the values in that directory, where
the supervisor reads those of all processes together. A file each: see `continue_counting_as`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter as Counted
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, values

from bridge.errors import Reason
from bridge.model import State

# Slack gives up after 3 s, Intercom prefers endpoints below 500 ms; a commit to a good disk takes 1 to 5 ms.
_ACK_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# From milliseconds to the week an Event API may be away.
_FORWARD_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1800, 7200, 86400, 604800)

DELIVERY_OUTCOMES = ("accepted", "duplicate", "rejected", "handshake", "failed")


class Metrics:
    """One set for a process. Two in one process, as in tests, do not share values."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        self.deliveries = Counter(
            "bridge_deliveries_total",
            "Webhook requests, by what became of them",
            ["source", "outcome"],
            registry=registry,
        )
        self.rejections = Counter(
            "bridge_rejections_total", "Requests rejected, by reason", ["source", "reason"], registry=registry
        )
        self.ack_seconds = ManyAtOnce(
            "bridge_ack_seconds",
            "From the request to the answer that acknowledges it",
            ["source"],
            buckets=_ACK_BUCKETS,
            registry=registry,
        )
        self.settled = Counter(
            "bridge_entries_settled_total",
            "Entries that reached the state, or came back to pending after an attempt",
            ["source", "state"],
            registry=registry,
        )
        self.events = Counter("bridge_events_total", "Events the Event API accepted", ["source"], registry=registry)
        self.forward_seconds = Histogram(
            "bridge_forward_seconds",
            "From receipt to acceptance by the Event API",
            ["source"],
            buckets=_FORWARD_BUCKETS,
            registry=registry,
        )
        self.event_api_requests = Counter(
            "bridge_event_api_requests_total",
            "Requests to the Event API, by what was said",
            ["outcome"],
            registry=registry,
        )

    def announce_receiving(self, sources: Iterable[str]) -> None:
        """Show zeros from the start, so that the first of each is an increase."""
        for source in sources:
            for outcome in DELIVERY_OUTCOMES:
                self.deliveries.labels(source, outcome)
            for reason in Reason:
                self.rejections.labels(source, reason)
            self.ack_seconds.labels(source)

    def announce_forwarding(self, sources: Iterable[str], verdicts: Iterable[str]) -> None:
        """As above. `verdicts`: what may be said to a request."""
        for source in sources:
            for state in State:
                self.settled.labels(source, state)
            self.events.labels(source)
            self.forward_seconds.labels(source)
        for verdict in verdicts:
            self.event_api_requests.labels(verdict)


class ManyAtOnce(Histogram):
    """A histogram that also takes many values in one write for each of their buckets."""

    def observe_all(self, seconds: Sequence[float]) -> None:
        self._sum.inc(sum(seconds))
        for bucket, count in Counted(bisect_left(self._upper_bounds, each) for each in seconds).items():
            self._buckets[bucket].inc(count)


class Receipts:
    """Counts what one source's requests came to, and writes it down once for all that are answered in one turn of the loop:
    each by itself would cost half of what it costs to verify a webhook.
    """

    def __init__(self, metrics: Metrics, source: str) -> None:
        self._outcomes = {outcome: metrics.deliveries.labels(source, outcome) for outcome in DELIVERY_OUTCOMES}
        self._ack_seconds = metrics.ack_seconds.labels(source)
        self._counted = Counted[str]()
        self._seconds: list[float] = []

    def add(self, outcome: str, seconds: float | None = None) -> None:
        """`seconds`: from the request to its answer, of one that was acknowledged. Call it in a running loop."""
        if not self._counted:
            asyncio.get_running_loop().call_soon(self._write)
        self._counted[outcome] += 1
        if seconds is not None:
            self._seconds.append(seconds)

    def _write(self) -> None:
        for outcome, count in self._counted.items():
            self._outcomes[outcome].inc(count)
        self._ack_seconds.observe_all(self._seconds)
        self._counted.clear()
        self._seconds.clear()


def continue_counting_as(process: str) -> None:
    """Go on where the last process of this name was, in its files: by pid, each start would leave its own behind."""
    if values.ValueClass is not values.MutexValue:
        values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]  # it has no types
