"""How deliveries get into the SQLite journal: a batch in one transaction, in few statements.

Few, because Python's sqlite3 gives the GIL away at every statement and every row, and waits to get it back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from bridge.journal import History
from bridge.journal.rows import Row, adopted_due, headers_written, storable
from bridge.journal.sqlite.file import transaction
from bridge.journal.sqlite.writes import add_attempts, all_in_one, bury, count
from bridge.model import Attempt, Entry, Outcome, State

# Rows an INSERT, and every power of two below: so few statements that all stay prepared. Eleven variables a row keep
# the largest under 999, the smallest SQLITE_MAX_VARIABLE_NUMBER in use.
_MOST_ROWS = 64

_INSERT = (
    "INSERT INTO delivery"
    " (seq, source, id, provider, prefix, type, occurred_at, received_at, size, headers, body) VALUES {}"
    # Named, so that no other conflict can ever pass for a duplicate.
    " ON CONFLICT (id, source) DO NOTHING"
)
_PLACEHOLDERS = "(?,?,?,?,?,?,?,?,?,?,?)"


def append(db: sqlite3.Connection, rows: Sequence[Row]) -> frozenset[int]:
    """The places in `rows` of those that are duplicates: of one there already, or of one before them in `rows`."""
    with transaction(db):
        last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'delivery'").fetchone()
        first = last[0] + 1 if last else 1
        duplicates = _insert(db, rows, first)
        db.execute(
            "INSERT INTO entry (seq, state, due) SELECT seq, 'pending', received_at FROM delivery WHERE seq >= ?",
            (first,),
        )
        count(db, State.PENDING, len(rows) - len(duplicates))
        faults = {first + place: row for place, row in enumerate(rows) if row[-1] and place not in duplicates}
        if faults:
            bury(db, list(faults))
            add_attempts(db, {seq: _unusable(row) for seq, row in faults.items()})
    return duplicates


def _insert(db: sqlite3.Connection, rows: Sequence[Row], first: int) -> frozenset[int]:
    stored = start = 0
    while start < len(rows):
        size = min(_MOST_ROWS, 1 << (len(rows) - start).bit_length() - 1)
        values: list[object] = []
        for place in range(start, start + size):
            values.append(first + place)
            values += rows[place][:-1]
        stored += db.execute(_INSERT.format(",".join([_PLACEHOLDERS] * size)), values).rowcount
        start += size
    if stored == len(rows):
        return frozenset()
    new = all_in_one(db, "SELECT json_group_array(seq) FROM delivery WHERE seq >= ?", first)
    return frozenset(range(len(rows))) - {seq - first for seq in new}


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
                "INSERT INTO entry (seq, state, due, attempts, replays, generation) VALUES (?, ?, ?, ?, ?, ?)",
                (seq, entry.state, adopted_due(entry), entry.attempts, entry.replays, entry.generation),
            )
            db.executemany(
                "INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?)",
                [(seq, n, a.at, a.outcome, storable(a.error), a.events) for n, a in enumerate(each.attempts, 1)],
            )
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
