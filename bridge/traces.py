"""OpenTelemetry traces: one for each delivery, from its receipt to the Event API, over all processes it passes through.

A trace's id follows from the delivery, so that each process knows it and none has to be told. Spans have names, ids and
outcomes, and nothing of a payload. What is here is put around what there is, so that it costs nothing where traces are off:
then it is not even loaded.

Sent by OTLP over HTTP, as the usual variables say: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.metadata import version
from typing import Any, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from bridge.errors import JournalUnavailable
from bridge.event_api import Answer, Verdict
from bridge.journal import Journal
from bridge.model import Delivery, Entry, Outcome, Settlement, State
from bridge.transform import Result
from bridge.worker.client import Worker

_NAME = "webhook-event-bridge"
# Seconds at the end for what was not sent yet. A collector that hangs may not hold up a stop that is promised within 10.
_LAST_WORDS = 1.0
# Entries on their way that are remembered: more than four claims. One whose lease was lost is never settled by us.
_MOST = 10_000
# Ids of events that are told of one entry.
_IDS = 100
_GOOD = frozenset({Outcome.FORWARDED, Outcome.SKIPPED, Outcome.POSTPONED})


class _Ids(RandomIdGenerator):
    """Random, but for the next trace and span whose ids are set."""

    def __init__(self) -> None:
        self.trace = self.span = 0

    def generate_trace_id(self) -> int:
        set_, self.trace = self.trace, 0
        return set_ or super().generate_trace_id()

    def generate_span_id(self) -> int:
        set_, self.span = self.span, 0
        return set_ or super().generate_span_id()


def rehearse() -> None:
    """Make all that `Traces` makes, and send nothing. Raises what it raises."""
    _provider("rehearsal", _Ids()).shutdown()


def _provider(process: str, ids: _Ids) -> TracerProvider:
    resource = Resource.create({SERVICE_NAME: _NAME, SERVICE_VERSION: version(_NAME), "bridge.process": process})
    provider = TracerProvider(
        resource=resource.merge(OTELResourceDetector().detect()), id_generator=ids, shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Traces:
    """Of one process. `close` it at its end."""

    def __init__(self, process: str) -> None:
        """Raises whatever OpenTelemetry raises of its variables."""
        self._ids = _Ids()
        self._provider = _provider(process, self._ids)
        self._tracer = self._provider.get_tracer(_NAME)
        self._forwarded: dict[int, tuple[Span, list[str]]] = {}

    def close(self) -> None:
        """Send what is left, if somebody takes it soon. What is on its way is due again, for whoever comes next."""
        for seq in tuple(self._forwarded):
            self._gone(seq, "released")
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_LAST_WORDS)

    def receiving(self, journal: Journal) -> Journal:
        """The same, and each delivery that it stores begins a trace."""

        async def append(delivery: Delivery) -> bool:
            who, at, since = _who(delivery), delivery.received_at, time.time_ns()
            storing = journal.append(delivery)
            del delivery  # its payload takes several times the memory of its body, and only that of bodies is bounded
            try:
                new = await storing
            except JournalUnavailable:
                self._received(who, at=at, since=since, outcome="failed")
                raise
            self._received(who, at=at, since=since, outcome="accepted" if new else "duplicate")
            return new

        return cast(Journal, _Instead(journal, append=append))

    def forwarding(self, journal: Journal) -> Journal:
        """The same, and each claim goes on with a trace, until it is settled."""

        async def claim(limit: int, *, lease: int) -> Sequence[Entry]:
            entries = await journal.claim(limit, lease=lease)
            self._claimed(entries)
            return entries

        async def settle(settlements: Sequence[Settlement]) -> int:
            settled = await journal.settle(settlements)
            self._settled(settlements)
            return settled

        return cast(Journal, _Instead(journal, claim=claim, settle=settle))

    def transforming(self, worker: Worker) -> Worker:
        """The same, and each entry that it transforms has a span."""

        async def run(entries: Sequence[Entry], *, now: int, until: float) -> tuple[list[Result | None], str]:
            since = time.time_ns()
            results, how = await worker.run(entries, now=now, until=until)
            for entry, result in zip(entries, results, strict=True):
                outcome = "lost" if result is None else result.outcome or "transformed"
                told = {"bridge.outcome": str(outcome), "bridge.batch.entries": len(entries)}
                self._part(entry, "transform", since=since, attributes=told)
            return results, how

        return cast(Worker, _Instead(worker, run=run))

    def asking(self, batch: Sequence[tuple[Entry, str]]) -> Callable[[Answer], None]:
        """A request to the Event API begins now, with these entries' events, by id. To be called with its answer."""
        since = time.time_ns()
        entries = {entry.seq: entry for entry, _ in batch}
        ids: dict[int, list[str]] = {seq: [] for seq in entries}
        for entry, id_ in batch:
            ids[entry.seq].append(id_)

        def answered(answer: Answer) -> None:
            for seq, entry in entries.items():
                told: dict[str, Any] = {
                    "bridge.event_api.answer": answer.verdict.value,
                    "bridge.batch.events": len(batch),
                }
                told["bridge.event.ids"] = ids[seq][:_IDS]
                good = answer.verdict is Verdict.ACCEPTED
                self._part(entry, "send", since=since, attributes=told, kind=SpanKind.CLIENT, good=good)
                if seq in self._forwarded:
                    known = self._forwarded[seq][1]
                    known += [id_ for id_ in ids[seq][:_IDS] if id_ not in known]

        return answered

    def _received(self, who: dict[str, str], *, at: int, since: int, outcome: str) -> None:
        """`who`: see `_who`. `at`: ms, when it was received. `since`: ns, when it was given to the journal."""
        self._ids.trace, self._ids.span = _identity(who, at)
        span = self._tracer.start_span(
            "POST /webhooks/{source}",
            context=Context(),
            kind=SpanKind.SERVER,
            start_time=min(at * 1_000_000, since),
            attributes={**who, "bridge.outcome": outcome},
        )
        storing = self._tracer.start_span("journal append", context=trace.set_span_in_context(span), start_time=since)
        storing.end()
        if outcome == "failed":
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def _claimed(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            who = _who(entry)
            context, links = self._receipt(who, entry), list[Link]()
            if entry.replays:  # a trace of its own: the first one may be a month old
                links = [Link(trace.get_current_span(context).get_span_context())]
                self._ids.trace, _ = _identity(who, entry.received_at, entry.replays)
                context = Context()
            span = self._tracer.start_span(
                "forward", context=context, kind=SpanKind.CONSUMER, attributes=who, links=links
            )
            self._gone(entry.seq, "lapsed")  # its lease, or we would not have it again
            self._forwarded[entry.seq] = (span, [])
        while len(self._forwarded) > _MOST:
            self._gone(next(iter(self._forwarded)), "lapsed")

    def _gone(self, seq: int, outcome: str) -> None:
        """Nothing was decided of it: no error, and it is not over."""
        span, ids = self._forwarded.pop(seq, (trace.INVALID_SPAN, []))
        span.set_attributes({"bridge.state": State.PENDING.value, "bridge.outcome": outcome})
        span.set_attribute("bridge.event.ids", ids[:_IDS])
        span.end()

    def _settled(self, settlements: Sequence[Settlement]) -> None:
        for settlement in settlements:
            span, ids = self._forwarded.pop(settlement.seq, (trace.INVALID_SPAN, []))
            outcome = "given_back" if settlement.attempt is None else settlement.attempt.outcome.value
            span.set_attributes({"bridge.state": settlement.state.value, "bridge.outcome": outcome})
            span.set_attribute("bridge.event.ids", ids[:_IDS])
            if settlement.state is State.DEAD or (settlement.attempt and settlement.attempt.outcome not in _GOOD):
                span.set_status(Status(StatusCode.ERROR))
            span.end()

    def _part(
        self,
        entry: Entry,
        name: str,
        *,
        since: int,
        attributes: dict[str, Any],
        kind: SpanKind = SpanKind.INTERNAL,
        good: bool = True,
    ) -> None:
        """A span of what has just been done for an entry on its way."""
        whole, _ = self._forwarded.get(entry.seq, (trace.INVALID_SPAN, None))
        context = trace.set_span_in_context(whole, Context())
        span = self._tracer.start_span(name, context=context, kind=kind, start_time=since, attributes=attributes)
        if not good:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def _receipt(self, who: dict[str, str], entry: Entry) -> Context:
        """The span of its receipt, by whatever process, and whether that was sampled: the sampler decides by the trace's id."""
        trace_id, span_id = _identity(who, entry.received_at)
        decided = self._provider.sampler.should_sample(None, trace_id, "").decision
        flags = TraceFlags(TraceFlags.SAMPLED if decided is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT)
        parent = SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)
        return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def _who(of: Delivery | Entry) -> dict[str, str]:
    return {"bridge.source": of.source, "bridge.provider": of.provider, "bridge.delivery.id": of.id}


def _identity(who: dict[str, str], received_at: int, replays: int = 0) -> tuple[int, int]:
    """The ids of the trace, and of its first span."""
    parts = (*who.values(), str(received_at), str(replays))
    digest = sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1


class _Instead:
    """What is inside, but for the methods that are given."""

    def __init__(self, inside: Any, **methods: Any) -> None:
        self._inside = inside
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._inside, name)
