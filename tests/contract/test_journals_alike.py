"""All journals, asked the same in the same order, whatever it is: every answer of one is that of the others."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from conftest import JOURNALS, is_receiving
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from test_journal_model import AGES, LEASE, SELECTIONS, SOURCES, T0, UNSHRUNK, given

from bridge import journal as journals
from bridge.journal import History, Journal
from bridge.model import Attempt, Delivery, Entry, Outcome, Selection, Settlement, State

T = TypeVar("T")

# Few, so that the same one is met again and again.
KEYS = st.tuples(SOURCES, st.sampled_from("abc"))
ATTEMPTS = st.builds(
    Attempt,
    at=st.integers(0, 99),
    outcome=st.sampled_from(Outcome),
    error=st.text(max_size=3),
    events=st.integers(0, 9),
)


def own(entry: Entry | None) -> Entry | None:
    """Less what is each journal's own: its numbers, and its words for who holds it."""
    return entry and replace(entry, seq=0, token=str(bool(entry.token)))


class Alike(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.places = [place(Path(self.folder.name)) for place in JOURNALS]
        self.urls = [self.run(place.__aenter__()) for place in self.places]
        self.journals = [self.run(journals.open(url, receiving=is_receiving(url))) for url in self.urls]
        self.now = T0
        self.known: set[tuple[str, str]] = set()
        # Every claim ever made, each as the journals tell it.
        self.claims: list[tuple[Entry, ...]] = []

    def run(self, answer: Awaitable[T]) -> T:
        async def waited() -> T:
            return await answer

        return self.loop.run_until_complete(waited())

    def all_say(
        self, ask: Callable[[Journal], Awaitable[T]], same: Callable[[T], object] = lambda told: told
    ) -> list[T]:
        """What each answers, which is the same."""
        told = [self.run(ask(journal)) for journal in self.journals]
        assert [same(each) for each in told] == [same(told[0])] * len(told)
        return told

    def seqs(self, keys: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Of these deliveries, in each journal; of one that is in none, a seq that is."""
        found = []
        for journal in self.journals:
            entries = self.run(journal.find(Selection(), limit=1000))
            places = {(entry.source, entry.id): entry.seq for entry in entries}
            found.append([places.get(key, 10**9) for key in keys])
        return found

    def delivery(self, key: tuple[str, str], fault: str = "", body: bytes = b"") -> Delivery:
        source, name = key
        return given(source, name, now=self.now, note=name, fault=fault, body=body)

    @rule(wanted=st.lists(st.tuples(KEYS, st.sampled_from(["", "no JSON"]), st.binary(max_size=9)), min_size=1))
    def append(self, wanted: list[tuple[tuple[str, str], str, bytes]]) -> None:
        deliveries = [self.delivery(*each) for each in wanted]

        async def ask(journal: Journal) -> list[bool]:
            return await asyncio.gather(*map(journal.append, deliveries))

        self.all_say(ask)
        self.known |= {key for key, _, _ in wanted}

    @rule(data=st.data(), wanted=st.lists(st.tuples(KEYS, st.lists(ATTEMPTS, max_size=3)), min_size=1, max_size=4))
    def adopt(self, data: st.DataObject, wanted: list[tuple[tuple[str, str], list[Attempt]]]) -> None:
        histories = []
        for key, attempts in wanted:
            state = data.draw(st.sampled_from(State))
            due = self.now + data.draw(st.integers(-5, 5)) if state is State.PENDING else None
            entry = replace(Entry.of(self.delivery(key)), state=state, due=due, attempts=len(attempts), generation=1)
            if state is not State.PENDING and data.draw(st.booleans()):
                entry = replace(entry, headers=None, body=None)
            histories.append(History(entry=entry, attempts=attempts))
        self.all_say(lambda journal: journal.adopt(histories))
        self.known |= {key for key, _ in wanted}

    @rule(limit=st.integers(1, 5))
    def claim(self, limit: int) -> None:
        claimed = self.all_say(
            lambda journal: journal.claim(limit, now=self.now, lease=LEASE), lambda told: list(map(own, told))
        )
        self.claims += zip(*claimed, strict=True)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.claims[-8:]), min_size=1))
        asked: list[list[Settlement]] = [[] for _ in self.journals]
        for claim in chosen:
            state = data.draw(st.sampled_from(State))
            pending = state is State.PENDING
            attempt = None if pending and data.draw(st.booleans()) else data.draw(ATTEMPTS)
            wait = data.draw(st.integers(-3, 3)) if pending else None
            for settlements, entry in zip(asked, claim, strict=True):
                settlements.append(
                    Settlement(seq=entry.seq, token=entry.token, state=state, wait=wait, attempt=attempt)
                )
        answers = [
            self.run(journal.settle(each, now=self.now)) for journal, each in zip(self.journals, asked, strict=True)
        ]
        assert answers == answers[:1] * len(answers)

    @rule(keys=st.lists(KEYS, max_size=5), new_ids=st.booleans())
    def replay(self, keys: list[tuple[str, str]], *, new_ids: bool) -> None:
        answers = [
            self.run(journal.replay(seqs, now=self.now, new_ids=new_ids))
            for journal, seqs in zip(self.journals, self.seqs(keys), strict=True)
        ]
        assert answers == answers[:1] * len(answers)

    @rule(bodies=AGES, ids=AGES, limit=st.integers(1, 4))
    def prune(self, bodies: int, ids: int, limit: int) -> None:
        self.all_say(lambda journal: journal.prune(bodies=-bodies, ids=-ids, now=T0, limit=limit))

    @rule(milliseconds=st.integers(1, 15))
    def pass_time(self, milliseconds: int) -> None:
        self.now += milliseconds

    @rule()
    def restart(self) -> None:
        for place, url in enumerate(self.urls):
            self.run(self.journals[place].close())
            self.journals[place] = self.run(journals.open(url))
        self.all_say(lambda journal: journal.recover())

    @rule(wanted=SELECTIONS, limit=st.integers(1, 3), oldest_first=st.booleans(), data=st.data())
    def find(self, wanted: Selection, limit: int, *, oldest_first: bool, data: st.DataObject) -> None:
        beyond: list[int | None] = [None] * len(self.journals)
        if data.draw(st.booleans()) and self.known:
            key = data.draw(st.sampled_from(sorted(self.known)))
            beyond = [seq for [seq] in self.seqs([key])]
        found = [
            self.run(journal.find(wanted, limit=limit, beyond=after, oldest_first=oldest_first))
            for journal, after in zip(self.journals, beyond, strict=True)
        ]
        assert [list(map(own, each)) for each in found] == [list(map(own, found[0]))] * len(found)

    @invariant()
    def agree(self) -> None:
        self.all_say(lambda journal: journal.census(now=self.now))
        keys = sorted(self.known)
        for journal_seqs in zip(*self.seqs(keys), strict=True):
            told: list[Any] = []
            for journal, seq in zip(self.journals, journal_seqs, strict=True):
                told.append((own(self.run(journal.load(seq))), list(self.run(journal.attempts(seq)))))
            assert told == told[:1] * len(told)

    def teardown(self) -> None:
        for journal in self.journals:
            self.run(journal.close())
        for place in self.places:
            self.run(place.__aexit__(None, None, None))
        self.loop.close()
        self.folder.cleanup()


def test_all_journals_answer_alike() -> None:
    assert len(JOURNALS) > 1
    run_state_machine_as_test(
        Alike,
        settings=settings(
            max_examples=30,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=UNSHRUNK,
        ),
    )
