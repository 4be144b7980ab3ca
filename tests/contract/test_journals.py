"""What every journal promises while a delivery is on its way: append, claim, settle, recover."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias

import pytest

from bridge.journal import Journal
from bridge.model import Attempt, Delivery, Entry, Outcome, Selection, Settlement, State

Make: TypeAlias = Callable[..., Delivery]
Open: TypeAlias = Callable[[], Awaitable[Journal]]

T0 = 1_767_225_600_000
LEASE = 60_000
DONE = Attempt(at=T0, outcome=Outcome.FORWARDED, events=1)
FAILED = Attempt(at=T0, outcome=Outcome.RAISED, error="ValueError: no\n  at line 1")


def settled(entry: Entry, state: State = State.FORWARDED) -> Settlement:
    return Settlement(seq=entry.seq, token=entry.token, state=state, attempt=DONE)


def tried(entry: Entry, wait: int, attempt: Attempt = FAILED) -> Settlement:
    return Settlement(seq=entry.seq, token=entry.token, state=State.PENDING, wait=wait, attempt=attempt)


def given_back(entry: Entry, wait: int) -> Settlement:
    return Settlement(seq=entry.seq, token=entry.token, state=State.PENDING, wait=wait)


async def ids(journal: Journal, limit: int = 100, *, now: int = T0) -> list[str]:
    return [entry.id for entry in await journal.claim(limit, now=now, lease=LEASE)]


async def test_what_was_appended_is_claimed_as_it_was(journal: Journal, delivery: Delivery) -> None:
    assert await journal.append(delivery)
    [entry] = await journal.claim(10, now=T0, lease=LEASE)
    assert entry.token
    assert entry == Entry(
        seq=entry.seq,
        source="stripe",
        provider="stripe",
        prefix="stripe",
        id="evt_1",
        type="customer.created",
        occurred_at=T0 - 1500,
        received_at=T0,
        size=14,
        headers=delivery.headers,
        body=delivery.body,
        state=State.PENDING,
        due=T0 + LEASE,
        token=entry.token,
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"\0", b"a\0b", b"\xff\xfe\x80", bytes(range(256)), b" {}\r\n", b"\x00\xff" * (1 << 19)],
    ids=["empty", "nul", "nul inside", "not utf-8", "every byte", "white space", "1 MiB"],
)
async def test_a_body_comes_back_byte_for_byte(journal: Journal, make_delivery: Make, body: bytes) -> None:
    await journal.append(make_delivery(body=body))
    [entry] = await journal.claim(1, now=T0, lease=LEASE)
    assert (entry.body, entry.size) == (body, len(body))
    loaded = await journal.load(entry.seq)
    assert loaded is not None and loaded.body == body


@pytest.mark.parametrize(
    "headers",
    [{}, {"a": ""}, {"a": 'é "\\ 😀', "b": "\udcff\udc80"}, {"a": "\0\x01\x7f"}, {"a" * 500: "b" * 9000}],
    ids=["none", "empty", "odd text", "control characters", "long"],
)
async def test_headers_come_back_as_they_were(journal: Journal, make_delivery: Make, headers: dict[str, str]) -> None:
    await journal.append(make_delivery(headers=headers))
    [entry] = await journal.claim(1, now=T0, lease=LEASE)
    assert entry.headers == headers


async def test_text_that_no_database_takes_spoils_nothing(journal: Journal, make_delivery: Make) -> None:
    odd = [make_delivery("nul\0", type="\udcff"), make_delivery("surrogate\udcff", fault="\udcff\0")]
    batch = [*odd, make_delivery()]
    assert await asyncio.gather(*map(journal.append, batch)) == [True, True, True]
    assert await asyncio.gather(*map(journal.append, batch)) == [False, False, False]


async def test_the_same_id_again_changes_nothing(journal: Journal, make_delivery: Make) -> None:
    assert await journal.append(make_delivery())
    assert not await journal.append(make_delivery(body=b"another", received_at=T0 + 5, type="another", fault="x"))
    [entry] = await journal.claim(10, now=T0 + 9, lease=LEASE)
    assert (entry.body, entry.type, entry.received_at) == (b'{"id":"evt_1"}', "customer.created", T0)


async def test_the_same_id_of_another_source_is_another_delivery(journal: Journal, make_delivery: Make) -> None:
    assert await journal.append(make_delivery())
    assert await journal.append(make_delivery(source="stripe-eu"))
    assert len(await ids(journal)) == 2


async def test_of_the_same_deliveries_at_once_one_is_new(journal: Journal, make_delivery: Make) -> None:
    names = ["a", "b", "a", "c", "a", "b"] * 20
    new = await asyncio.gather(*(journal.append(make_delivery(name)) for name in names))
    assert new == [True, True, False, True] + [False] * 116
    assert await ids(journal) == ["a", "b", "c"]


async def test_new_deliveries_among_duplicates_are_told_apart(journal: Journal, make_delivery: Make) -> None:
    await journal.append(make_delivery("old"))
    new = await asyncio.gather(*(journal.append(make_delivery(name)) for name in ["1", "old", "2", "1", "3"]))
    assert new == [True, False, True, False, True]
    assert await ids(journal) == ["old", "1", "2", "3"]


async def test_the_same_delivery_through_two_journals_is_new_once(open_journal: Open, make_delivery: Make) -> None:
    first, second = await open_journal(), await open_journal()
    new = await asyncio.gather(*(each.append(make_delivery(str(n))) for n in range(50) for each in (first, second)))
    assert [a + b for a, b in zip(new[::2], new[1::2], strict=True)] == [1] * 50


async def test_what_was_appended_is_there_when_the_journal_is_opened_again(
    open_journal: Open, delivery: Delivery
) -> None:
    journal = await open_journal()
    await journal.append(delivery)
    await journal.close()
    assert await ids(await open_journal()) == ["evt_1"]


async def test_a_delivery_with_a_fault_is_dead_with_the_reason(journal: Journal, make_delivery: Make) -> None:
    whole, faulty = make_delivery("whole"), make_delivery("faulty", type="", fault="the body is not JSON")
    assert await asyncio.gather(*map(journal.append, [whole, faulty, whole, faulty])) == [True, True, False, False]
    assert await ids(journal) == ["whole"]
    [entry] = await journal.find(Selection(state=State.DEAD), limit=10)
    assert (entry.id, entry.due, entry.attempts) == ("faulty", None, 1)
    why = Attempt(at=T0, outcome=Outcome.UNUSABLE, error="the body is not JSON")
    assert list(await journal.attempts(entry.seq)) == [why]
    assert (await journal.census()).counts == {"pending": 1, "forwarded": 0, "skipped": 0, "dead": 1}


async def test_nothing_is_claimed_before_it_is_due(journal: Journal, delivery: Delivery) -> None:
    await journal.append(delivery)
    await journal.settle([given_back(entry, 1000) for entry in await journal.claim(1, now=T0, lease=LEASE)], now=T0)
    assert [await ids(journal, now=T0 + after) for after in (999, 1000)] == [[], [delivery.id]]


async def test_a_claim_is_alone_until_its_lease_ends(journal: Journal, delivery: Delivery) -> None:
    await journal.append(delivery)
    [first] = await journal.claim(10, now=T0, lease=LEASE)
    assert not await journal.claim(10, now=T0 + LEASE - 1, lease=LEASE)
    [second] = await journal.claim(10, now=T0 + LEASE, lease=LEASE)
    assert second == replace(first, due=T0 + 2 * LEASE, token=second.token)
    assert second.token not in {"", first.token}


async def test_a_claim_that_was_lost_settles_nothing(journal: Journal, make_delivery: Make) -> None:
    await journal.append(make_delivery("lost"))
    [lost] = await journal.claim(1, now=T0, lease=LEASE)
    [held] = await journal.claim(1, now=T0 + LEASE, lease=LEASE)
    await journal.append(make_delivery("other", received_at=T0 + LEASE))
    [other] = await journal.claim(1, now=T0 + LEASE, lease=LEASE)
    assert await journal.settle([settled(lost, State.DEAD), settled(other)]) == 1
    assert list(await journal.attempts(lost.seq)) == []
    assert await journal.load(lost.seq) == held
    assert await journal.settle([settled(held)]) == 1
    assert await journal.settle([settled(held)]) == 0
    assert (await journal.census()).counts == {"pending": 0, "forwarded": 2, "skipped": 0, "dead": 0}


async def test_nobody_settles_what_was_never_claimed(journal: Journal, delivery: Delivery) -> None:
    await journal.append(delivery)
    [entry] = await journal.find(Selection(), limit=1)
    assert await journal.settle([settled(entry), replace(settled(entry), seq=entry.seq + 7)]) == 0
    assert await journal.settle([]) == 0
    assert await journal.load(entry.seq) == replace(entry, headers=delivery.headers, body=delivery.body)


async def test_of_two_settlements_of_one_claim_the_first_counts(journal: Journal, delivery: Delivery) -> None:
    await journal.append(delivery)
    [entry] = await journal.claim(1, now=T0, lease=LEASE)
    assert await journal.settle([settled(entry, State.SKIPPED), settled(entry, State.DEAD)]) == 1
    assert len(await journal.attempts(entry.seq)) == 1
    assert (await journal.census()).counts == {"pending": 0, "forwarded": 0, "skipped": 1, "dead": 0}


@pytest.mark.parametrize("state", [State.FORWARDED, State.SKIPPED, State.DEAD])
async def test_what_is_finished_is_never_due_again(journal: Journal, delivery: Delivery, state: State) -> None:
    await journal.append(delivery)
    [entry] = await journal.claim(1, now=T0, lease=LEASE)
    assert await journal.settle([settled(entry, state)]) == 1
    assert not await journal.claim(1, now=T0 + 1000 * LEASE, lease=LEASE)
    assert await journal.load(entry.seq) == replace(entry, state=state, due=None, token="", attempts=1)


async def test_a_retry_is_due_later_and_its_attempt_is_kept(journal: Journal, delivery: Delivery) -> None:
    await journal.append(delivery)
    [entry] = await journal.claim(1, now=T0, lease=LEASE)
    assert await journal.settle([tried(entry, 1000)], now=T0) == 1
    assert not await journal.claim(1, now=T0 + 999, lease=LEASE)
    [again] = await journal.claim(1, now=T0 + 1000, lease=LEASE)
    assert (again.attempts, list(await journal.attempts(entry.seq))) == (1, [FAILED])
    await journal.settle([settled(again)])
    assert list(await journal.attempts(entry.seq)) == [FAILED, DONE]


async def test_giving_back_counts_no_attempt(journal: Journal, delivery: Delivery) -> None:
    await journal.append(delivery)
    [entry] = await journal.claim(1, now=T0, lease=LEASE)
    assert await journal.settle([given_back(entry, 5)], now=T0) == 1
    assert await journal.load(entry.seq) == replace(entry, due=T0 + 5, token="")
    assert list(await journal.attempts(entry.seq)) == []


@pytest.mark.parametrize(
    "change",
    [{"state": "lost"}, {"wait": 0}, {"state": State.PENDING}, {"attempt": None}],
    ids=["no state", "finished but to be tried again", "pending but not to be tried again", "finished but not tried"],
)
async def test_a_settlement_that_makes_no_sense_is_refused(
    journal: Journal, make_delivery: Make, change: dict[str, Any]
) -> None:
    await asyncio.gather(*(journal.append(make_delivery(name)) for name in "ab"))
    a, b = await journal.claim(2, now=T0, lease=LEASE)
    with pytest.raises(ValueError, match=r"claim|wait|tried"):
        await journal.settle([settled(a), replace(settled(b), **change)])
    assert await journal.load(a.seq) == a


async def test_only_the_newest_hundred_attempts_are_kept(journal: Journal, delivery: Delivery) -> None:
    await journal.append(delivery)
    for n in range(105):
        [entry] = await journal.claim(1, now=T0, lease=LEASE)
        await journal.settle([tried(entry, 0, Attempt(at=n, outcome=Outcome.POSTPONED))], now=T0)
        assert [attempt.at for attempt in await journal.attempts(entry.seq)] == list(range(max(0, n - 99), n + 1))
    [entry] = await journal.find(Selection(), limit=1)
    assert entry.attempts == 105


@pytest.mark.parametrize("quoted", ["\0", "\udcff", 'é 😀 "\\ \n'])
async def test_an_error_stays_readable_whatever_it_quotes(journal: Journal, delivery: Delivery, quoted: str) -> None:
    await journal.append(delivery)
    [entry] = await journal.claim(1, now=T0, lease=LEASE)
    await journal.settle(
        [tried(entry, 0, Attempt(at=T0, outcome=Outcome.RAISED, error=f"before {quoted} after"))], now=T0
    )
    [kept] = await journal.attempts(entry.seq)
    assert kept.error.startswith("before ") and kept.error.endswith(" after")
    assert quoted in kept.error or not quoted.isprintable()


async def test_the_longest_due_goes_first(journal: Journal, make_delivery: Make) -> None:
    for n, name in enumerate(["retried", "b", "c"]):
        await journal.append(make_delivery(name, received_at=T0 + n))
    [entry] = await journal.claim(1, now=T0, lease=LEASE)
    await journal.settle([tried(entry, 2)], now=T0)
    assert await ids(journal, 1, now=T0 + 9) == ["b"]
    assert await ids(journal, 9, now=T0 + 9) == ["retried", "c"]


async def test_what_is_due_at_once_goes_in_the_order_of_arrival(journal: Journal, make_delivery: Make) -> None:
    names = [f"{n * 37 % 50}" for n in range(50)]
    await asyncio.gather(*(journal.append(make_delivery(name)) for name in names))
    assert await ids(journal, 20) + await ids(journal, 50) == names


async def test_a_claim_takes_few_large_bodies_but_one_at_least(journal: Journal, make_delivery: Make) -> None:
    for name, size in [("huge", 5 << 20), ("a", 2 << 20), ("b", 2 << 20), ("c", 1)]:
        await journal.append(make_delivery(name, body=b"x" * size))
    assert await ids(journal) == ["huge"]
    assert await ids(journal) == ["a", "b"]
    assert await ids(journal) == ["c"]


async def test_claims_of_a_journal_that_is_gone_are_recovered(open_journal: Open, make_delivery: Make) -> None:
    gone = await open_journal()
    for name in "abc":
        await gone.append(make_delivery(name))
    [a, _] = await gone.claim(2, now=T0, lease=LEASE)
    await gone.settle([settled(a)])
    await gone.close()
    journal = await open_journal()
    assert await journal.recover() == 1
    assert await journal.recover() == 0
    assert await ids(journal) == ["b", "c"]


async def test_a_recovered_claim_settles_nothing(open_journal: Open, delivery: Delivery) -> None:
    gone = await open_journal()
    await gone.append(delivery)
    [entry] = await gone.claim(1, now=T0, lease=LEASE)
    await gone.close()
    journal = await open_journal()
    await journal.recover()
    assert await journal.settle([settled(entry)]) == 0
    assert await ids(journal) == ["evt_1"]
