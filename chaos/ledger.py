"""What was sent, what was acknowledged, and what arrived with which ids: what the promise is held against."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

# Where each provider's deliveries have their id.
_IDS = ("event_id", "id")


@dataclass(slots=True)
class Ledger:
    """By the ids of deliveries."""

    sent: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    at_fault: set[str] = field(default_factory=set)
    """Deliveries the bridge can't forward, because of what is in them: they are to be dead at the end."""
    arrived: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """How often with which event id."""
    waiting: set[str] = field(default_factory=set)
    """Acknowledged, and not arrived yet."""
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
        id_ = next(data[key] for key in _IDS if key in data)
        self.arrived[id_][event["id"]] += 1
        self.waiting.discard(id_)

    def have_answered(self, bridges: list[str], *, since: float) -> bool:
        """Whether each has acknowledged what was sent to it since then."""
        return all(self.answered.get(bridge, 0.0) > since for bridge in bridges)

    @property
    def lost(self) -> set[str]:
        """Of what could be forwarded."""
        return self.acknowledged - self.at_fault - self.arrived.keys()

    @property
    def more_than_once(self) -> int:
        return sum(ids.total() > 1 for ids in self.arrived.values())

    @property
    def changed(self) -> set[str]:
        """What arrived with different ids."""
        return {id_ for id_, ids in self.arrived.items() if len(ids) > 1}


def now() -> float:
    """Seconds, of a clock that nobody moves."""
    return time.monotonic()
