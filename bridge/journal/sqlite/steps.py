"""When the wall clock is set back: what is due by it would wait for as long as that."""

from __future__ import annotations

import time
from collections.abc import Callable

# ms it may seem to go back and has not: two clocks are read one after the other, and one of them is being slowed.
_LEEWAY = 1_000


class Steps:
    """Of a process: it sees those between two calls."""

    def __init__(self, clock: Callable[[], int], *, steady: Callable[[], float] = time.monotonic) -> None:
        """`clock` in ms, `steady` in seconds."""
        self._clock = clock
        self._steady = steady
        self._ahead = self._difference()
        self._back = 0

    def see(self) -> None:
        """To be called whenever the clock is used: who was not asked while it was ahead sees nothing when it is set back."""
        difference = self._difference()
        if self._ahead - difference >= _LEEWAY:
            self._back += self._ahead - difference
        self._ahead = difference

    def back(self) -> int:
        """Ms it was set back since the last time this was asked."""
        self.see()
        back, self._back = self._back, 0
        return back

    def _difference(self) -> int:
        return self._clock() - round(self._steady() * 1000)
