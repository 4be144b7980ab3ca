"""One connection to a SQLite file: opened when needed, dropped when it can't be trusted, opened again by the next call.

Every fault leaves here as JournalUnavailable, one line that names the file and the cause; the transaction is then undone.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Literal, TypeVar

from bridge import log
from bridge.errors import JournalUnavailable
from bridge.journal.sqlite.place import check_local
from bridge.journal.sqlite.schema import MIGRATIONS

T = TypeVar("T")

# The first with UPDATE ... FROM.
_OLDEST = (3, 33)
# Seconds to wait for another process's transaction. Slack gives up on us after three.
_PATIENCE = 1.5
# Seconds between two looks whether it has ended. SQLite's own waiting grows to 0.1 s; the pauses between the commits of a
# busy receiver are much shorter, and a forwarder that looks so seldom met none for a second.
_LOOK_AGAIN = 0.0005
# Bytes written, about, after which a checkpoint is due.
CHECKPOINT_AFTER = 1 << 20
# Pages, 16 MiB: from then on it is begun anew whatever that takes.
_WAL_LARGE = 4_096
# Bytes the file keeps: to write over what is there costs a commit much less than to make the file longer.
_WAL_KEPT = 32 << 20
# Pages, 64 MiB: then an append does it, because nobody forwards.
_WAL_SAFETY_NET = 16_384

# What SQLite says (https://www.sqlite.org/rescode.html), and whether the same connection will do once the cause is gone.
_LOCKED = "locked by another process"
_PASSING = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_PROTOCOL: _LOCKED,
    sqlite3.SQLITE_FULL: "the disk is full",
}
_LASTING = {
    sqlite3.SQLITE_READONLY: "can't be written: read-only",
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_AUTH: "permission denied",
    sqlite3.SQLITE_CORRUPT: "damaged: restore it from a backup, or move it away",
    sqlite3.SQLITE_NOTADB: "not a SQLite database",
}


class SqliteFile:
    """A connection, used by one thread. `synchronous` is its promise for as long as it lives, see the package."""

    def __init__(self, path: Path, *, synchronous: Literal["FULL", "NORMAL"]) -> None:
        self._path = path
        self._files = tuple(f"{path}{suffix}" for suffix in ("", "-wal", "-shm"))
        self._synchronous = synchronous
        self._db: sqlite3.Connection | None = None
        self._opened: tuple[tuple[int, int], ...] = ()

    def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """What the job returns, if the file it was done to is still the one at the path."""
        try:
            return _patiently(lambda: self._attempt(job))
        except _Removed:
            self.close()
            raise JournalUnavailable(f"{self._path}: was removed or replaced while it was open") from None
        except (sqlite3.Error, OSError, JournalUnavailable) as error:
            if _code(error) not in _PASSING:
                self.close()
            raise JournalUnavailable(f"{self._path}: {_cause(self._path, error)}") from error

    def checkpoint(self) -> None:
        """Move what lies in the -wal into the database.

        Not by the connection that appends, so that no append waits for it: a passive checkpoint holds up no writer. But while
        they write without a pause it never gets to the end, so the -wal can't be begun anew: from 16 MiB on a full one
        follows, which holds them up. So there is another one first, that little is left for it.
        """
        with suppress(sqlite3.Error, OSError, JournalUnavailable):
            db = self._db or self._open()
            if _checkpoint(db, "PASSIVE") >= _WAL_LARGE:
                _checkpoint(db, "PASSIVE")
                _checkpoint(db, "FULL")

    def close(self) -> None:
        """Never raises. What was not committed is undone."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def _attempt(self, job: Callable[[sqlite3.Connection], T]) -> T:
        result = job(self._db or self._open())
        self._check_in_place()
        return result

    def _open(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < _OLDEST:
            oldest = ".".join(map(str, _OLDEST))
            raise JournalUnavailable(f"SQLite {oldest} is needed, this Python has {sqlite3.sqlite_version}")
        check_local(self._path)
        if _create(self._path) and self._opened:
            log.error("journal.created", file=str(self._path), reason="the one that was here was removed")
        before = _identity(self._files[0])
        # rw: SQLite itself would create the file with the umask's mode.
        db = sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None)
        try:
            _check_ours(db)
            _configure(db, self._synchronous)
            migrate(db)
            self._opened = (before, *self._identities()[1:])
            self._check_in_place()
        except BaseException:
            db.close()
            raise
        self._db = db
        return db

    def _check_in_place(self) -> None:
        """A commit to a file that was removed succeeds, and is gone with the process."""
        if self._identities() != self._opened:
            raise _Removed

    def _identities(self) -> tuple[tuple[int, int], ...]:
        """Which files these are. Whoever has the -wal or the -shm alone removed has also taken what was committed."""
        return tuple(map(_identity, self._files))


