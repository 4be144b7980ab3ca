"""Reads the configuration, in a process of its own, and tells when it should be read again: a file with a secret was changed."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from bridge.companion import Companion
from bridge.errors import BridgeError
from bridge.settings import Settings

# Seconds between two looks. Kubernetes takes a minute to bring a changed secret; whoever rotates one waits for neither.
_LOOK_AGAIN = 1.0

# What tells a file from the one that was there before: also where a link leads elsewhere now. None: there is none.
Stamp: TypeAlias = tuple[int, int, int, int] | None


class Configuration:
    """What the environment says, and the files it names."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """`environment`: its secrets are taken out as soon as they are read, and remembered here alone."""
        self._environment = dict(environment)
        self._theirs = environment
        self._stamps: Mapping[Path, Stamp] = {}
        self._asked = asyncio.Event()
        self._on_terminal = sys.stderr.isatty()

    def listen(self) -> None:
        """To SIGHUP, from now on. In a running loop."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hung_up)

    def _hung_up(self) -> None:
        if self._on_terminal and not sys.stderr.isatty():  # it was closed: nobody is left who could stop us
            signal.raise_signal(signal.SIGTERM)
        self._asked.set()

    async def read(self) -> tuple[Settings, list[str]]:
        """As `bridge.config.read`. Raises BridgeError where the process that does it fails."""
        try:
            reader = await Companion.start("bridge.config", environment=self._environment)
        except OSError as error:  # no more processes, or files
            raise BridgeError(f"no process to read the configuration can be started: {error.strerror}") from None
        said = await reader.reader.read()
        ended = await reader.stop()
        try:
            settings, faults, secret, self._stamps = pickle.loads(said)  # noqa: S301 - from a process of ours, over a private channel
        except (EOFError, pickle.UnpicklingError):
            raise BridgeError(f"the process that reads the configuration {ended}") from None
        for name in secret:
            self._theirs.pop(name, None)
        return settings, faults

    async def changed(self) -> bool:
        """Return when it is to be read again: at SIGHUP (True), and once a file with a secret is another than the one that
        was read, and is not being written any more.
        """
        before = self._stamps
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN):
                    await self._asked.wait()
                    self._asked.clear()
                    return True
            now = stamps(self._stamps)
            if now == before != self._stamps:
                return False
            before = now


def stamps(files: Iterable[Path]) -> dict[Path, Stamp]:
    return {path: _stamp(path) for path in files}


def _stamp(path: Path) -> Stamp:
    try:
        found = os.stat(path)  # noqa: PTH116 - a path with a NUL in it raises here, as everywhere
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
