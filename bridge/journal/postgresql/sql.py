"""Pieces that several statements of the PostgreSQL journal are made of."""

from __future__ import annotations

# The clock of all who share the journal, in ms. Not now(): a transaction may have waited since it began.
NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
# `now` is an argument in tests.
CLOCK = f"clock AS MATERIALIZED (SELECT coalesce(%(now)b::bigint, {NOW}) AS now)"

# Rows of the tally: each session has one to count in, so that few wait for each other. As many as the schema has made.
SLOTS = 256
SLOT = f"mod(pg_backend_pid(), {SLOTS})"
# Keeps the tally, of the rows of `moved`: the state each entry had before, and the one it has after; NULL: none. Before
# whatever else a statement changes unasked, for PostgreSQL takes those from the last to the first: the slot is locked until
# the commit, and whoever shares it waits. An update even of nothing to count: a repetition is acknowledged by a commit of
# its own, behind that of the delivery it repeats.
COUNTED = f"""
    counted AS (
        UPDATE bridge_tally AS t SET pending = t.pending + n.pending, forwarded = t.forwarded + n.forwarded,
            skipped = t.skipped + n.skipped, dead = t.dead + n.dead
        FROM (
            SELECT
                count(*) FILTER (WHERE after = 'pending') - count(*) FILTER (WHERE before = 'pending') AS pending,
                count(*) FILTER (WHERE after = 'forwarded') - count(*) FILTER (WHERE before = 'forwarded') AS forwarded,
                count(*) FILTER (WHERE after = 'skipped') - count(*) FILTER (WHERE before = 'skipped') AS skipped,
                count(*) FILTER (WHERE after = 'dead') - count(*) FILTER (WHERE before = 'dead') AS dead
            FROM moved
        ) AS n
        WHERE t.slot = {SLOT}
    )
"""  # noqa: S608 - our own text

# What may be lost with the last moments of a server that loses power: it is then forwarded again, with the same ids. In
# the statement itself, so that no connection is left in that mode.
QUICK = "set_config('synchronous_commit', 'off', true)"

# For each session, whatever its user or database is set to. Plans are made once, and for large tables also while they are
# small: every statement has an index to go by, and the statistics of a new table would lead elsewhere until it is analyzed.
# What waits for a lock has to see what was done meanwhile. A process that stands still must not keep what others need. And
# what is acknowledged is on a disk at least, also where others do without.
SESSION = """
    SELECT set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),
        set_config('jit', 'off', false), set_config('default_transaction_isolation', 'read committed', false),
        set_config('idle_in_transaction_session_timeout', '5s', false),
        set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), false)
"""

# The advisory locks that are held in this database, in pg_locks.
HELD = "locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
# The two numbers of the lock that all who claim share: the second is the journal's own, for a database may have several.
WORK, JOURNAL = 25186, "'bridge_pending'::regclass::oid"

# A transaction that only tells: it is not synced.
RING = "SELECT pg_notify('bridge', '')"
LISTEN = "LISTEN bridge"
