"""Turns signed webhooks into events for Inngest.

    receive -> verify -> journal -> (answer 200) -> transform -> forward

One module each, named for the step; `model` holds the words they share, `serve` joins them in processes, `cli` is
the `bridge` command. A transform needs only the names exported here.
"""

from __future__ import annotations

from bridge.errors import Retry
from bridge.model import Delivery, Event

__all__ = ["Delivery", "Event", "Retry"]
