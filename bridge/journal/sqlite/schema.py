"""The tables of the SQLite journal, as the numbered steps that lead to them.

A step that was ever released is never changed: a later one mends it. `PRAGMA user_version` counts the steps a file has had.
"""

from __future__ import annotations

_FIRST = (
    # Written once, by append; prune alone sets headers and body to NULL. The small columns come first: what only reads
    # those never touches the pages a long body overflows into.
    # AUTOINCREMENT: a seq is never given twice, also after the newest row was pruned.
    """
    CREATE TABLE delivery (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        source TEXT NOT NULL,
        id TEXT NOT NULL,
        provider TEXT NOT NULL,
        prefix TEXT NOT NULL,
        type TEXT NOT NULL,
        occurred_at INTEGER NOT NULL,
        received_at INTEGER NOT NULL,
        size INTEGER NOT NULL,
        headers TEXT,
        body BLOB,
        UNIQUE (id, source)  -- the id first: a person who looks for one knows it, and seldom the source
    )
    """,
    # For find by time, and for prune: the oldest that are still here, the oldest that still have a body.
    "CREATE INDEX delivery_received ON delivery (received_at)",
    "CREATE INDEX delivery_body ON delivery (received_at) WHERE body IS NOT NULL",
    # What changes. due IS NULL: finished. token <> '': claimed.
    """
    CREATE TABLE entry (
        seq INTEGER PRIMARY KEY,
        state TEXT NOT NULL,
        due INTEGER,
        token TEXT NOT NULL DEFAULT '',
        attempts INTEGER NOT NULL DEFAULT 0,
        replays INTEGER NOT NULL DEFAULT 0,
        generation INTEGER NOT NULL DEFAULT 0
    )
    """,
    # Holds the pending alone, in the order of claims: ten million finished rows behind it cost a claim nothing.
    "CREATE INDEX entry_due ON entry (due) WHERE due IS NOT NULL",
    # The oldest pending, and what a person asks for. Untouched by claims; the forwarded, nearly all, are not in it.
    "CREATE INDEX entry_state ON entry (state) WHERE state <> 'forwarded'",
    """
    CREATE TABLE attempt (
        seq INTEGER NOT NULL,
        n INTEGER NOT NULL,
        at INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        error TEXT NOT NULL,
        events INTEGER NOT NULL,
        PRIMARY KEY (seq, n)
    ) WITHOUT ROWID
    """,
    # The newest 100 of each entry.
    """
    CREATE TRIGGER attempt_newest AFTER INSERT ON attempt WHEN NEW.n > 100
    BEGIN
        DELETE FROM attempt WHERE seq = NEW.seq AND n <= NEW.n - 100;
    END
    """,
    # How many entries are in each state, kept in the transactions that move them: nobody has to count.
    "CREATE TABLE tally (state TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO tally VALUES ('pending', 0), ('forwarded', 0), ('skipped', 0), ('dead', 0)",
    # One row, replaced by every check.
    "CREATE TABLE probe (seq INTEGER PRIMARY KEY, noise BLOB NOT NULL)",
)

_SECOND = (
    # Whatever is stored is to be forwarded: so that to store it takes one statement.
    """
    CREATE TRIGGER delivery_pending AFTER INSERT ON delivery
    BEGIN
        INSERT INTO entry (seq, state, due) VALUES (NEW.seq, 'pending', NEW.received_at);
        UPDATE tally SET n = n + 1 WHERE state = 'pending';
    END
    """,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _SECOND)