def _checkpoint(db: sqlite3.Connection, mode: str) -> int:
    """How many pages the -wal had.

    Up to 3.51.2 a checkpoint that finds nothing to do, while another connection begins the -wal anew, may lose what
    that one commits (https://www.sqlite.org/wal.html#walresetbug). This one finds its own commit at the least, and
    the -wal is not begun anew before that is moved.
    """
    with transaction(db):
        db.execute("UPDATE tally SET n = n WHERE state = 'pending'")
    db.execute(f"PRAGMA busy_timeout = {_PATIENCE * 1000:.0f}")
    try:
        [(_, pages, _)] = db.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
    finally:
        db.execute("PRAGMA busy_timeout = 0")
    return int(pages)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Everything in it, or nothing. IMMEDIATE: what is read in it stays true until it is committed."""
    _patiently(lambda: db.execute("BEGIN IMMEDIATE"))
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:  # not after some faults: then SQLite has rolled back itself
            db.execute("ROLLBACK")


def migrate(db: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Bring the schema up to date, each step in a transaction of its own. Others may be doing the same.

    Raises JournalUnavailable where a newer release has been here.
    """
    while (version := _version(db)) < len(migrations):
        with transaction(db):
            # Under the lock: another process may have taken this step while we waited.
            if _version(db) == version:
                for statement in migrations[version]:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {version + 1}")
    if version > len(migrations):
        raise JournalUnavailable(
            f"its schema is number {version}, this release knows {len(migrations)}: run the newer release"
        )


def _patiently(attempt: Callable[[], T]) -> T:
    """Again and again, while the file is locked: a transaction that could not begin has done nothing."""
    deadline = monotonic() + _PATIENCE
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if _PASSING.get(_code(error)) != _LOCKED or monotonic() > deadline:
                raise
        sleep(_LOOK_AGAIN)


class _Removed(Exception):
    pass


def _version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def _check_ours(db: sqlite3.Connection) -> None:
    """Before anything is written: a database of another program is left as it is."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if tables and not {"delivery", "entry", "tally"} <= tables:
        raise JournalUnavailable("a SQLite database of another program, with tables that are none of a journal's")


def _configure(db: sqlite3.Connection, synchronous: str) -> None:
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise JournalUnavailable(f"no write-ahead log is possible here (journal_mode is {mode}): use a local disk")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    # macOS: fsync() leaves data in the drive's own cache, F_FULLFSYNC does not. Without effect elsewhere.
    db.execute("PRAGMA fullfsync = ON")
    db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_SAFETY_NET}")
    db.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT}")


def _create(path: Path) -> bool:
    """Whether there was none. Bodies are nobody else's business, and SQLite gives its -wal and -shm the mode of the
    database.

    Only a file that was not there is opened here: to close one that is would drop the locks of every connection this
    process has to it (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True


def _identity(file: str) -> tuple[int, int]:
    try:
        found = os.stat(file)  # noqa: PTH116 - three follow every commit, and Path.stat() takes twice as long
    except FileNotFoundError:
        raise _Removed from None
    return found.st_dev, found.st_ino


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 where the error is none of SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _cause(path: Path, error: Exception) -> str:
    code = _code(error)
    if whose := _whose(path):
        return whose
    if isinstance(error, OSError):
        return f"the directory {path.parent} is missing" if not path.parent.is_dir() else error.strerror or str(error)
    if code == sqlite3.SQLITE_CANTOPEN:
        return "can't be opened: is it a file, and may we read and write it and its directory?"
    if code == sqlite3.SQLITE_IOERR and _is_full(path):
        return "the disk is full"
    # SQLite's own texts name tables, never values.
    name = f"{error.sqlite_errorname}: " if isinstance(error, sqlite3.Error) and code else ""
    return _PASSING.get(code) or _LASTING.get(code) or f"{name}{error}"


def _whose(path: Path) -> str:
    """Why we may not use what is there, where it is another's: a volume is often root's. Empty: we may, or nothing is there."""
    for each, wanted in ((path.parent, os.R_OK | os.W_OK | os.X_OK), (path, os.R_OK | os.W_OK)):
        with suppress(OSError):  # not there
            owner = os.stat(each).st_uid  # noqa: PTH116 - as above
            if owner != os.geteuid() and not os.access(each, wanted) and not _is_read_only(each):
                return f"{each} belongs to uid {owner}, and is not to be written by uid {os.geteuid()}, which the bridge runs as"
    return ""


def _is_read_only(place: Path) -> bool:
    return bool(os.statvfs(place).f_flag & os.ST_RDONLY)


def _is_full(path: Path) -> bool:
    """Some ways of running out of space reach us as a bare I/O error."""
    try:
        return os.statvfs(path.parent).f_bavail == 0
    except OSError:
        return False
