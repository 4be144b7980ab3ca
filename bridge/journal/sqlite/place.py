"""Where a SQLite journal is and may be, and who may serve from it: a local disk, and one service at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from bridge.errors import JournalUnavailable

# https://www.sqlite.org/wal.html: all processes must see the same shared memory, and on these nobody can promise that.
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "beegfs", "davfs", "fuse.sshfs",
     "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "fuse.davfs2", "fuse.juicefs", "fuse.gcsfuse"}
)  # fmt: skip
_MOUNTS = Path("/proc/self/mountinfo")


def path_of(url: str) -> Path:
    """The file of a `sqlite:` URL: a bare name is in the working directory, a path begins at the root.

    `sqlite:///bridge.db`, `sqlite:///var/lib/bridge.db` or `sqlite:////var/lib/bridge.db`, `sqlite:///./sub/bridge.db`.
    """
    path = unquote(urlsplit(url).path).removeprefix("/")
    return Path(path) if "/" not in path or path.startswith(("./", "../")) else Path("/", path)


def exists(url: str) -> bool:
    """As `bridge.journal.exists`."""
    return path_of(url).exists()


def fault_of(url: str) -> str:
    """As `bridge.journal.fault_of`."""
    parts = urlsplit(url)
    if "\0" in str(path_of(url)):
        return "there is a NUL in its path"
    if not parts.netloc and path_of(url).is_dir():
        return f"{path_of(url)} is a directory, expected sqlite:///path/to/file.db"
    if parts.netloc or parts.path.endswith("/"):
        return "expected sqlite:///path/to/file.db, with three slashes and the name of a file"
    return ""


def shown(url: str) -> str:
    """As `bridge.journal.shown`: there is nothing to hide."""
    return url


def file_of(url: str) -> Path:
    """As `bridge.journal.file_of`. SQLite follows a link, and keeps the -wal beside what it leads to."""
    return path_of(url).resolve()


@contextmanager
def one_to_try(url: str) -> Iterator[Path]:
    """The file; where there is none yet, one beside its place that is gone afterwards."""
    path = path_of(url)
    if path.exists() or not os.access(path.parent, os.W_OK | os.X_OK):
        yield path
        return
    with TemporaryDirectory(prefix=".bridge-check-", dir=path.parent) as beside:
        yield Path(beside).resolve() / "bridge.db"


def check_local(path: Path) -> None:
    """Raises JournalUnavailable where the file would be on a network disk, as far as the system tells: Linux does."""
    kind = _kind_of(path.parent)
    if kind in _NETWORK:
        raise JournalUnavailable(
            f"on a network disk ({kind}), where SQLite can lose what is acknowledged: use a local one, or PostgreSQL"
        )


def _kind_of(folder: Path) -> str:
    """The type of the file system a folder is on; empty: nobody knows."""
    try:
        device = folder.stat().st_dev
        mounts = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    # https://docs.kernel.org/filesystems/proc.html#proc-pid-mountinfo-information-about-mounts
    for mount in mounts:
        where, _, what = mount.partition(" - ")
        if where.split()[2:3] == [number]:
            return what.partition(" ")[0]
    return ""


class Reservation:
    """A lock on a file beside the journal: the system gives it back when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._journal = path
        self._file = Path(f"{path}-serve")
        self._descriptor: int | None = None

    def take(self) -> None:
        """Raises JournalUnavailable where another process has it."""
        while self._descriptor is None:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise JournalUnavailable(
                    f"{self._journal}: another bridge is running on it, and a SQLite journal is for one: "
                    "stop that one, or give this one a journal of its own; several share a PostgreSQL"
                ) from None
            if self._is(descriptor):
                self._descriptor = descriptor
            else:  # its last owner has removed it meanwhile
                os.close(descriptor)

    def give_back(self) -> None:
        """Never raises."""
        if self._descriptor is None:
            return
        with suppress(OSError):
            if self._is(self._descriptor):
                self._file.unlink()
        os.close(self._descriptor)
        self._descriptor = None

    def _open(self) -> int:
        try:
            return os.open(self._file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalUnavailable(f"{self._file}: {error.strerror}") from error

    def _is(self, descriptor: int) -> bool:
        """Whether this is still the file at that path."""
        try:
            there = self._file.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(descriptor)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
