"""The words this project is written in, as frozen values. Imports nothing of ours, touches nothing outside.

Every time is an integer: milliseconds since 1970 UTC, the unit of the Event API's `ts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

# The shape is the provider's own, and only the transform for it knows what to expect.
Payload: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One configured URL, `/webhooks/{name}`: whose webhooks arrive there, and how they are checked."""

    name: str
    provider: str
    """The name of a provider in `bridge/providers/`."""
    prefix: str
    """What its event names begin with, by default the provider's name."""
    secrets: tuple[bytes, ...] = field(repr=False)
    """Any of them will do: that is how secrets are rotated. Never empty."""
    max_body: int = 1 << 20
    """Bytes. Stripe's and Intercom's largest stay below 256 KiB; the Event API takes no more for one event."""
    tolerance: int = 300_000
    """How far a signed timestamp may lie from our clock, either way: ms. Five minutes: Stripe's and Slack's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """What arrived: untrusted. Header names are lower-case; a header sent twice is joined with `, `."""

    headers: Mapping[str, str]
    body: bytes
    received_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A webhook whose signature held, and what it says of itself. Only `bridge.verify` makes one."""

    source: str
    provider: str
    prefix: str
    id: str
    """The provider's own id, the same over all its retries."""
    type: str
    """The provider's own word for what happened, such as `customer.created`."""
    occurred_at: int
    received_at: int
    headers: Mapping[str, str]
    """Those needed to verify it again, and those its provider says something in."""
    body: bytes
    """Exactly the bytes that were signed."""
    payload: Payload
    """The parsed body, less the secrets the provider puts in it."""
    fault: str = ""
    """Why this authentic delivery cannot become an event; then `type` and `payload` are empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """An authentic request that wants an answer and gives no event, such as Slack's `url_verification`."""

    answer: str = ""
    """Sent back as text/plain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event for the Event API. What is left out is filled in: see `bridge.event`."""

    name: str
    """Such as `stripe/customer.created`: at most 256 characters, never `inngest/...`."""
    data: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    key: str = ""
    """Tells several events of one name apart, when one delivery gives them: part of the id."""
    ts: int | None = None
    """When it happened: ms, 1980 to 2100."""
    v: str | None = None
    user: Mapping[str, Any] | None = None


class State(StrEnum):
    """Where an entry stands. `TRANSITIONS` says what may follow what."""

    PENDING = "pending"
    """To be forwarded, when it is due. A claimed entry is pending with a lease."""
    FORWARDED = "forwarded"
    """The Event API accepted every event it gave."""
    SKIPPED = "skipped"
    """Its transform wants no event for it."""
    DEAD = "dead"
    """Given up: needs a person, then a replay."""


FINISHED = frozenset({State.FORWARDED, State.SKIPPED, State.DEAD})

# pending to pending: claimed, given back, to be tried again. Finished to pending: a replay.
TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset(State),
    State.FORWARDED: frozenset({State.PENDING}),
    State.SKIPPED: frozenset({State.PENDING}),
    State.DEAD: frozenset({State.PENDING}),
}


class Outcome(StrEnum):
    """What an attempt came to."""

    FORWARDED = "forwarded"
    SKIPPED = "skipped"
    POSTPONED = "postponed"
    """The transform raised Retry."""
    RAISED = "raised"
    """The transform raised anything else, or gave what is no event."""
    STUCK = "stuck"
    """The transform ran over its time limit, or took its process down."""
    REFUSED = "refused"
    """The Event API refused an event for good."""
    UNCLEAR = "unclear"
    """It refused an event in words it has for its own faults too, and accepted no other meanwhile."""
    UNUSABLE = "unusable"
    """The delivery cannot become an event at all: see `Delivery.fault`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at forwarding an entry, as an operator reads it."""

    at: int
    outcome: Outcome
    error: str = ""
    """A line, or a traceback of the transform. Shown to the operator alone: never logged."""
    events: int = 0
    """How many events the Event API accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A delivery in the journal."""

    seq: int
    """Its place in the journal, in the order of arrival."""
    source: str
    provider: str
    prefix: str
    id: str
    type: str
    occurred_at: int
    received_at: int
    size: int
    """Bytes of the body, also after it was purged."""
    headers: Mapping[str, str] | None = None
    body: bytes | None = None
    """None: purged, or not asked for."""
    state: State = State.PENDING
    due: int | None = None
    """When it may be claimed; for a claimed one, when its lease ends. None: finished."""
    token: str = ""
    """Who holds it. Empty: nobody."""
    attempts: int = 0
    """Tries since it arrived or was last replayed."""
    replays: int = 0
    generation: int = 0
    """How many of the replays asked for new event ids."""

    @classmethod
    def of(cls, delivery: Delivery, *, seq: int = 0) -> Entry:
        """As it is when the delivery was just stored, in that place."""
        return cls(
            seq=seq,
            source=delivery.source,
            provider=delivery.provider,
            prefix=delivery.prefix,
            id=delivery.id,
            type=delivery.type,
            occurred_at=delivery.occurred_at,
            received_at=delivery.received_at,
            size=len(delivery.body),
            headers=delivery.headers,
            body=delivery.body,
            due=delivery.received_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What becomes of a claimed entry. `attempt` None: it was given back untried, and no attempt is counted."""

    seq: int
    token: str
    state: State
    wait: int | None = None
    """For `State.PENDING` alone: ms until it is tried again. Negative: how long it has been due, so as to keep its place."""
    attempt: Attempt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which entries a command means. Every field left out means all."""

    id: str | None = None
    """The delivery's id."""
    source: str | None = None
    state: State | None = None
    type: str | None = None
    since: int | None = None
    """Received then or later."""
    until: int | None = None
    """Received before then."""
