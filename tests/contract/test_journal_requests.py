"""Whatever was let in, any journal stores it and gives it back as it was: half pairs of surrogates, NUL, depth, huge numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strange import HEADER, bodies
from test_journal_model import UNSHRUNK

from bridge import providers
from bridge.journal import Journal
from bridge.model import Delivery, Entry, Selection, State
from fuzz import promises, seeds
from fuzz.subjects import subjects

_sources = (f"source-{number}" for number in count())


async def stored(journal: Journal, deliveries: Sequence[Delivery]) -> None:
    """All at once, as one batch, under the name of a source that nothing else has."""
    source = next(_sources)
    named = {each.id: replace(each, source=source) for each in deliveries}
    assert all(await asyncio.gather(*map(journal.append, named.values())))
    found = {entry.id: entry for entry in await journal.find(Selection(source=source), limit=1000)}
    assert set(found) == set(named)
    for id_, delivery in named.items():
        entry = await journal.load(found[id_].seq)
        assert entry is not None
        assert entry.state is (State.DEAD if delivery.fault else State.PENDING)
        assert as_it_came(entry) == as_it_came(Entry.of(delivery))
        assert [attempt.error for attempt in await journal.attempts(entry.seq)] == [delivery.fault] * bool(
            delivery.fault
        )


def as_it_came(entry: Entry) -> Entry:
    return replace(entry, seq=0, state=State.PENDING, due=None, attempts=0)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], phases=UNSHRUNK)
@given(data=st.data())
async def test_any_request_that_was_let_in_comes_back_as_it_was(journal: Journal, data: st.DataObject) -> None:
    deliveries = []
    for name in data.draw(st.lists(st.sampled_from([*providers.load()]), min_size=1, max_size=6)):
        provider = subjects()[name]
        right = promises.signed(provider, data.draw(bodies(name)))
        # Stripe's header may say more than is looked at, and a kept one that signs nothing may say anything.
        junk = data.draw(HEADER).replace("\0", "")
        more = {"content-type": junk} | {header: f"{value},x={junk}" for header, value in right.headers.items()}
        for headers in ({**right.headers, "content-type": junk}, more):
            found = promises.verdict(provider, replace(right, headers=headers))
            if isinstance(found, Delivery):
                deliveries.append(found)
    await stored(journal, deliveries)


async def test_samples_and_the_oddest_bodies_come_back_as_they_were(journal: Journal) -> None:
    for name, provider in providers.load().items():
        sent = [promises.signed(provider, body) for body in (*seeds.recorded(name), *seeds.ODD)]
        found = [promises.verdict(provider, request) for request in sent]
        deliveries = [each for each in found if isinstance(each, Delivery)]
        assert len(deliveries) > len(seeds.ODD)
        await stored(journal, deliveries)
