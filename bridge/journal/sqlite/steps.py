"""When the wall clock was set back: what is due by it would wait for as long as that."""

from __future__ import annotations

import time
from collections.abc import Callable

# ms it may seem to go back and has not: two clocks are read one after the other, and one of them is being slowed.
_LEEWAY = 1_000
# How often it is looked for what was received by the clock as it was, and how far apart: seconds. What was received just
# before a step is stored just behind it.
_LOOKS, _APART = 3, 1.0


class Steps:
    """Of one process, which need not have been there when it happened: so there are looks at the beginning too."""

    def __init__(self, clock: Callable[[], int], *, steady: Callable[[], float] = time.monotonic) -> None:
        """`clock` in ms, `steady` in seconds."""
        self._clock = clock
        self._steady = steady
        self._ahead = self._difference()
        self._looks, self._next = _LOOKS, 0.0

    def back(self) -> int:
        """Ms it was set back since the last time."""
        difference = self._difference()
        back, self._ahead = self._ahead - difference, difference
        if back < _LEEWAY:
            return 0
        self._looks = _LOOKS
        return back

    def may_lie_ahead(self) -> bool:
        """Whether it is time to look for what was received in the future."""
        if not self._looks or self._steady() < self._next:
            return False
        self._looks, self._next = self._looks - 1, self._steady() + _APART
        return True

    def _difference(self) -> int:
        return self._clock() - round(self._steady() * 1000)
