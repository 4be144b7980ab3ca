"""What became of it: round by round, and in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    trouble: str
    """Empty: nothing but what the Event API did."""
    mood: str
    """What the Event API did meanwhile. Empty: it answered."""
    recovery: float | None
    """Seconds from the end of the harm, before anything is started again, until every bridge acknowledged again, and all that was
    acknowledged by then had arrived. None: it did not come to that."""
    refused: int = 0
    """Requests in it that were not answered 2xx."""
    why: str = ""
    """What kept it from that."""

    @property
    def name(self) -> str:
        return self.trouble or self.mood

    @property
    def what(self) -> str:
        return " + ".join(filter(None, (self.trouble, self.mood)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is left when everything is over and nothing is pending any more. Numbers are of deliveries, names their ids."""

    journal: str
    seed: int
    rounds: Sequence[Round]
    seconds: float
    sent: int
    acknowledged: int
    given_up: int
    arrived: int
    """Of those acknowledged."""
    unacknowledged: int
    """Arrived, and their answer was lost."""
    more_than_once: int
    dead: int
    pending: int
    """Less than 0: the journal could not be asked, so what became of the deliveries in it is not known either."""
    lost: Sequence[str]
    """Acknowledged and never arrived, or settled as forwarded and never arrived, or at fault and not dead."""
    changed: Sequence[str]
    """Arrived with another id than theirs."""
    altered: Sequence[str]
    """Arrived with another name or other data than was sent."""
    dead_without_fault: Sequence[str]
    absent: Sequence[str]
    """What can't be tried on this machine."""

    @property
    def is_kept(self) -> bool:
        """The promise."""
        recovered = all(each.recovery is not None for each in self.rounds)
        broken = (self.lost, self.changed, self.altered, self.dead_without_fault, self.pending)
        return recovered and not any(broken)

    @property
    def longest(self) -> Round | None:
        """To recover."""
        recovered = [each for each in self.rounds if each.recovery is not None]
        return max(recovered, key=lambda each: each.recovery or 0.0, default=None)
