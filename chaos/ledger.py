"""What was sent, what was acknowledged, and what arrived: what the promise is held against."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

# Of a delivery's id: the event that is to arrive.
Expected: TypeAlias = Callable[[str], dict[str, Any]]
# Where each provider's deliveries have their id.
_IDS = ("event_id", "id")


@dataclass(slots=True)
class Ledger:
    """By the ids of deliveries."""

    expected: Expected
    sent: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    at_fault: set[str] = field(default_factory=set)
    """Deliveries the bridge can't forward, because of what is in them: they are to be dead at the end."""
    arrived: Counter[str] = field(default_factory=Counter)
    """How often."""
    changed: set[str] = field(default_factory=set)
    """What arrived with another id than it was to have."""
    altered: set[str] = field(default_factory=set)
    """What arrived with another name, or other data."""
    waiting: set[str] = field(default_factory=set)
    """Acknowledged, and not arrived yet."""
    refused: int = 0
    """Requests that were answered something else, or nothing."""
    answered: dict[str, float] = field(default_factory=dict)
    """By bridge: when the last request it answered 2xx was begun, by the monotonic clock."""

    def send(self, id_: str, *, at_fault: bool) -> None:
        self.sent.add(id_)
        if at_fault:
            self.at_fault.add(id_)

    def acknowledge(self, id_: str, *, bridge: str, began: float) -> None:
        self.answered[bridge] = max(began, self.answered.get(bridge, 0.0))
        if id_ in self.acknowledged:
            return
        self.acknowledged.add(id_)
        if id_ not in self.arrived and id_ not in self.at_fault:
            self.waiting.add(id_)

    def arrive(self, event: dict[str, Any]) -> None:
        data = event["data"]
        id_ = next((data[key] for key in _IDS if key in data), "")
        expected = self.expected(id_)
        if event["id"] != expected["id"]:
            self.changed.add(id_)
        if (event["name"], data) != (expected["name"], expected["data"]):
            self.altered.add(id_)
        self.arrived[id_] += 1
        self.waiting.discard(id_)

    def have_answered(self, bridges: Iterable[str], *, since: float) -> bool:
        """Whether each has acknowledged what was sent to it since then."""
        return all(self.answered.get(bridge, 0.0) > since for bridge in bridges)

    def lost(self, *, forwarded: set[str], dead: set[str]) -> set[str]:
        """Given what the journal has in the end."""
        owed = (self.acknowledged | forwarded) - self.at_fault
        return (owed - self.arrived.keys()) | ((self.acknowledged & self.at_fault) - dead)

    @property
    def more_than_once(self) -> int:
        return sum(times > 1 for times in self.arrived.values())


def now() -> float:
    """Seconds, of a clock that nobody moves."""
    return time.monotonic()
