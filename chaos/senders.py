"""Providers: each sends deliveries of its own over several connections, and repeats as the real one does, a second for its minute."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp
import orjson
from service import SECRETS

from bridge import providers
from bridge.clock import wall_clock
from chaos.ledger import Ledger, now

# Seconds between two requests of a connection: load enough to be hit in the midst of it, and time for what is examined.
_PAUSE = 0.02
# What waits to be repeated, at most, before a provider makes no new deliveries.
_MOST_WAITING = 300
_TEXT = "x" * 400
# One in so many cannot be forwarded, by its own fault; one in so many is sent again though it was acknowledged.
_AT_FAULT, _AGAIN = 100, 50
# Refused for good by the Event API here.
UNWANTED = "chaos.unwanted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """How a provider repeats what was not acknowledged: seconds, ours for its minutes."""

    provider: str
    body: Callable[[int, str], bytes]
    """Of a number and a type."""
    id: str
    """Of the delivery, before its number."""
    event: str
    """What its events are called."""
    patience: float
    """How long it waits for an answer."""
    pauses: Sequence[float]
    """Before each further try."""
    throttled: float = 0.0
    """Answered 429, it comes again so often..."""
    throttled_for: float = 0.0
    """...for so long."""


def _stripe(n: int, type_: str) -> bytes:
    thing = {"object": "customer", "id": f"cus_{n}", "description": _TEXT}
    type_ = type_ or "customer.created"
    event = {"id": f"evt_{n}", "object": "event", "type": type_, "created": 1_767_225_600, "data": {"object": thing}}
    return orjson.dumps(event)


def _slack(n: int, type_: str) -> bytes:
    event = {"type": type_ or "team_join", "event_ts": "1767225600.000100", "user": _TEXT}
    return orjson.dumps({"type": "event_callback", "event_id": f"Ev{n}", "event_time": 1_767_225_600, "event": event})


def _intercom(n: int, type_: str) -> bytes:
    topic = type_ or "contact.deleted"
    event = {"type": "notification_event", "id": f"notif_{n}", "topic": topic, "created_at": 1_767_225_600}
    return orjson.dumps({**event, "data": {"item": {"type": "contact", "name": _TEXT}}})


HABITS = (
    Habit(
        provider="stripe",
        body=_stripe,
        id="evt_",
        event="stripe/customer.created",
        patience=10,
        pauses=(0.5, 1, 2, 4, *[8] * 1000),
    ),
    Habit(provider="slack", body=_slack, id="Ev", event="slack/team.joined", patience=3, pauses=(0, 1, 5)),
    Habit(
        provider="intercom",
        body=_intercom,
        id="notif_",
        event="intercom/contact.deleted",
        patience=5,
        pauses=(1,),
        throttled=2,
        throttled_for=120,
    ),
)


def expected(id_: str) -> dict[str, Any]:
    """The event of the delivery with this id: id, name and data."""
    prefix = id_.rstrip("0123456789")
    habit = next((each for each in HABITS if each.id == prefix), None)
    if habit is None:
        return {"id": "", "name": "", "data": {}}
    data = orjson.loads(habit.body(int(id_.removeprefix(prefix)), ""))
    return {"id": f"{habit.event}:{id_}", "name": habit.event, "data": data}


@dataclass(slots=True, order=True)
class _Try:
    due: float
    n: int
    habit: Habit = field(compare=False)
    type: str = field(compare=False)
    times: int = field(default=0, compare=False)
    first: float = field(default_factory=now, compare=False)

    @property
    def id(self) -> str:
        return f"{self.habit.id}{self.n}"


class Senders:
    """All providers together. `targets`: the base URL of each bridge by its name; a request goes to any of them."""

    def __init__(self, targets: Mapping[str, str], ledger: Ledger, dice: Random) -> None:
        self._targets = list(targets.items())
        self._ledger = ledger
        self._dice = dice
        self._numbers = itertools.count()
        self._waiting: list[_Try] = []
        self.given_up = 0
        """What was not acknowledged in as many tries as its provider has."""

    async def connection(self) -> None:
        """For ever: one request after the other."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=2)) as session:
            while True:
                trying = self._next()
                if trying is not None:
                    await self._send(session, trying)
                await asyncio.sleep(_PAUSE)

    def _next(self) -> _Try | None:
        if self._waiting and self._waiting[0].due <= now():
            return heapq.heappop(self._waiting)
        if len(self._waiting) >= _MOST_WAITING:
            return None
        n = next(self._numbers)
        type_ = UNWANTED if n % _AT_FAULT == 0 else ""
        made = _Try(due=0, n=n, habit=self._dice.choice(HABITS), type=type_)
        self._ledger.send(made.id, at_fault=bool(type_))
        return made

    async def _send(self, session: aiohttp.ClientSession, trying: _Try) -> None:
        habit, began = trying.habit, now()
        name, url = self._dice.choice(self._targets)
        trying.times += 1
        status = await self._post(session, url, trying)
        if 200 <= status < 300:  # noqa: PLR2004 - what all of them take for success
            self._ledger.acknowledge(trying.id, bridge=name, began=began)
            if self._dice.randrange(_AGAIN) == 0:
                self._wait(trying, 0.1)
            return
        self._ledger.refused += 1
        if status == 429 and began - trying.first < habit.throttled_for:  # noqa: PLR2004 - Too Many Requests
            self._wait(trying, habit.throttled)
        elif trying.times <= len(habit.pauses):
            self._wait(trying, habit.pauses[trying.times - 1])
        elif trying.id not in self._ledger.acknowledged:
            self.given_up += 1

    def _wait(self, trying: _Try, seconds: float) -> None:
        trying.due = now() + seconds
        heapq.heappush(self._waiting, trying)

    async def _post(self, session: aiohttp.ClientSession, url: str, trying: _Try) -> int:
        """The status of the answer; 0: there was none."""
        habit = trying.habit
        provider = providers.load()[habit.provider]
        body = habit.body(trying.n, trying.type)
        headers = dict(provider.scheme.sign(body, secret=SECRETS[provider.environment].encode(), now=wall_clock()))
        if habit.provider == "slack" and trying.times > 1:
            headers |= {"X-Slack-Retry-Num": str(trying.times - 1), "X-Slack-Retry-Reason": "http_error"}
        patience = aiohttp.ClientTimeout(total=habit.patience)
        target = f"{url}/webhooks/{habit.provider}"
        try:
            async with session.post(target, data=body, headers=headers, timeout=patience) as response:
                return response.status
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            return 0


@asynccontextmanager
async def sending(
    targets: Mapping[str, str], ledger: Ledger, dice: Random, *, connections: int
) -> AsyncIterator[Senders]:
    """They send until the end of the block; what is not acknowledged by then is not repeated any more."""
    senders = Senders(targets, ledger, dice)
    running = [asyncio.create_task(senders.connection()) for _ in range(connections)]
    try:
        yield senders
        for each in running:
            if each.done():
                await each  # raises: a sender that fell over sent nothing any more
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
