"""What a service that lives has in memory beside its processes: what they count, and for who asks, where it listens."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

import orjson

# Of a directory's name, once it is locked.
_LIVING = "bridge-metrics-"
_ADDRESSES = "addresses"
# What tells services of one user apart, beside the folder they were started in.
_TELLING = ("BRIDGE_CONFIG", "BRIDGE_HOST", "BRIDGE_PORT", "BRIDGE_ADMIN_HOST", "BRIDGE_ADMIN_PORT")


class Directory:
    """Where all processes of a service keep what they count, and where it says at which addresses it is, as long as it lives.

    In memory, where there is such a place: whoever counts is killed (SIGBUS) when a full disk can't hold the page. With
    the journal on the same disk, a receiver that should answer 503 would not live to do it.
    """

    def __init__(self) -> None:
        """What a service left behind that was killed goes: nobody holds its lock any more."""
        place = _place()
        for left in place.glob(f"{_LIVING}*"):
            _remove_unless_held(left)
        made = Path(tempfile.mkdtemp(prefix="bridge-starting-", dir=place))
        self._held = os.open(made, os.O_RDONLY)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        self.path = made.rename(made.with_name(made.name.replace("bridge-starting-", _LIVING)))

    def announce(self, *bound: socket.socket) -> None:
        """Where this service listens, for `addresses`."""
        addresses = [each.getsockname()[:2] for each in bound]
        said = self.path / "announcing"
        said.write_bytes(orjson.dumps({"of": _identity(), "addresses": addresses}))
        said.rename(self.path / _ADDRESSES)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._held)


def addresses() -> list[tuple[str, int]]:
    """Host and port of each listener of the service of this user that was started like this process: its folder and its
    variables tell. Empty where none lives.
    """
    for directory in _place().glob(f"{_LIVING}*"):
        with suppress(OSError, ValueError, TypeError):
            said = orjson.loads(_announced(directory))
            if said["of"] == _identity():
                return [(host, port) for host, port in said["addresses"]]
    return []


def _announced(directory: Path) -> bytes:
    """By one descriptor, so that nobody exchanges what was looked at. Raises OSError."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(held).st_uid != os.getuid() or not _is_locked(held):
            raise FileNotFoundError
        with open(
            _ADDRESSES, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, dir_fd=held)
        ) as file:
            return file.read()
    finally:
        os.close(held)


def _identity() -> list[str]:
    return [os.getcwd(), *(os.environ.get(name, "") for name in _TELLING)]  # noqa: PTH109 - a text


def _place() -> Path:
    return _in_memory() or Path(tempfile.gettempdir())


def _in_memory() -> Path | None:
    memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a name nobody can know, for us alone
    return memory if memory.is_dir() and os.access(memory, os.W_OK | os.X_OK) else None


def _is_locked(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _remove_unless_held(left: Path) -> None:
    with suppress(OSError):  # its service lives, or it is another user's, or somebody else removes it just now
        held = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
        finally:
            os.close(held)
