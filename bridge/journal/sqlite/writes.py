"""What the forwarder and the commands write: each function is one transaction on the connection it is given.

The write lock is the receiver's as well, in another process, so what can be read before it is taken is read before.
Lists travel as one JSON parameter and come back as one JSON row: see appends.py for why.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import orjson

from bridge.journal.rows import MOST_CLAIMED, storable
from bridge.journal.sqlite.file import transaction
from bridge.journal.sqlite.reads import due
from bridge.model import Attempt, Entry, Settlement, State


def claim(db: sqlite3.Connection, *, limit: int, now: int, lease: int) -> list[Entry]:
    """As `Journal.claim`."""
    while entries := due(db, limit=limit, now=now, max_bytes=MOST_CLAIMED):
        token = uuid4().hex
        picked = _packed([[entry.seq, entry.attempts, entry.replays] for entry in entries])
        with transaction(db):
            # Only what is as it was read: another may have claimed it since, and even given it back.
            taken = db.execute(_TAKE, (now + lease, token, picked, now)).rowcount
            mine = all_in_one(db, _TAKEN, picked, token) if taken < len(entries) else None
        if taken:
            ours = entries if mine is None else [entry for entry in entries if entry.seq in mine]
            return [replace(entry, due=now + lease, token=token) for entry in ours]
    return []


_TAKE = """
    UPDATE entry SET due = ?, token = ?
    FROM (
        SELECT json_extract(value, '$[0]') AS seq, json_extract(value, '$[1]') AS attempts,
            json_extract(value, '$[2]') AS replays
        FROM json_each(?)
    ) AS picked
    WHERE entry.seq = picked.seq AND entry.attempts = picked.attempts AND entry.replays = picked.replays
        AND entry.due <= ?
"""
_TAKEN = """
    SELECT json_group_array(seq) FROM entry
    WHERE seq IN (SELECT json_extract(value, '$[0]') FROM json_each(?)) AND token = ?
"""


def set_back(db: sqlite3.Connection, *, by: int, now: int) -> int:
    """The clock was, by so many ms: what lies ahead, and leases too, lies ahead no longer than it did. How many there were."""
    with transaction(db):
        return db.execute("UPDATE entry SET due = max(due - ?, ?) WHERE due > ?", (by, now, now)).rowcount


def hasten(db: sqlite3.Connection, *, now: int) -> int:
    """Make due what was received in the future: the clock was set back since, and whoever claims need not have seen it. How
    many there were.
    """
    ahead = all_in_one(db, _AHEAD, now, now)
    if not ahead:
        return 0
    with transaction(db):
        return db.execute(_HASTEN, (now, _packed(ahead))).rowcount


# By the index of when they were received: none, on nearly all days.
_AHEAD = """
    SELECT json_group_array(d.seq) FROM delivery AS d INDEXED BY delivery_received CROSS JOIN entry AS e ON e.seq = d.seq
    WHERE d.received_at > ? AND e.due > ? AND e.token = ''
"""
_HASTEN = "UPDATE entry SET due = ? WHERE seq IN (SELECT value FROM json_each(?)) AND token = '' AND due IS NOT NULL"


def settle(db: sqlite3.Connection, settlements: Sequence[Settlement], *, now: int) -> int:
    """As `Journal.settle`. Of two for one claim, the first."""
    asked = _packed([settlement.seq for settlement in settlements])
    with transaction(db):
        held = dict(all_in_one(db, _HELD, asked))
        valid: dict[int, Settlement] = {}
        for settlement in settlements:
            if held.get(settlement.seq) == settlement.token:
                valid.setdefault(settlement.seq, settlement)
        db.execute(_SETTLE, (_packed([[each.seq, each.state, due_of(each, now)] for each in valid.values()]),))
        add_attempts(db, {seq: each.attempt for seq, each in valid.items() if each.attempt is not None})
        for state, n in Counter(each.state for each in valid.values()).items():
            count(db, State.PENDING, -n)
            count(db, state, n)
    return len(valid)


def due_of(settlement: Settlement, now: int) -> int | None:
    """When it may be claimed again; None: never."""
    return None if settlement.wait is None else now + settlement.wait


_HELD = """
    SELECT json_group_array(json_array(seq, token)) FROM entry
    WHERE seq IN (SELECT value FROM json_each(?)) AND token <> ''
"""
_SETTLE = """
    UPDATE entry SET state = given.state, due = given.due, token = ''
    FROM (
        SELECT json_extract(value, '$[0]') AS seq, json_extract(value, '$[1]') AS state,
            json_extract(value, '$[2]') AS due
        FROM json_each(?)
    ) AS given
    WHERE entry.seq = given.seq
"""


def add_attempts(db: sqlite3.Connection, attempts: Mapping[int, Attempt]) -> None:
    """One each for these entries, by seq, in the caller's transaction."""
    tried = _packed([[seq, a.at, a.outcome, storable(a.error), a.events] for seq, a in attempts.items()])
    db.execute(_ATTEMPT, (tried,))
    db.execute(
        "UPDATE entry SET attempts = attempts + 1 WHERE seq IN (SELECT value FROM json_each(?))",
        (_packed(list(attempts)),),
    )


