"""What time it is. Everything that asks takes a clock as an argument; this is the one it gets outside of tests."""

from __future__ import annotations

import time


def wall_clock() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000
