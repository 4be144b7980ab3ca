"""How deliveries get into the SQLite journal: a batch in one statement, which is a transaction of its own.

One, because Python's sqlite3 gives the GIL away at every statement and waits to get it back, from an event loop that is
busy just then: with six statements a batch, the waiting took longer than the disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache

from bridge.journal import History
from bridge.journal.rows import Row, adopted_due, headers_written, storable
from bridge.journal.sqlite.file import transaction
from bridge.journal.sqlite.writes import add_attempts, all_in_one, bury, count
from bridge.model import Attempt, Entry, Outcome, State


def append(db: sqlite3.Connection, rows: Sequence[Row]) -> frozenset[int]:
    """The places in `rows` of those that are duplicates: of one there already, or of one before them in `rows`."""
    if not any(row[-1] for row in rows):
        return _insert(db, rows)[1]
    with transaction(db):
        first, duplicates = _insert(db, rows)
        faults = {first + place: row for place, row in enumerate(rows) if row[-1] and place not in duplicates}
        bury(db, list(faults))
        add_attempts(db, {seq: _unusable(row) for seq, row in faults.items()})
    return duplicates


def _insert(db: sqlite3.Connection, rows: Sequence[Row]) -> tuple[int, frozenset[int]]:
    """The seq that the first of them got, or would have got, and the places of the duplicates."""
    size = 1 << (len(rows) - 1).bit_length()
    values: list[object] = []
    for place, row in enumerate(rows):
        values.append(place)
        values += row[:-1]
    values += [None] * ((size - len(rows)) * _COLUMNS)
    stored = db.execute(_statement(size), values)
    if not stored.rowcount:
        return 0, frozenset(range(len(rows)))
    last = stored.lastrowid or 0
    if stored.rowcount == len(rows):
        return last - len(rows) + 1, frozenset()
    # A seq is its place beyond the first, also where those before it were duplicates.
    id_, source = db.execute("SELECT id, source FROM delivery WHERE seq = ?", (last,)).fetchone()
    first = last - next(place for place, row in enumerate(rows) if (row[1], row[0]) == (id_, source))
    new = all_in_one(db, "SELECT json_group_array(seq) FROM delivery WHERE seq BETWEEN ? AND ?", first, last)
    return first, frozenset(range(len(rows))) - {seq - first for seq in new}


# Its place, then a row less its fault.
_COLUMNS = 11


@cache
def _statement(size: int) -> str:
    """Takes so many rows, of which the last may be NULL. Sizes are powers of two, so that all their statements stay prepared."""
    return f"""
        INSERT OR ROLLBACK INTO delivery
            (seq, source, id, provider, prefix, type, occurred_at, received_at, size, headers, body)
        SELECT
            1 + column1 + coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'delivery'), 0),
            column2, column3, column4, column5, column6, column7, column8, column9, column10, column11
        FROM (VALUES {",".join([f"({','.join('?' * _COLUMNS)})"] * size)}) WHERE column1 IS NOT NULL
        ON CONFLICT (id, source) DO NOTHING
    """  # noqa: S608 - our own text


def _unusable(row: Row) -> Attempt:
    *_, received_at, _, _, _, fault = row
    return Attempt(at=received_at, outcome=Outcome.UNUSABLE, error=fault)


def adopt(db: sqlite3.Connection, histories: Sequence[History]) -> int:
    """As `Journal.adopt`."""
    adopted = 0
    with transaction(db):
        for each in histories:
            entry = each.entry
            stored = db.execute(_ADOPT, _described(entry))
            if not stored.rowcount:
                continue
            adopted += 1
            seq = stored.lastrowid
            db.execute(
                "UPDATE entry SET state = ?, due = ?, attempts = ?, replays = ?, generation = ? WHERE seq = ?",
                (entry.state, adopted_due(entry), entry.attempts, entry.replays, entry.generation, seq),
            )
            db.executemany(
                "INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?)",
                [(seq, n, a.at, a.outcome, storable(a.error), a.events) for n, a in enumerate(each.attempts, 1)],
            )
            count(db, State.PENDING, -1)
            count(db, entry.state, 1)
    return adopted


_ADOPT = """
    INSERT INTO delivery (source, id, provider, prefix, type, occurred_at, received_at, size, headers, body)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id, source) DO NOTHING
"""


def _described(entry: Entry) -> tuple[object, ...]:
    """The columns that say what it is, then headers and body."""
    headers = None if entry.headers is None else headers_written(entry.headers)
    described = (entry.source, entry.id, entry.provider, entry.prefix, entry.type)
    return *map(storable, described), entry.occurred_at, entry.received_at, entry.size, headers, entry.body
