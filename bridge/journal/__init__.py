"""Where a delivery lives from the moment it is acknowledged until it is forwarded, skipped or dead.

Nothing else carries a delivery from receiving to forwarding. A journal is one module here that passes
`tests/contract/test_journals.py`.

What is due and whose lease has ended is told by one clock: the database's, where several machines share it. `now`, in ms,
is for tests, which so need not wait.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol
from urllib.parse import unquote, urlsplit

from bridge.errors import ConfigInvalid
from bridge.model import Attempt, Delivery, Entry, Selection, Settlement, State

EXPECTED = "sqlite:///path/to/file.db or postgresql://user:password@host/database"


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """How many entries are in each state, and when the oldest pending one was received (None: there is none)."""

    counts: Mapping[State, int]
    oldest_pending: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """An entry, with its body where that was not purged, and its attempts, oldest first."""

    entry: Entry
    attempts: Sequence[Attempt] = ()


class Journal(Protocol):
    """Every method raises JournalUnavailable when the journal can't be read or written now, and has then done nothing."""

    async def append(self, delivery: Delivery) -> bool:
        """Store it, pending, or dead where it has a fault. Durable when this returns.

        False: (source, id) is there already, the provider's retry; nothing was changed.
        """

    async def adopt(self, histories: Sequence[History]) -> int:
        """Store entries of another journal as they were there, but for their seq and their claims. Durable when this returns.

        How many: not those whose (source, id) is there already, nothing changes for them.
        """

    async def claim(self, limit: int, *, lease: int, now: int | None = None) -> Sequence[Entry]:
        """At most `limit` of what is due, the longest due first, with bodies. Nobody else gets them until the lease ends.

        Fewer than there are where the bodies are large: memory stays bounded.
        """

    async def settle(self, settlements: Sequence[Settlement], *, now: int | None = None) -> int:
        """How many were settled: not those whose claim was lost to another, nothing changes for them."""

    async def recover(self) -> int:
        """Make claims that nobody alive can hold due at once. For a forwarder that starts. How many there were."""

    async def replay(self, seqs: Sequence[int], *, new_ids: bool = False, now: int | None = None) -> int:
        """Make finished entries pending and due again. How many: not those pending already, nor those purged."""

    async def find(
        self, selection: Selection, *, limit: int, beyond: int | None = None, oldest_first: bool = False
    ) -> Sequence[Entry]:
        """Without bodies, newest first. `beyond`: go on behind the entry with this seq."""

    async def load(self, seq: int) -> Entry | None:
        """With its body, where it was not purged."""

    async def attempts(self, seq: int) -> Sequence[Attempt]:
        """Oldest first, of all its replays; the newest 100."""

    async def census(self) -> Census: ...

    async def prune(self, *, bodies_before: int, ids_before: int, limit: int) -> int:
        """Forget finished entries received before then: first bodies, later the ids too. At most `limit` of each.

        How many rows were touched: 0 when there is nothing left to do.
        """

    async def wait(self, seconds: float) -> None:
        """Return when something new may be due, and at the latest after so long."""

    async def reserve(self) -> None:
        """For a service that starts to work on it, until it closes it: refused where another does, and only one may."""

    async def check(self) -> None:
        """Return if a delivery could be stored now: by storing something."""

    async def close(self) -> None: ...


def at(url: str, *, connections: int = 4, create: bool = True) -> Journal:
    """The journal at a URL, whether it can be opened now or not: each call opens it where it must, or says why it can't.

    For a running loop. `connections`: at most so many to a PostgreSQL. `create`: also where there is none yet; a file that
    is not there is made in any case, so ask `exists` first. Raises ConfigInvalid where the URL names none.
    """
    if fault := fault_of(url):
        raise ConfigInvalid([f"journal: {fault}"])
    # Only the one in use is loaded.
    if _is_postgresql(url):
        from bridge.journal.postgresql import PostgresqlJournal  # noqa: PLC0415 - as said

        return PostgresqlJournal(url, connections=connections, create=create)
    from bridge.journal.sqlite import SqliteJournal  # noqa: PLC0415 - as said

    return SqliteJournal(path_of(url))


async def open(  # noqa: A001 - journal.open(url), as gzip.open(path)
    url: str, *, connections: int = 4, create: bool = True
) -> Journal:
    """The journal at a URL, open, its schema brought up to date.

    Raises ConfigInvalid where the URL names none, JournalUnavailable where it can't be opened now.
    """
    journal = at(url, connections=connections, create=create)
    try:
        await journal.census()
    except BaseException:
        await journal.close()
        raise
    return journal


async def rehearse(url: str) -> None:
    """Return if a delivery could be stored there now. Where there is no journal yet, none is made.

    Raises ConfigInvalid where the URL names none, JournalUnavailable where not.
    """
    if _is_postgresql(url):
        from bridge.journal.postgresql import rehearse  # noqa: PLC0415 - only the one in use is loaded

        await rehearse(url)
        return
    with _one_to_try(url) as tried:
        store = at(tried)
        try:
            await store.check()
        finally:
            await store.close()


@contextmanager
def _one_to_try(url: str) -> Iterator[str]:
    """The journal; where there is none yet, one beside its place that is gone afterwards."""
    if exists(url) or not os.access(folder := path_of(url).parent, os.W_OK | os.X_OK):
        yield url
        return
    with TemporaryDirectory(prefix=".bridge-check-", dir=folder) as beside:
        yield f"sqlite:///{Path(beside).resolve()}/bridge.db"


def fault_of(url: str) -> str:
    """What is wrong with a journal's URL, without touching it; empty: nothing. Quotes nothing that may be a password."""
    if _is_postgresql(url):
        from bridge.journal.postgresql.url import fault_of  # noqa: PLC0415 - as above

        return fault_of(url)
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        what = f"unknown scheme `{parts.scheme}`" if parts.scheme else "no URL"
        return f"{what}, expected {EXPECTED}"
    if "\0" in str(path_of(url)):
        return "there is a NUL in its path"
    if not parts.netloc and path_of(url).is_dir():
        return f"{path_of(url)} is a directory, expected sqlite:///path/to/file.db"
    if parts.netloc or parts.path.endswith("/"):
        return "expected sqlite:///path/to/file.db, with three slashes and the name of a file"
    return ""


def shown(url: str) -> str:
    """As it may be printed: without a password."""
    if _is_postgresql(url):
        from bridge.journal.postgresql.url import shown  # noqa: PLC0415 - as above

        return shown(url)
    return url


def exists(url: str) -> bool:
    """Whether there is a journal at this URL already, as far as can be told without opening it."""
    return _is_postgresql(url) or path_of(url).exists()


def path_of(url: str) -> Path:
    """The file of a `sqlite:` URL: a bare name is in the working directory, a path begins at the root.

    `sqlite:///bridge.db`, `sqlite:///var/lib/bridge.db` or `sqlite:////var/lib/bridge.db`, `sqlite:///./sub/bridge.db`.
    """
    path = unquote(urlsplit(url).path).removeprefix("/")
    return Path(path) if "/" not in path or path.startswith(("./", "../")) else Path("/", path)


def _is_postgresql(url: str) -> bool:
    """By the two names libpq knows."""
    return url.startswith(("postgresql://", "postgres://"))
