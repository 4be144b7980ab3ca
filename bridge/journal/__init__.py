"""Where a delivery lives from the moment it is acknowledged until it is forwarded, skipped or dead.

Nothing else carries a delivery from receiving to forwarding. A journal is one package here that has what `Kind` asks for
and passes `tests/contract/`.

What is due and whose lease has ended is told by one clock: the database's, where several machines share it. `now`, in ms,
is for tests, which so need not wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import urlsplit

from bridge.errors import ConfigInvalid
from bridge.model import Attempt, Delivery, Entry, Selection, Settlement, State

EXPECTED = "sqlite:///path/to/file.db or postgresql://user:password@host/database"
# The module here that knows the URLs of a scheme. Only the one in use is loaded.
_MODULES = {"sqlite": "sqlite.journal", "postgresql": "postgresql.journal", "postgres": "postgresql.journal"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """How many entries are in each state, and when the oldest pending one was received (None: there is none).

    `oldest_due`: of those that do not wait for a time of theirs: what is due, or claimed. Looked for among the next 1,000.
    """

    counts: Mapping[State, int]
    oldest_pending: int | None
    oldest_due: int | None


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

    async def census(self, *, now: int | None = None) -> Census: ...

    async def prune(self, *, bodies: int, ids: int, limit: int, now: int | None = None) -> int:
        """Forget finished entries received longer than so many ms ago: first bodies, later the ids too. At most `limit` of each.

        How many rows were touched: 0 when there is nothing left to do.
        """

    async def wait(self, seconds: float) -> None:
        """Return when something new may be due, and at the latest after so long."""

    async def reserve(self, *, alone: bool = False) -> None:
        """For a service that starts to work on it, until it closes it: refused where another does, and only one may.

        `alone`: for who wants nobody to work on it now.
        """

    async def identity(self) -> str:
        """What tells it from another, by whatever URL, and as whomever, it was opened."""

    async def check(self) -> None:
        """Return if a delivery could be stored now: by storing something."""

    async def close(self) -> None: ...


class Kind(Protocol):
    """What a package here has: all that depends on which journal it is.

    `fault_of` and `shown` are asked about any URL with its scheme, the others about those in which there is no fault.
    """

    def at(self, url: str, *, connections: int, create: bool, receiving: bool) -> Journal: ...

    async def rehearse(self, url: str) -> None: ...

    def exists(self, url: str) -> bool: ...

    def fault_of(self, url: str) -> str: ...

    def shown(self, url: str) -> str: ...

    def file_of(self, url: str) -> Path | None: ...


def at(url: str, *, connections: int = 4, create: bool = True, receiving: bool = False) -> Journal:
    """The journal at a URL, whether it can be opened now or not: each call opens it where it must, or says why it can't.

    For a running loop. `connections`: at most so many to a PostgreSQL. `create`: also where there is none yet; a file that
    is not there is made in any case, so ask `exists` first. `receiving`: for who appends as much as it can. Raises
    ConfigInvalid where the URL names none.
    """
    return _kind(url).at(url, connections=connections, create=create, receiving=receiving)


async def open(  # noqa: A001 - journal.open(url), as gzip.open(path)
    url: str, *, connections: int = 4, create: bool = True, receiving: bool = False
) -> Journal:
    """The journal at a URL, open, its schema brought up to date.

    Raises ConfigInvalid where the URL names none, JournalUnavailable where it can't be opened now.
    """
    journal = at(url, connections=connections, create=create, receiving=receiving)
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
    await _kind(url).rehearse(url)


def exists(url: str) -> bool:
    """Whether there is a journal already, as far as can be told without opening it. Raises ConfigInvalid as above."""
    return _kind(url).exists(url)


def fault_of(url: str) -> str:
    """What is wrong with a journal's URL, without touching it; empty: nothing. Quotes nothing that may be a password."""
    package = _package(url)
    if package is None:
        scheme = urlsplit(url).scheme
        return f"unknown scheme `{scheme}`, expected {EXPECTED}" if scheme else f"no URL, expected {EXPECTED}"
    return package.fault_of(url)


def shown(url: str) -> str:
    """As it may be printed: without a password."""
    package = _package(url)
    return "" if package is None else package.shown(url)


def file_of(url: str) -> Path | None:
    """Where it is kept; None: by a server. Raises ConfigInvalid where the URL names none."""
    return _kind(url).file_of(url)


def _kind(url: str) -> Kind:
    package = _package(url)
    if package is None or package.fault_of(url):
        raise ConfigInvalid([f"journal: {fault_of(url)}"])
    return package


def _package(url: str) -> Kind | None:
    scheme, _, _ = url.partition(":")
    name = _MODULES.get(scheme)
    return None if name is None else cast(Kind, import_module(f"bridge.journal.{name}"))
