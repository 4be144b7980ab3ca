"""Loaded by every Python process of a bridge that chaos runs: a wall clock that is moved from outside; and a fault, if asked for."""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

_LENGTH = struct.calcsize("q")


def _move_clock(path: Path) -> None:
    with path.open("rb") as file:
        ahead = mmap.mmap(file.fileno(), _LENGTH, access=mmap.ACCESS_READ)
    honest = time.time_ns

    def moved() -> int:
        (by,) = struct.unpack("q", ahead[:_LENGTH])
        return honest() + int(by)

    time.time_ns = moved
    time.time = lambda: moved() / 1e9


if place := os.environ.get("CHAOS_CLOCK"):
    _move_clock(Path(place))
if name := os.environ.get("CHAOS_FAULT"):
    from chaos.faults import FAULTS

    FAULTS[name]()
