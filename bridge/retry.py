"""When to try again, and when an entry is dead. Pure: the clock and the dice are arguments."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.model import Attempt, Entry, Outcome, Settlement, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Delays double from `first` to `longest` (ms); after `attempts` tries there is none left."""

    first: int
    longest: int
    attempts: int | None = None


# The Event API is away: patience without end, and no entry pays for it. 30 s: what people wait for after an outage.
OUTAGE = Policy(first=500, longest=30_000)
# A person has to mend it: no hurry.
MISCONFIGURED = Policy(first=2_000, longest=60_000)
# Refused for what is in the event, in words the Event API uses for nothing else: once more, alone, then dead.
REFUSED = Policy(first=0, longest=0, attempts=2)
# Refused in words we do not know: the open-source server says 400 also of its own faults. Where it accepted others
# meanwhile, it is the event, and this often is enough.
REFUSED_OBSCURELY = Policy(first=1_000, longest=30_000, attempts=5)
# Where it did not, it may be the server, and no entry dies of that.
UNCLEAR = Policy(first=1_000, longest=300_000)
# A transform that took its process down or ran over its time may have been stopped by the machine: thrice, alone.
STUCK = Policy(first=1_000, longest=60_000, attempts=3)
# A transform asks for another time by itself, and says when; this often.
POSTPONED = Policy(first=0, longest=0, attempts=100)

_FINAL = {Outcome.FORWARDED: State.FORWARDED, Outcome.SKIPPED: State.SKIPPED}


def settlement(
    entry: Entry, attempt: Attempt, *, policy: Policy | None, times: int, dice: float, wait: int = 0
) -> Settlement:
    """Where an attempt leaves its entry: done, dead, or, while the policy has tries left, pending.

    `times`: how often it has come to this outcome, now included. `wait`: ms a transform asked for.
    """
    if policy is not None and (pause := delay(policy, attempt=times, dice=dice)) is not None:
        return Settlement(seq=entry.seq, token=entry.token, state=State.PENDING, wait=max(pause, wait), attempt=attempt)
    state = _FINAL.get(attempt.outcome, State.DEAD)
    return Settlement(seq=entry.seq, token=entry.token, state=state, attempt=attempt)


def given_back(entry: Entry, *, wait: int) -> Settlement:
    """Untried: no attempt is counted."""
    return Settlement(seq=entry.seq, token=entry.token, state=State.PENDING, wait=wait)


def delay(policy: Policy, *, attempt: int, dice: float) -> int | None:
    """How long to wait after the attempt of this number, from 1: ms, or None when it was the last.

    `dice` is uniform in [0, 1): a quarter of the delay is jitter, so that what failed together does not return together.
    """
    if policy.attempts is not None and attempt >= policy.attempts:
        return None
    full = min(policy.longest, policy.first << min(attempt - 1, 30))
    return round(full * (0.75 + dice / 4))
