"""The way of an entry from the journal to the Event API: claim, transform, send, settle.

What goes wrong with one entry costs no other its way: what a lost worker held is tried alone, an event that is refused
leaves its batch, and an Event API that is away uses up nobody's attempts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import random

from bridge import log, retry
from bridge.clock import wall_clock
from bridge.errors import JournalUnavailable, WorkerUnavailable
from bridge.journal import Journal
from bridge.metrics import Metrics
from bridge.model import Attempt, Entry, Outcome, Settlement, State
from bridge.send import Parcel, Sender
from bridge.transform import Result
from bridge.worker.client import Worker

# Seconds a claim may take to be transformed, at least, and then to be sent. What is not through by then is given back.
_TRANSFORMING = _SENDING = 20.0
# Seconds a lease is longer than all it has to cover.
_MARGIN = 10.0
# Entries a claim: enough that a backlog goes out in large batches, few enough that four claims fit in memory.
_CLAIM, _AT_ONCE = 200, 4
# Where so many have come since the last claim, more will in so many seconds, and all of them cost little more than these.
_SEVERAL, _GATHERING = 6, 0.01
# Entries waiting to be tried alone, each for up to its time limit: no more than a lease has room for.
_SUSPECTS = 6
# How long all of a kind are tried alone, after one of them took its worker down: ms.
_SUSPICION = 600_000
# How long entries are given back for that found no room among the suspects, or no worker: ms.
_LATER = 5_000
# How long ago another acceptance tells that it is the event that is refused, not the Event API that is ill: ms.
_LATELY = 10_000


class Forwarder:
    """`company` transforms batches; `alone`, one at a time, those that might take a batch down with them."""

    def __init__(
        self,
        *,
        journal: Journal,
        sender: Sender,
        company: Worker,
        alone: Worker,
        metrics: Metrics,
        time_limit: float,
        answer_limit: float,
        unable: Callable[[str], None] = lambda _: None,
        clock: Callable[[], int] = wall_clock,
        dice: Callable[[], float] = random,
    ) -> None:
        """Seconds a transform may take for one delivery, and an answer of the Event API.

        `unable` is called with the reason while no worker can be started, and with an empty one when that is over.
        """
        self._journal, self._sender = journal, sender
        self._company, self._alone = company, alone
        self._unable, self._unable_because = unable, ""
        self._metrics, self._clock, self._dice = metrics, clock, dice
        # One delivery may use up its time and still leave some to those behind it.
        self._transforming = max(_TRANSFORMING, 2 * (time_limit + 2))
        self._holding = max(self._transforming + _SENDING, _SUSPECTS * (time_limit + 2))
        self.lease = round((self._holding + answer_limit + _MARGIN) * 1000)
        """ms. As long as all that is begun in it can take: or what is sent would be sent again by the next claim."""
        self._accepted_at = 0
        self._unclear = log.Sparing("event_api.refusing")
        self._away = log.Sparing("journal.unavailable")
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting_alone = 0
        self._suspected: dict[tuple[str, str], int] = {}
        self._stopped = asyncio.Event()

    async def run(self, *, grace: float = 5.0) -> None:
        """Claim and forward until `stop`; then finish what is on its way within `grace` seconds, give the rest back."""
        while not await self._recover("claims.recovered") and not self._stopped.is_set():
            await self._pause(asyncio.sleep(1))
        while not self._stopped.is_set():
            await self._pause(self._slots.acquire())
            if self._stopped.is_set():
                break
            entries = await self._claim()
            if not entries:
                self._slots.release()
                continue
            self._start(self._forward(entries)).add_done_callback(lambda _: self._slots.release())
            if _SEVERAL <= len(entries) < _CLAIM:
                await self._pause(asyncio.sleep(_GATHERING))
        if self._tasks:  # what waits for the Event API to come back would wait in vain
            await asyncio.wait(self._tasks, timeout=0 if self._sender.is_shut else grace)
        left = tuple(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._recover("claims.released")

    async def _recover(self, event: str) -> bool:
        """What is held is due again at once, not only when its lease ends: by a forwarder that died, or by us when we stop."""
        try:
            if recovered := await self._journal.recover():
                log.info(event, entries=recovered)
        except JournalUnavailable as unavailable:
            self._away.error(reason=str(unavailable))
            return False
        return True

    def stop(self) -> None:
        """Make `run` come to its end."""
        self._stopped.set()

    async def _claim(self) -> Sequence[Entry]:
        """What is due; where nothing is, wait until something may be."""
        try:
            entries = await self._journal.claim(_CLAIM, lease=self.lease)
        except JournalUnavailable as unavailable:
            self._away.error(reason=str(unavailable))
            await self._pause(asyncio.sleep(1))
            return ()
        if not entries:
            await self._pause(self._journal.wait(1.0))
        return entries

    async def drain(self) -> None:
        """Forward all that is due now, and return. Tests call it instead of waiting for `run`."""
        while entries := await self._journal.claim(_CLAIM, lease=self.lease):
            await self._forward(entries)
            while self._tasks:
                await asyncio.wait(self._tasks)

    def _start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its entries come back when their lease ends. Not the error's text: it may quote what we forward.
            log.error("forward.failed", error=type(error).__name__)

    async def _pause(self, until: Awaitable[object]) -> None:
        both = {asyncio.ensure_future(until), asyncio.ensure_future(self._stopped.wait())}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for each in both:
            each.cancel()
        await asyncio.gather(*both, return_exceptions=True)

    async def _forward(self, entries: Sequence[Entry]) -> None:
        began = asyncio.get_running_loop().time()
        deadline = began + self._holding
        now = self._clock()
        suspects = [entry for entry in entries if self._suspected.get((entry.source, entry.type), 0) > now]
        trusted = [entry for entry in entries if self._suspected.get((entry.source, entry.type), 0) <= now]
        try:
            results, how = await self._company.run(trusted, now=now, until=began + self._transforming)
        except WorkerUnavailable as unavailable:
            await self._give_back_all(entries, unavailable, deadline)
            return
        undone = [entry for entry, result in zip(trusted, results, strict=True) if result is None]
        if how:
            log.warning("worker.lost", how=how, entries=len(undone))
            suspects, undone = suspects + undone, []
        # Before the sending, which may take long: these need no answer of the Event API yet.
        await self._put_aside(suspects, deadline)
        await self._settle([self._given_back(entry) for entry in undone], deadline)
        done = [(entry, result) for entry, result in zip(trusted, results, strict=True) if result is not None]
        await self._finish(done, deadline)

    async def _give_back_all(self, entries: Sequence[Entry], why: WorkerUnavailable, deadline: float) -> None:
        """None of them is at fault: a module was changed and no longer loads, or the machine has no room."""
        self._say_unable(str(why))
        await self._settle([(entry, retry.given_back(entry, wait=_LATER)) for entry in entries], deadline)

    def _say_unable(self, reason: str) -> None:
        if reason == self._unable_because:
            return
        if reason:
            log.error("worker.unavailable", reason=reason)
        else:
            log.info("worker.back")
        self._unable_because = reason
        self._unable(reason)

    async def _put_aside(self, suspects: Sequence[Entry], deadline: float) -> None:
        """Try as many of them alone as there is room for, apart from all others; give the rest back for a while."""
        room = max(0, _SUSPECTS - self._waiting_alone)
        self._waiting_alone += len(suspects[:room])
        for entry in suspects[:room]:
            self._start(self._try_alone(entry, deadline))
        await self._settle([(entry, retry.given_back(entry, wait=_LATER)) for entry in suspects[room:]], deadline)

    async def _try_alone(self, entry: Entry, deadline: float) -> None:
        try:
            [result], how = await self._alone.run([entry], now=self._clock(), until=deadline)
        except WorkerUnavailable as unavailable:
            await self._give_back_all([entry], unavailable, deadline)
            return
        finally:
            self._waiting_alone -= 1
        kind = (entry.source, entry.type)
        if result is None and not how:
            await self._settle([self._given_back(entry)], deadline)
            return
        if result is None:
            result = Result(outcome=Outcome.STUCK, error=how)
        if result.outcome is Outcome.STUCK:
            now = self._clock()
            self._suspected = {each: until for each, until in self._suspected.items() if until > now}
            self._suspected[kind] = now + _SUSPICION
        else:  # not the kind, then, but some of it
            self._suspected.pop(kind, None)
        await self._finish([(entry, result)], deadline)

    async def _finish(self, done: Sequence[tuple[Entry, Result]], deadline: float) -> None:
        """Settle what has no events, send what has, and settle each as soon as it is decided."""
        if done:
            self._say_unable("")
        await self._settle([await self._unsent(entry, result) for entry, result in done if result.outcome], deadline)
        parcels = [
            Parcel(entry=entry, events=result.events, ids=result.ids)
            for entry, result in done
            if result.outcome is None
        ]
        async for decided in self._sender.send(parcels, until=deadline):
            if any(parcel.delivered for parcel in decided):
                self._accepted_at = self._clock()
            await self._settle([await self._sent(parcel) for parcel in decided], deadline)
        left = [parcel.entry for parcel in parcels if not parcel.decided]
        await self._settle([self._given_back(entry) for entry in left], deadline)

    async def _unsent(self, entry: Entry, result: Result) -> tuple[Entry, Settlement]:
        """What becomes of an entry that gave no events."""
        outcome = result.outcome or Outcome.SKIPPED
        policy = {Outcome.STUCK: retry.STUCK, Outcome.POSTPONED: retry.POSTPONED}.get(outcome)
        attempt = Attempt(at=self._clock(), outcome=outcome, error=result.error)
        before = () if policy is None else await self._before(entry)
        return self._after(entry, attempt, policy, before, wait=round(result.after * 1000))

    async def _sent(self, parcel: Parcel) -> tuple[Entry, Settlement]:
        """What becomes of an entry whose events are decided."""
        entry, now = parcel.entry, self._clock()
        if parcel.accepted:
            self._metrics.events.labels(entry.source).inc(parcel.accepted)
        if parcel.refusal is None:
            self._metrics.forward_seconds.labels(entry.source).observe((now - entry.received_at) / 1000)
            return self._after(entry, Attempt(at=now, outcome=Outcome.FORWARDED, events=parcel.accepted), None, ())
        outcome, policy, before = Outcome.REFUSED, None, await self._before(entry)
        if parcel.refusal.obscure:
            policy = retry.REFUSED_OBSCURELY
            # Where another was accepted lately, or since the last time, it is the event; else it may be the server.
            if self._accepted_at < min((now - _LATELY, *(each.at for each in before[-1:]))):
                outcome, policy = Outcome.UNCLEAR, retry.UNCLEAR
                self._unclear.error(source=entry.source)  # in whose words is kept with the entry
        attempt = Attempt(at=now, outcome=outcome, error=parcel.refusal.error, events=parcel.accepted)
        return self._after(entry, attempt, policy, before)

    def _given_back(self, entry: Entry) -> tuple[Entry, Settlement]:
        """Due at once, and before all that arrived later, as far as our clock is that of who received it."""
        return entry, retry.given_back(entry, wait=min(0, entry.received_at - self._clock()))

    def _after(
        self, entry: Entry, attempt: Attempt, policy: retry.Policy | None, before: Sequence[Attempt], *, wait: int = 0
    ) -> tuple[Entry, Settlement]:
        times = 1 + sum(each.outcome is attempt.outcome for each in before)
        return entry, retry.settlement(entry, attempt, policy=policy, times=times, dice=self._dice(), wait=wait)

    async def _before(self, entry: Entry) -> Sequence[Attempt]:
        """Its attempts since it arrived or was last replayed."""
        if not entry.attempts:
            return ()
        try:
            return (await self._journal.attempts(entry.seq))[-entry.attempts :]
        except JournalUnavailable:  # then one try more than it should have
            return ()

    async def _settle(self, settlements: Sequence[tuple[Entry, Settlement]], deadline: float) -> None:
        """As long as the lease is ours; after it, the next claim forwards them again, with the same ids."""
        while settlements:
            try:
                await self._journal.settle([settlement for _, settlement in settlements])
                break
            except JournalUnavailable as unavailable:
                self._away.error(reason=str(unavailable))
                if asyncio.get_running_loop().time() > deadline:
                    return
                await asyncio.sleep(1)
        for entry, settlement in settlements:
            if settlement.attempt is not None:
                self._metrics.settled.labels(entry.source, settlement.state).inc()
            if settlement.attempt is not None and settlement.state is State.DEAD:
                # Why in full is kept with the entry: a traceback may quote the payload.
                outcome = settlement.attempt.outcome
                log.warning("entry.dead", source=entry.source, id=entry.id, type=entry.type, outcome=outcome)
