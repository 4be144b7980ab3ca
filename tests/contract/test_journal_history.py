"""What every journal promises of what is finished: replay, find, load, census, prune."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TypeAlias

import pytest

from bridge.journal import Census, Journal
from bridge.model import Attempt, Delivery, Entry, Outcome, Selection, Settlement, State

Make: TypeAlias = Callable[..., Delivery]

T0 = 1_767_225_600_000
LEASE = 60_000
OUTCOMES = {State.FORWARDED: Outcome.FORWARDED, State.SKIPPED: Outcome.SKIPPED, State.DEAD: Outcome.RAISED}


async def finish(journal: Journal, state: State = State.FORWARDED, *, limit: int = 1000, now: int = T0) -> list[Entry]:
    """Settles what is due, and gives it as it was claimed."""
    entries = list(await journal.claim(limit, now=now, lease=LEASE))
    attempt = Attempt(at=now, outcome=OUTCOMES[state])
    done = [Settlement(seq=entry.seq, token=entry.token, state=state, attempt=attempt) for entry in entries]
    assert await journal.settle(done) == len(entries)
    return entries


async def one_of_each_state(journal: Journal, make_delivery: Make) -> dict[State, Entry]:
    found = {}
    for state in OUTCOMES:
        await journal.append(make_delivery(state.value))
        [found[state]] = await finish(journal, state)
    await journal.append(make_delivery("pending"))
    [found[State.PENDING]] = await journal.claim(1, now=T0, lease=LEASE)
    return found


async def prune(journal: Journal, *, bodies_before: int = 0, ids_before: int = 0, limit: int = 1000) -> int:
    """Until there is nothing left to do."""
    steps = 0
    while touched := await journal.prune(bodies=T0 - bodies_before, ids=T0 - ids_before, now=T0, limit=limit):
        assert 0 < touched <= 2 * limit
        steps += 1
    return steps


async def names(
    journal: Journal, selection: Selection | None = None, *, limit: int = 100, oldest_first: bool = False
) -> list[str]:
    found = await journal.find(selection or Selection(), limit=limit, oldest_first=oldest_first)
    return [entry.id for entry in found]


async def counts(journal: Journal) -> tuple[int, ...]:
    """Pending, forwarded, skipped, dead."""
    census = await journal.census()
    assert set(census.counts) == set(State)
    return tuple(census.counts[state] for state in (State.PENDING, State.FORWARDED, State.SKIPPED, State.DEAD))


@pytest.mark.parametrize("state", list(OUTCOMES))
async def test_a_replay_makes_what_is_finished_due_again(journal: Journal, delivery: Delivery, state: State) -> None:
    await journal.append(delivery)
    [entry] = await finish(journal, state)
    assert await journal.replay([entry.seq], now=T0 + 5) == 1
    assert not await journal.claim(1, now=T0 + 4, lease=LEASE)
    [again] = await journal.claim(1, now=T0 + 5, lease=LEASE)
    assert again == replace(entry, due=T0 + 5 + LEASE, token=again.token, replays=1)
    assert again.token != entry.token
    assert len(await journal.attempts(entry.seq)) == 1


async def test_attempts_of_every_replay_are_kept_and_counted_anew(journal: Journal, delivery: Delivery) -> None:
    await journal.append(delivery)
    for n in range(3):
        [entry] = await finish(journal, State.DEAD, now=T0 + n)
        assert (entry.attempts, entry.replays) == (0, n)
        assert await journal.replay([entry.seq], now=T0) == 1
    assert [attempt.at for attempt in await journal.attempts(entry.seq)] == [T0, T0 + 1, T0 + 2]


async def test_only_a_replay_with_new_ids_begins_a_generation(journal: Journal, delivery: Delivery) -> None:
    await journal.append(delivery)
    generations = []
    for new_ids in (True, False, True):
        [entry] = await finish(journal)
        assert await journal.replay([entry.seq], now=T0, new_ids=new_ids) == 1
        [entry] = await journal.find(Selection(), limit=1)
        generations.append((entry.replays, entry.generation))
    assert generations == [(1, 1), (2, 1), (3, 2)]


async def test_a_replay_leaves_alone_what_is_pending_purged_or_unknown(journal: Journal, make_delivery: Make) -> None:
    await journal.append(make_delivery("purged", received_at=T0 - 1))
    [purged] = await finish(journal)
    await prune(journal, bodies_before=T0)
    found = await one_of_each_state(journal, make_delivery)
    asked = [purged.seq, 10**9, *(entry.seq for entry in found.values()), found[State.DEAD].seq]
    assert await journal.replay(asked, now=T0) == 3
    assert await journal.load(found[State.PENDING].seq) == found[State.PENDING]
    assert await journal.replay([], now=T0) == 0
    assert await counts(journal) == (4, 1, 0, 0)


async def test_what_is_replayed_many_at_once_keeps_its_order(journal: Journal, make_delivery: Make) -> None:
    for n in range(300):
        await journal.append(make_delivery(f"{n}"))
    entries = await finish(journal)
    assert await journal.replay([entry.seq for entry in reversed(entries)], now=T0) == 300
    assert [entry.id for entry in await finish(journal)] == [f"{n}" for n in range(300)]


async def test_the_census_is_exact_after_every_step(journal: Journal, make_delivery: Make) -> None:
    assert await journal.census() == Census(counts=dict.fromkeys(State, 0), oldest_pending=None, oldest_due=None)
    found = await one_of_each_state(journal, make_delivery)
    assert await counts(journal) == (1, 1, 1, 1)
    await journal.append(make_delivery("dead"))
    await journal.append(make_delivery("faulty", fault="no JSON", received_at=T0 + 1))
    assert await counts(journal) == (1, 1, 1, 2)
    await journal.replay([found[State.DEAD].seq, found[State.SKIPPED].seq], now=T0)
    assert await counts(journal) == (3, 1, 0, 1)
    await prune(journal, ids_before=T0 + 1)
    assert await counts(journal) == (3, 0, 0, 1)


async def test_the_oldest_pending_is_the_first_that_arrived(journal: Journal, make_delivery: Make) -> None:
    for n in range(3):
        await journal.append(make_delivery(f"{n}", received_at=T0 + n))
    for n in range(3):
        assert (await journal.census()).oldest_pending == T0 + n
        [entry] = await finish(journal, limit=1, now=T0 + 9)
    assert (await journal.census()).oldest_pending is None
    await journal.replay([entry.seq], now=T0 + 1000)
    assert (await journal.census()).oldest_pending == T0 + 2


async def test_find_goes_from_the_newest_back(journal: Journal, make_delivery: Make) -> None:
    for n in range(5):
        await journal.append(make_delivery(f"{n}"))
    assert await names(journal) == ["4", "3", "2", "1", "0"]
    assert await names(journal, limit=2) == ["4", "3"]
    assert await names(journal, oldest_first=True, limit=2) == ["0", "1"]


@pytest.mark.parametrize("oldest_first", [False, True])
async def test_find_goes_on_behind_an_entry(journal: Journal, make_delivery: Make, *, oldest_first: bool) -> None:
    for n in range(7):
        await journal.append(make_delivery(f"{n}", source="even" if n % 2 == 0 else "odd"))
    pages, beyond = [], None
    while page := await journal.find(Selection(source="even"), limit=3, beyond=beyond, oldest_first=oldest_first):
        pages.append([entry.id for entry in page])
        beyond = page[-1].seq
    assert pages == ([["0", "2", "4"], ["6"]] if oldest_first else [["6", "4", "2"], ["0"]])


async def test_find_gives_neither_bodies_nor_headers(journal: Journal, delivery: Delivery) -> None:
    await journal.append(delivery)
    [entry] = await journal.find(Selection(), limit=1)
    assert (entry.headers, entry.body, entry.size) == (None, None, 14)
    assert await journal.load(entry.seq) == replace(entry, headers=delivery.headers, body=delivery.body)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(id="c"), "c"),
        (Selection(id="nobody"), ""),
        (Selection(id="\udcff"), ""),
        (Selection(source="slack"), "bd"),
        (Selection(type="message"), "b"),
        (Selection(state=State.PENDING), "d"),
        (Selection(state=State.FORWARDED), "b"),
        (Selection(state=State.SKIPPED), ""),
        (Selection(state=State.DEAD), "ac"),
        (Selection(since=T0 + 1), "bcd"),
        (Selection(until=T0 + 1), "a"),
        (Selection(since=T0 + 1, until=T0 + 3), "bc"),
        (Selection(source="stripe", state=State.DEAD, since=T0 + 1), "c"),
        (Selection(id="b", source="stripe"), ""),
    ],
)
async def test_find_finds_what_was_asked_for(
    journal: Journal, make_delivery: Make, selection: Selection, expected: str
) -> None:
    await journal.append(make_delivery("a", fault="no JSON", type=""))
    await journal.append(make_delivery("b", received_at=T0 + 1, source="slack", type="message"))
    await finish(journal, now=T0 + 1)
    await journal.append(make_delivery("c", received_at=T0 + 2))
    await finish(journal, State.DEAD, now=T0 + 2)
    await journal.append(make_delivery("d", received_at=T0 + 3, source="slack"))
    assert await names(journal, selection, oldest_first=True) == list(expected)
    assert await names(journal, selection) == list(reversed(expected))


async def test_find_goes_by_the_time_of_receipt_where_the_order_of_arrival_is_another(
    journal: Journal, make_delivery: Make
) -> None:
    for name, offset in zip("abcde", [5, 0, 5, 2, 6], strict=True):
        await journal.append(make_delivery(name, received_at=T0 + offset))
    assert await names(journal, Selection(since=T0 + 2)) == ["e", "d", "c", "a"]
    assert await names(journal, Selection(until=T0 + 5)) == ["d", "b"]
    assert await names(journal, Selection(since=T0 + 3, until=T0 + 5)) == []


async def test_what_is_not_there_is_not_loaded(journal: Journal) -> None:
    assert await journal.load(7) is None
    assert list(await journal.attempts(7)) == []


async def test_a_purged_body_leaves_an_id_that_is_still_known(journal: Journal, make_delivery: Make) -> None:
    for n, name in enumerate(["old", "new"]):
        await journal.append(make_delivery(name, received_at=T0 + n))
    old, new = await finish(journal, now=T0 + 1)
    assert await prune(journal, bodies_before=T0 + 1) == 1
    purged = await journal.load(old.seq)
    assert purged is not None and (purged.headers, purged.body, purged.size) == (None, None, 14)
    kept = await journal.load(new.seq)
    assert kept is not None and kept.body == new.body
    assert not await journal.append(make_delivery("old"))
    assert await counts(journal) == (0, 2, 0, 0)


async def test_a_forgotten_id_is_new_again_and_leaves_nothing(journal: Journal, make_delivery: Make) -> None:
    for n, name in enumerate(["old", "new"]):
        await journal.append(make_delivery(name, received_at=T0 + n))
    old, _ = await finish(journal, now=T0 + 1)
    assert await prune(journal, bodies_before=T0 + 1, ids_before=T0 + 1) == 1
    assert await names(journal) == ["new"]
    assert list(await journal.attempts(old.seq)) == []
    assert await counts(journal) == (0, 1, 0, 0)
    assert await journal.append(make_delivery("old"))
    [entry] = await journal.claim(9, now=T0, lease=LEASE)
    assert entry.seq > old.seq and entry.attempts == 0


async def test_a_seq_is_never_given_twice(journal: Journal, make_delivery: Make) -> None:
    seqs: list[int] = []
    for n in range(3):
        await journal.append(make_delivery(f"{n}"))
        seqs += [entry.seq for entry in await finish(journal)]
        await prune(journal, ids_before=T0 + 1)
    assert seqs == sorted(set(seqs))


async def test_what_is_pending_is_never_pruned_and_blocks_nothing(journal: Journal, make_delivery: Make) -> None:
    found = await one_of_each_state(journal, make_delivery)
    await journal.append(make_delivery("waiting"))
    for n in range(20):
        await journal.append(make_delivery(f"{n}", fault="no JSON"))
    assert await prune(journal, bodies_before=T0 + 1, ids_before=T0 + 1, limit=1) >= 23
    assert await names(journal, oldest_first=True) == ["pending", "waiting"]
    assert await journal.load(found[State.PENDING].seq) == found[State.PENDING]
    assert await counts(journal) == (2, 0, 0, 0)


async def test_bodies_behind_one_that_is_pending_are_purged(journal: Journal, make_delivery: Make) -> None:
    await journal.append(make_delivery("pending"))
    for n in range(3):
        await journal.append(make_delivery(f"{n}", fault="no JSON"))
    assert await prune(journal, bodies_before=T0 + 1, limit=1) == 3
    loaded = [await journal.load(entry.seq) for entry in await journal.find(Selection(), limit=9, oldest_first=True)]
    assert [entry is not None and entry.body is not None for entry in loaded] == [True, False, False, False]


async def test_pruning_goes_in_steps_of_the_limit(journal: Journal, make_delivery: Make) -> None:
    for n in range(10):
        await journal.append(make_delivery(f"{n}"))
    await finish(journal)
    assert await journal.prune(bodies=0, ids=T0 + 1, now=T0 + 1, limit=4) == 4
    assert await journal.prune(bodies=0, ids=T0 + 1, now=T0 + 1, limit=100) == 6
    assert await journal.prune(bodies=0, ids=0, now=T0 + 1, limit=4) == 4
    assert await names(journal, oldest_first=True) == [f"{n}" for n in range(4, 10)]


async def test_what_is_new_is_not_pruned(journal: Journal, make_delivery: Make) -> None:
    found = await one_of_each_state(journal, make_delivery)
    assert await journal.prune(bodies=0, ids=0, now=T0, limit=100) == 0
    for entry in found.values():
        loaded = await journal.load(entry.seq)
        assert loaded is not None and loaded.body is not None


async def test_the_longest_id_there_can_be_is_stored_and_known_again(journal: Journal, make_delivery: Make) -> None:
    random = Random(0)
    delivery = make_delivery("".join(chr(random.randrange(0x10000, 0x20000)) for _ in range(255)), source="s" * 64)
    assert await journal.append(delivery)
    assert not await journal.append(delivery)
    assert await names(journal) == [delivery.id]
