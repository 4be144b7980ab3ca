"""The wall clock of all processes of a bridge, which can be moved from outside."""

from __future__ import annotations

import struct
from pathlib import Path


class Clock:
    """A file that `inside/sitecustomize.py` reads whenever it is asked for the time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "clock"
        self.path.write_bytes(struct.pack("q", 0))

    def set(self, seconds: float) -> None:
        """So far from the true time, either way."""
        with self.path.open("r+b", buffering=0) as file:
            file.write(struct.pack("q", round(seconds * 1e9)))
