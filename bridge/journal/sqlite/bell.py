"""Wakes a forwarder that waits, also in another process: a Unix datagram socket beside the journal's file.

A bell saves time and nothing else: whoever does not hear it looks again by itself. So an OSError here means: not heard.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

# Bytes of an address, without its final NUL: 107 on Linux, 103 on macOS and the BSDs.
_LONGEST_ADDRESS = 103


class Bell:
    """Rung by those who append, heard by the one who waits."""

    def __init__(self, path: Path) -> None:
        self._address = address(path)
        self._rung = asyncio.Event()
        self._mouth: socket.socket | None = None
        self._ear: socket.socket | None = None
        self._bound: tuple[int, int] | None = None

    def ring(self) -> None:
        """Never waits: where the ear's queue is full it was rung already, and once is enough."""
        self._rung.set()
        if self._ear is None:
            with suppress(OSError):
                self._mouth = self._mouth or _socket()
                self._mouth.sendto(b"!", str(self._address))

    async def wait(self, seconds: float) -> None:
        """Return when it was rung since the last wait returned, and at the latest after so long."""
        if not self._begin_to_listen():  # else it may have been rung before
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._rung.wait()
        self._rung.clear()

    def close(self) -> None:
        """Whoever waits, waits no longer. The socket is removed, if it is ours."""
        self._rung.set()
        self._stop_listening()
        if self._mouth is not None:
            self._mouth.close()
            self._mouth = None

    def _begin_to_listen(self) -> bool:
        """False: we do already, or can't."""
        if self._ear is not None and self._address.exists():
            return False
        self._stop_listening()  # somebody removed our socket
        with suppress(OSError):
            ear = _socket()
            try:
                _bind(ear, self._address)
                self._bound = _identity(self._address)
            except BaseException:
                ear.close()
                raise
            self._ear = ear
            asyncio.get_running_loop().add_reader(ear, self._hear, ear)
        return self._ear is not None

    def _hear(self, ear: socket.socket) -> None:
        self._rung.set()
        with suppress(OSError):  # BlockingIOError: that was all
            while True:
                ear.recv(1)

    def _stop_listening(self) -> None:
        if self._ear is None:
            return
        asyncio.get_running_loop().remove_reader(self._ear)
        self._ear.close()
        self._ear = None
        with suppress(OSError):
            if _identity(self._address) == self._bound:
                self._address.unlink()


def address(path: Path) -> Path:
    """Where the bell of the journal at this absolute path is."""
    beside = path.with_name(f"{path.name}-wake")
    if len(os.fsencode(beside)) <= _LONGEST_ADDRESS:
        return beside
    return Path(tempfile.gettempdir(), f"bridge-{sha256(os.fsencode(path)).hexdigest()[:32]}-wake")


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.settimeout(0)
    return made


def _bind(ear: socket.socket, address: Path) -> None:
    try:
        ear.bind(str(address))
    except OSError:
        if not _is_abandoned(address):
            raise
        address.unlink()
        ear.bind(str(address))
    address.chmod(0o600)


def _is_abandoned(address: Path) -> bool:
    """Left behind by a process that was killed. One that lives keeps its bell: we look by ourselves then."""
    with _socket() as probe:
        try:
            probe.connect(str(address))
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
        return False


def _identity(address: Path) -> tuple[int, int]:
    found = address.stat()
    return found.st_dev, found.st_ino
