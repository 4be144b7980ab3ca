"""Reads the configuration, in a process of its own, and tells when it should be read again: a file with a secret was changed."""

from __future__ import annotations

import asyncio
import io
import math
import os
import signal
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from bridge.companion import Companion
from bridge.errors import BridgeError
from bridge.settings import Settings, unpacked

# Seconds between two looks. Kubernetes takes a minute to bring a changed secret; whoever rotates one waits for neither.
_LOOK_AGAIN = 1.0
# Looks at which files that go on changing are read all the same: others may have been changed for good.
_MOST_LOOKS = 10
# Seconds for all that is to be read. What never ends is no file.
_READ_WITHIN = 30.0

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
        # Where it is ignored already, as `nohup` has it, its end is not ours.
        self._on_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def listen(self) -> None:
        """To SIGHUP, from now on. In a running loop."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hung_up)

    def _hung_up(self) -> None:
        if self._on_terminal and not _has_terminal():  # it was closed: nobody is left who could stop us
            signal.raise_signal(signal.SIGTERM)
        self._asked.set()

    async def read(self) -> tuple[Settings, list[str]]:
        """As `bridge.config.read`. Raises BridgeError where the process that does it fails."""
        try:
            reader = await Companion.start("bridge.config", environment=self._environment)
        except OSError as error:  # no more processes, or files
            raise BridgeError(f"no process to read the configuration can be started: {error.strerror}") from None
        known = self._stamps = stamps(self._stamps)  # where it fails, it is not read again for what was changed before
        said, late = b"", ""
        try:
            async with asyncio.timeout(_READ_WITHIN):
                said = await reader.reader.read()
        except TimeoutError:
            late = f"was not done after {_READ_WITHIN:g} s: is each file with a secret a file?"
        finally:
            ended = await reader.stop()
        try:
            settings, faults, secret, files = unpacked(io.BytesIO(said))
        except BridgeError:
            raise
        except Exception:  # noqa: BLE001 - what is not whole can be anything
            raise BridgeError(f"the process that reads the configuration {late or ended}") from None
        # A file that can't be read names none, and what was read before is still in use.
        self._stamps = {**known, **files} if faults else files
        for name in secret:
            self._theirs.pop(name, None)
        return settings, faults

    async def changed(self, *, within: float = math.inf) -> bool:
        """Return when it is to be read again: at SIGHUP (True), once a file with a secret is another than the one that was
        read, and is not being written any more, and after `within` seconds.
        """
        loop = asyncio.get_running_loop()
        ends, before, looks = loop.time() + within, self._stamps, 0
        while loop.time() < ends:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN):
                    await self._asked.wait()
                    self._asked.clear()
                    return True
            now = stamps(self._stamps)
            looks = 0 if now == self._stamps else looks + 1
            if looks and (now == before or looks >= _MOST_LOOKS):
                break
            before = now
        return False


def stamps(files: Iterable[Path]) -> dict[Path, Stamp]:
    return {path: _stamp(path) for path in files}


def _stamp(path: Path) -> Stamp:
    try:
        found = os.stat(path)  # noqa: PTH116 - a path with a NUL in it raises here, as everywhere
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def _has_terminal() -> bool:
    """Whether there is one that may be closed, wherever the log goes."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
