"""Whatever is asked of a journal, in whatever order, it answers as the few lines of `Model` do."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from bridge import journal as journals
from bridge.journal import Census, Journal
from bridge.model import FINISHED, Attempt, Delivery, Entry, Outcome, Selection, Settlement, State

T = TypeVar("T")

# To shrink what was found takes minutes on real journals: it would be cut off before anybody saw it.
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
T0 = 1_767_225_600_000
LEASE = 10

NAMES = st.sampled_from("abcdef")
SOURCES = st.sampled_from(["stripe", "slack"])
# Into the past too: entries that are long finished, and others, are then forgotten.
AGES = st.integers(0, 40)
SELECTIONS = st.builds(
    Selection,
    id=st.none() | NAMES,
    source=st.none() | SOURCES,
    state=st.none() | st.sampled_from(State),
    type=st.none() | st.sampled_from(["t", ""]),
    since=st.none() | AGES.map(lambda age: T0 + age),
    until=st.none() | AGES.map(lambda age: T0 + age),
)


class Model:
    """A journal as one would write it if nothing ever failed."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.attempts: dict[int, list[Attempt]] = {}

    def append(self, delivery: Delivery, seq: int) -> None:
        entry = Entry.of(delivery, seq=seq)
        self.attempts[seq] = []
        if delivery.fault:
            entry = replace(entry, state=State.DEAD, due=None, attempts=1)
            fault = Attempt(at=delivery.received_at, outcome=Outcome.UNUSABLE, error=delivery.fault)
            self.attempts[seq].append(fault)
        self.entries[seq] = entry

    def due(self, limit: int, now: int) -> list[Entry]:
        due = [entry for entry in self.entries.values() if entry.due is not None and entry.due <= now]
        return sorted(due, key=lambda entry: (entry.due, entry.seq))[:limit]

    def settle(self, settlements: Sequence[Settlement], now: int) -> int:
        settled = 0
        for each in settlements:
            entry = self.entries.get(each.seq)
            if entry is None or not entry.token or entry.token != each.token:
                continue
            settled += 1
            tries = entry.attempts + (each.attempt is not None)
            due = None if each.wait is None else now + each.wait
            self.entries[each.seq] = replace(entry, state=each.state, due=due, token="", attempts=tries)
            if each.attempt is not None:
                self.attempts[each.seq].append(each.attempt)
        return settled

    def replay(self, seqs: Sequence[int], now: int, *, new_ids: bool) -> int:
        able = {seq for seq in seqs if (e := self.entries.get(seq)) and e.state in FINISHED and e.body is not None}
        for seq in able:
            entry = self.entries[seq]
            generation = entry.generation + new_ids
            self.entries[seq] = replace(
                entry, state=State.PENDING, due=now, attempts=0, replays=entry.replays + 1, generation=generation
            )
        return len(able)

    def prune(self, bodies_before: int, ids_before: int) -> None:
        for seq, entry in list(self.entries.items()):
            if entry.state in FINISHED and entry.received_at < bodies_before:
                self.entries[seq] = replace(entry, headers=None, body=None)
            if entry.state in FINISHED and entry.received_at < ids_before:
                del self.entries[seq], self.attempts[seq]

    def find(self, wanted: Selection) -> list[Entry]:
        """The oldest first."""
        return [
            replace(entry, headers=None, body=None)
            for _, entry in sorted(self.entries.items())
            if wanted.id in {None, entry.id}
            and wanted.source in {None, entry.source}
            and wanted.state in {None, entry.state}
            and wanted.type in {None, entry.type}
            and (wanted.since is None or wanted.since <= entry.received_at)
            and (wanted.until is None or entry.received_at < wanted.until)
        ]

    def census(self, now: int) -> Census:
        counts = Counter(entry.state for entry in self.entries.values())
        pending = [seq for seq, entry in self.entries.items() if entry.state is State.PENDING]
        oldest = self.entries[min(pending)].received_at if pending else None
        due = [e.received_at for e in self.entries.values() if e.due is not None and (e.due <= now or e.token)]
        by_state = {state: counts[state] for state in State}
        return Census(counts=by_state, oldest_pending=oldest, oldest_due=min(due, default=None))


def given(source: str, name: str, *, now: int, note: str, fault: str = "", body: bytes = b"") -> Delivery:
    """A delivery that has just come, with a note among its headers."""
    return Delivery(
        source=source,
        provider=source,
        prefix=source,
        id=name,
        type="" if fault else "t",
        occurred_at=now - 1,
        received_at=now,
        headers={"n": note},
        body=body,
        payload={},
        fault=fault,
    )


