"""Every error this project raises on purpose: one small tree.

`Rejected` carries the HTTP status it is answered with, so that the pure modules need not know HTTP.
No message here may hold a secret, a signature or a body: messages end in logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum


class BridgeError(Exception):
    """The root of the tree."""


class Reason(StrEnum):
    """Why a request was rejected: a closed set, because it labels a metric. The sender is never told."""

    MISSING = "missing"
    """No signature header, or an empty one."""
    MALFORMED = "malformed"
    """A signature or timestamp that no honest sender writes."""
    MISMATCH = "mismatch"
    """A well-formed signature made with another secret or over other bytes."""
    TOO_OLD = "too_old"
    IN_FUTURE = "in_future"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    """The body did not arrive in time."""
    CROWDED_OUT = "crowded_out"
    """The body was on its way for longest when those of all senders together took too much memory."""
    CUT_OFF = "cut_off"
    """The sender went away before the body was whole."""


class Rejected(BridgeError):
    """The request does not become a delivery.

    `status` is the HTTP status to answer with; `reason` is for the log and the metric, not for the sender.
    """

    status = 401

    def __init__(self, reason: Reason, *, status: int | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        if status is not None:
            self.status = status


class Unusable(BridgeError):
    """An authentic payload that cannot become an event. The message says what is wrong with it, in a line."""


class JournalUnavailable(BridgeError):
    """The journal cannot be read or written now. The message says why, for `/readyz` and the log."""


class WorkerUnavailable(BridgeError):
    """The process that runs transforms can't be started now, or a module no longer loads."""


class ConfigInvalid(BridgeError):
    """The service cannot start. `faults`: one line each, beginning with the key or variable at fault."""

    def __init__(self, faults: Sequence[str]) -> None:
        # A key may hold a line feed, and the message of a transform that does not load may have many.
        self.faults = tuple("".join(each if each.isprintable() else " " for each in fault) for fault in faults)
        super().__init__("\n".join(self.faults))


class EventInvalid(BridgeError):
    """The Event API would refuse, or silently lose, this event. The message says why."""


class EventApiError(BridgeError):
    """Not every event was accepted. `accepted` holds the ids of those that were: a prefix of what was sent."""

    def __init__(self, message: str, *, accepted: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.accepted = tuple(accepted)


class EventApiUnavailable(EventApiError):
    """Nothing answered, or it asked for patience: send the same again later.

    `retry_after`: seconds the Event API asked for, or None.
    """

    def __init__(self, message: str, *, accepted: Sequence[str] = (), retry_after: float | None = None) -> None:
        super().__init__(message, accepted=accepted)
        self.retry_after = retry_after


class EventApiMisconfigured(EventApiError):
    """Wrong key, wrong URL: nothing will be accepted until a person mends the configuration."""


class EventRefused(EventApiError):
    """The Event API refused the event at `len(accepted)`; those behind it were not looked at."""


class Retry(Exception):
    """Raised by a transform that wants to be asked again later.

    `after`: seconds, or a timedelta. `message` is kept with the attempt.
    """

    def __init__(self, message: str = "", *, after: float | timedelta = 60.0) -> None:
        super().__init__(message)
        self.after = after.total_seconds() if isinstance(after, timedelta) else float(after)
