"""A disk small enough to be filled, for the tests of what happens then."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def small_disk() -> Iterator[Path]:
    """Where 32 MiB are mounted, room for a write-ahead log that nobody has shortened yet. Skips the test where none may be: a journal that may not grow has a test of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a disk that can be filled")
    at = Path(tempfile.mkdtemp(prefix="bridge-disk-"))
    mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "size=32m", "none", at]
    try:
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("no disk can be mounted here")
        try:
            yield at
        finally:
            subprocess.run(["umount", "--lazy", at], check=True)  # noqa: S607 - it is where it is
    finally:
        at.rmdir()


def fill(disk: Path) -> None:
    """To the last block."""
    for piece in (bytes(1 << 20), bytes(4096)):
        with suppress(OSError), (disk / "filler").open("ab", buffering=0) as filler:
            while filler.write(piece):
                pass


def make_room(disk: Path) -> None:
    (disk / "filler").unlink()