class Machine(RuleBasedStateMachine):
    make_place: ClassVar[Callable[[Path], AbstractAsyncContextManager[str]]]

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.place = type(self).make_place(Path(self.folder.name))
        self.url = self.run(self.place.__aenter__())
        self.journal: Journal = self.run(journals.open(self.url))
        self.model = Model()
        self.now = T0
        self.last = 0
        # Every claim ever made: most of them are lost, settled or recovered by now.
        self.claims: list[Entry] = []

    def run(self, answer: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(answer)

    @rule(wanted=st.lists(st.tuples(SOURCES, NAMES, st.sampled_from(["", "no JSON"]), st.binary()), min_size=1))
    def append(self, wanted: list[tuple[str, str, str, bytes]]) -> None:
        deliveries = [
            given(source, name, now=self.now, note=str(n), fault=fault, body=body)
            for n, (source, name, fault, body) in enumerate(wanted)
        ]
        known = {(entry.source, entry.id) for entry in self.model.entries.values()}
        answers = self.run(self.append_all(deliveries))
        for delivery, answer in zip(deliveries, answers, strict=True):
            key = (delivery.source, delivery.id)
            assert answer is (key not in known)
            known.add(key)
            if answer:
                [entry] = self.run(self.journal.find(Selection(id=delivery.id, source=delivery.source), limit=2))
                assert entry.seq > self.last
                self.last = entry.seq
                self.model.append(delivery, entry.seq)

    async def append_all(self, deliveries: list[Delivery]) -> list[bool]:
        return await asyncio.gather(*map(self.journal.append, deliveries))

    @rule(limit=st.integers(1, 5))
    def claim(self, limit: int) -> None:
        expected = self.model.due(limit, self.now)
        claimed = self.run(self.journal.claim(limit, now=self.now, lease=LEASE))
        for entry in claimed:
            assert entry.token and all(entry.token != held.token for held in self.model.entries.values())
        for entry in claimed:
            self.model.entries[entry.seq] = replace(
                self.model.entries[entry.seq], due=self.now + LEASE, token=entry.token
            )
        assert list(claimed) == [self.model.entries[entry.seq] for entry in expected]
        self.claims += claimed

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.claims[-8:]), min_size=1))
        settlements = []
        for entry in chosen:
            state = data.draw(st.sampled_from(State))
            given_back = state is State.PENDING and data.draw(st.booleans())
            outcome = data.draw(st.sampled_from(Outcome))
            attempt = None if given_back else Attempt(at=self.now, outcome=outcome, error="é", events=2)
            wait = data.draw(st.integers(-3, 3)) if state is State.PENDING else None
            settlements.append(Settlement(seq=entry.seq, token=entry.token, state=state, wait=wait, attempt=attempt))
        settled = self.run(self.journal.settle(settlements, now=self.now))
        assert settled == self.model.settle(settlements, self.now)

    @rule(seqs=st.lists(st.integers(1, 12)), new_ids=st.booleans())
    def replay(self, seqs: list[int], *, new_ids: bool) -> None:
        replayed = self.run(self.journal.replay(seqs, now=self.now, new_ids=new_ids))
        assert replayed == self.model.replay(seqs, self.now, new_ids=new_ids)

    @rule(bodies=AGES, ids=AGES, limit=st.integers(1, 4))
    def prune(self, bodies: int, ids: int, limit: int) -> None:
        while self.run(self.journal.prune(bodies=-bodies, ids=-ids, now=T0, limit=limit)):
            pass
        self.model.prune(T0 + bodies, T0 + ids)

    @rule(milliseconds=st.integers(1, 15))
    def pass_time(self, milliseconds: int) -> None:
        self.now += milliseconds

    @rule()
    def restart(self) -> None:
        self.run(self.journal.close())
        self.journal = self.run(journals.open(self.url))
        claimed = [entry for entry in self.model.entries.values() if entry.token]
        assert self.run(self.journal.recover()) == len(claimed)
        for entry in claimed:
            found = self.run(self.journal.load(entry.seq))
            assert found is not None and found.due is not None and found.due <= self.now
            self.model.entries[entry.seq] = replace(entry, token="", due=found.due)

    @rule(wanted=SELECTIONS, limit=st.integers(1, 3), oldest_first=st.booleans())
    def find(self, wanted: Selection, limit: int, *, oldest_first: bool) -> None:
        found: list[Entry] = []
        beyond = None
        while page := self.run(self.journal.find(wanted, limit=limit, beyond=beyond, oldest_first=oldest_first)):
            found += page
            beyond = page[-1].seq
        expected = self.model.find(wanted)
        assert found == (expected if oldest_first else expected[::-1])

    @invariant()
    def agrees(self) -> None:
        assert self.run(self.journal.census(now=self.now)) == self.model.census(self.now)
        for seq in range(1, self.last + 2):
            assert self.run(self.journal.load(seq)) == self.model.entries.get(seq)
            assert list(self.run(self.journal.attempts(seq))) == self.model.attempts.get(seq, [])[-100:]

    def teardown(self) -> None:
        self.run(self.journal.close())
        self.run(self.place.__aexit__(None, None, None))
        self.loop.close()
        self.folder.cleanup()


def test_a_journal_answers_as_the_model(place: Callable[[Path], AbstractAsyncContextManager[str]]) -> None:
    class Here(Machine):
        make_place = place

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=UNSHRUNK,
        ),
    )