_ATTEMPT = """
    INSERT INTO attempt
    SELECT seq, 1 + coalesce((SELECT max(n) FROM attempt WHERE attempt.seq = tried.seq), 0), at, outcome, error, events
    FROM (
        SELECT json_extract(value, '$[0]') AS seq, json_extract(value, '$[1]') AS at,
            json_extract(value, '$[2]') AS outcome, json_extract(value, '$[3]') AS error,
            json_extract(value, '$[4]') AS events
        FROM json_each(?)
    ) AS tried
"""


def recover(db: sqlite3.Connection) -> int:
    """As `Journal.recover`: a SQLite file has one forwarder, so whoever held a claim is gone."""
    claimed = _packed(all_in_one(db, "SELECT json_group_array(seq) FROM entry WHERE due IS NOT NULL AND token <> ''"))
    with transaction(db):
        return db.execute(_RECOVER, (claimed,)).rowcount


_RECOVER = """
    UPDATE entry SET token = '', due = (SELECT received_at FROM delivery WHERE delivery.seq = entry.seq)
    WHERE seq IN (SELECT value FROM json_each(?)) AND token <> ''
"""


def replay(db: sqlite3.Connection, seqs: Sequence[int], *, now: int, new_ids: bool) -> int:
    """As `Journal.replay`."""
    with transaction(db):
        states = dict(all_in_one(db, _REPLAYABLE, _packed(list(seqs))))
        db.execute(_REPLAY, (now, int(new_ids), _packed(list(states))))
        for state, n in Counter(states.values()).items():
            count(db, state, -n)
            count(db, State.PENDING, n)
    return len(states)


_REPLAYABLE = """
    SELECT json_group_array(json_array(e.seq, e.state)) FROM entry AS e JOIN delivery AS d ON d.seq = e.seq
    WHERE e.seq IN (SELECT value FROM json_each(?)) AND e.due IS NULL AND d.body IS NOT NULL
"""
_REPLAY = """
    UPDATE entry SET state = 'pending', due = ?, attempts = 0, replays = replays + 1, generation = generation + ?
    WHERE seq IN (SELECT value FROM json_each(?))
"""


def prune(db: sqlite3.Connection, *, bodies: int, ids: int, limit: int, now: int) -> int:
    """As `Journal.prune`. What is pending is stepped over, however old: it keeps nothing behind it from being forgotten."""
    old_bodies = _packed(all_in_one(db, _OLD_BODIES, now - bodies, limit))
    old_ids = _packed(all_in_one(db, _OLD_IDS, now - ids, limit))
    if old_bodies == old_ids == "[]":
        return 0
    with transaction(db):
        # Asked once more under the lock: it may have been replayed meanwhile.
        purged = db.execute(_PURGE, (_packed([seq for seq, _ in all_in_one(db, _FINISHED, old_bodies)]),)).rowcount
        states = dict(all_in_one(db, _FINISHED, old_ids))
        forgotten = (_packed(list(states)),)
        db.execute("DELETE FROM delivery WHERE seq IN (SELECT value FROM json_each(?))", forgotten)
        db.execute("DELETE FROM entry WHERE seq IN (SELECT value FROM json_each(?))", forgotten)
        db.execute("DELETE FROM attempt WHERE seq IN (SELECT value FROM json_each(?))", forgotten)
        for state, n in Counter(states.values()).items():
            count(db, state, -n)
    return purged + len(states)


_OLD_BODIES = """
    SELECT json_group_array(seq) FROM (
        SELECT d.seq FROM delivery AS d INDEXED BY delivery_body CROSS JOIN entry AS e ON e.seq = d.seq
        WHERE d.body IS NOT NULL AND d.received_at < ? AND e.due IS NULL ORDER BY d.received_at LIMIT ?
    )
"""
_OLD_IDS = """
    SELECT json_group_array(seq) FROM (
        SELECT d.seq FROM delivery AS d INDEXED BY delivery_received CROSS JOIN entry AS e ON e.seq = d.seq
        WHERE d.received_at < ? AND e.due IS NULL ORDER BY d.received_at LIMIT ?
    )
"""
_FINISHED = """
    SELECT json_group_array(json_array(seq, state)) FROM entry
    WHERE seq IN (SELECT value FROM json_each(?)) AND due IS NULL
"""
_PURGE = "UPDATE delivery SET headers = NULL, body = NULL WHERE seq IN (SELECT value FROM json_each(?))"


def probe(db: sqlite3.Connection) -> None:
    """Store a little more than an append does: the smallest writes a page of each table and index, about 40 KiB."""
    with transaction(db):
        db.execute("INSERT OR REPLACE INTO probe VALUES (1, randomblob(65536))")


def bury(db: sqlite3.Connection, seqs: Sequence[int]) -> None:
    """Make pending entries dead, in the caller's transaction."""
    db.execute(
        "UPDATE entry SET state = 'dead', due = NULL WHERE seq IN (SELECT value FROM json_each(?))",
        (_packed(seqs),),
    )
    count(db, State.PENDING, -len(seqs))
    count(db, State.DEAD, len(seqs))


def count(db: sqlite3.Connection, state: str, n: int) -> None:
    """So many more entries are in this state. In the caller's transaction, so that the tally is always exact."""
    if n:
        db.execute("UPDATE tally SET n = n + ? WHERE state = ?", (n, str(state)))


def all_in_one(db: sqlite3.Connection, query: str, *parameters: object) -> list[Any]:
    """What a query of one JSON array finds."""
    (found,) = db.execute(query, parameters).fetchone()
    return list(json.loads(found))


def _packed(values: Sequence[object]) -> str:
    return orjson.dumps(values).decode()
