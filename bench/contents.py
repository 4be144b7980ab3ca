"""What is in a journal before it is measured."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import psycopg

from bench import load
from bridge import journal as journals
from bridge.clock import wall_clock
from bridge.journal import Journal
from bridge.model import Attempt, Delivery, Outcome, Settlement, State

T0 = 1_767_225_600_000
LEASE = 60_000


def delivery(number: int, received_at: int = T0) -> Delivery:
    """As those that are sent."""
    return Delivery(
        source="stripe",
        provider="stripe",
        prefix="stripe",
        id=f"evt_{sha256(str(number).encode()).hexdigest()[:24]}",
        type="customer.created",
        occurred_at=received_at - 1000,
        received_at=received_at,
        headers={"stripe-signature": f"t=1767225600,v1={'0' * 64}"},
        body=load.body(f"evt_{number:024}"),
        payload={},
    )


async def fill(url: str, count: int, *, start: int = 10**9, at_once: int = 2000) -> None:
    """Pending deliveries, the last received now. `start`: of the numbers they have."""
    now = wall_clock()
    store = await journals.open(url)
    for first in range(0, count, at_once):
        some = range(first, min(first + at_once, count))
        await asyncio.gather(*(store.append(delivery(start + n, now - count + n)) for n in some))
    await store.close()


_AGE = """
    INSERT INTO bridge_delivery (seq, source, id, provider, prefix, type, occurred_at, received_at, size)
        SELECT n, 'stripe', 'evt_' || md5(n::text), 'stripe', 'stripe', 'customer.created', {t} + n, {t} + n, 100
        FROM generate_series(1, {count}) AS n;
    INSERT INTO bridge_content (received_at, seq, headers, body)
        SELECT {t} + n, n, '{{}}', convert_to(repeat('x', 100), 'UTF8') FROM generate_series(1, {count}) AS n;
    INSERT INTO bridge_finished (seq, attempts, tries, state)
        SELECT n, 1, 1, 'forwarded' FROM generate_series(1, {count}) AS n;
    INSERT INTO bridge_attempt (seq, n, at, outcome, error, events)
        SELECT n, 1, {t} + n, 'forwarded', '', 1 FROM generate_series(1, {count}) AS n;
    SELECT setval('bridge_seq', {count});
    UPDATE bridge_tally SET forwarded = {count} WHERE slot = 0;
    ANALYZE bridge_delivery, bridge_content, bridge_pending, bridge_finished, bridge_attempt
"""


def age(url: str, count: int) -> None:
    """So many settled entries, as they would be there after so many deliveries."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_AGE.format(t=T0, count=count).encode())


async def settle(store: Journal) -> None:
    """All that is pending."""
    done = Attempt(at=T0, outcome=Outcome.FORWARDED)
    while entries := await store.claim(500, lease=LEASE):
        await store.settle([Settlement(seq=e.seq, token=e.token, state=State.FORWARDED, attempt=done) for e in entries])
