"""What the SQLite journal reads for people and gauges. Holds up nobody: a reader of a write-ahead log takes no lock."""

from __future__ import annotations

import sqlite3

from bridge.journal import Census
from bridge.journal.rows import NEXT, entry_of, storable
from bridge.model import Attempt, Entry, Outcome, Selection, State

_ENTRY = (
    "e.seq, d.source, d.provider, d.prefix, d.id, d.type, d.occurred_at, d.received_at, d.size,"
    " e.state, e.due, e.token, e.attempts, e.replays, e.generation"
)
# CROSS JOIN: in the order of the index, which holds the pending alone.
_DUE = f"""
    SELECT {_ENTRY}, d.headers, d.body FROM entry AS e INDEXED BY entry_due CROSS JOIN delivery AS d ON d.seq = e.seq
    WHERE e.due <= ? ORDER BY e.due, e.seq LIMIT ?
"""  # noqa: S608 - our own text
_FIND = f"""
    SELECT {_ENTRY}, NULL, NULL FROM entry AS e JOIN delivery AS d ON d.seq = e.seq WHERE {{}} ORDER BY e.seq {{}} LIMIT ?
"""  # noqa: S608 - our own text
_LOAD = f"""
    SELECT {_ENTRY}, d.headers, d.body FROM entry AS e JOIN delivery AS d ON d.seq = e.seq WHERE e.seq = ?
"""  # noqa: S608 - our own text
# In these words the index is known to answer that leaves the forwarded out.
_NOT_FORWARDED = "e.state = ? AND e.state <> 'forwarded'"

_RECEIVED = (
    "SELECT min(seq), max(seq) FROM delivery INDEXED BY delivery_received WHERE received_at >= ? AND received_at < ?"
)
# What fits in SQLite's integers.
_EVER = -(1 << 63), (1 << 63) - 1


def due(db: sqlite3.Connection, *, limit: int, now: int, max_bytes: int) -> list[Entry]:
    """What may be claimed, the longest due first. At least one, else no more than so many bytes of bodies."""
    found = db.execute(_DUE, (now, limit))
    entries: list[Entry] = []
    size = 0
    for row in found:
        entry = entry_of(row)
        size += entry.size
        if entries and size > max_bytes:
            break
        entries.append(entry)
    found.close()  # ends the read: as long as it lasts, the -wal can't be begun anew
    return entries


def find(
    db: sqlite3.Connection, selection: Selection, *, limit: int, beyond: int | None, oldest_first: bool
) -> list[Entry]:
    """As `Journal.find`."""
    first, last = _received(db, selection)
    asked: dict[str, object] = {
        "d.id = ?": selection.id and storable(selection.id),
        "d.source = ?": selection.source and storable(selection.source),
        "e.state = ?" if selection.state is State.FORWARDED else _NOT_FORWARDED: selection.state,
        "d.type = ?": selection.type and storable(selection.type),
        # The plus: not by their index, but in the order of seq, so that no page sorts what all the others hold.
        "+d.received_at >= ?": selection.since,
        "+d.received_at < ?": selection.until,
        "e.seq >= ?": first,
        "e.seq <= ?": last,
        "e.seq > ?" if oldest_first else "e.seq < ?": beyond,
    }
    terms = {term: value for term, value in asked.items() if value is not None}
    query = _FIND.format(" AND ".join(terms) or "true", "ASC" if oldest_first else "DESC")
    return [entry_of(row) for row in db.execute(query, (*terms.values(), limit))]


def _received(db: sqlite3.Connection, selection: Selection) -> tuple[int | None, int | None]:
    """The first and the last seq that can have been received when it was asked for: what lies outside is not read."""
    if selection.since is selection.until is None:
        return None, None
    since = _EVER[0] if selection.since is None else selection.since
    until = _EVER[1] if selection.until is None else selection.until
    first, last = db.execute(_RECEIVED, (since, until)).fetchone()
    return (0, 0) if first is None else (first, last)


def load(db: sqlite3.Connection, seq: int) -> Entry | None:
    """As `Journal.load`."""
    row = db.execute(_LOAD, (seq,)).fetchone()
    return None if row is None else entry_of(row)


def attempts(db: sqlite3.Connection, seq: int) -> list[Attempt]:
    """As `Journal.attempts`."""
    rows = db.execute("SELECT at, outcome, error, events FROM attempt WHERE seq = ? ORDER BY n", (seq,))
    return [Attempt(at=at, outcome=Outcome(outcome), error=error, events=events) for at, outcome, error, events in rows]


def census(db: sqlite3.Connection, *, now: int) -> Census:
    """As `Journal.census`: four rows, and the first of two indexes: older ones may come later, from another journal."""
    rows = db.execute(
        """
        SELECT state, n, (
            SELECT min(received_at) FROM delivery WHERE seq IN (
                (SELECT min(seq) FROM entry INDEXED BY entry_state WHERE state = 'pending' AND state <> 'forwarded'),
                (SELECT seq FROM entry WHERE due IS NOT NULL ORDER BY due, seq LIMIT 1)
            )
        ), (
            SELECT min(received_at) FROM delivery WHERE seq IN (
                SELECT seq FROM (
                    SELECT seq, due, token FROM entry WHERE due IS NOT NULL ORDER BY due, seq LIMIT ?
                ) WHERE due <= ? OR token <> ''
            )
        ) FROM tally
        """,
        (NEXT, now),
    ).fetchall()
    counts = {State(state): n for state, n, *_ in rows}
    return Census(counts=counts, oldest_pending=rows[0][2], oldest_due=rows[0][3])
