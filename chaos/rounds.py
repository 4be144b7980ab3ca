"""Round after round of trouble under load, and the reckoning at the end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from service import until

from chaos.ledger import now
from chaos.senders import Senders, sending
from chaos.troubles import ALONE, MOODS, Trouble
from chaos.world import World

T = TypeVar("T")

# How often the Event API misbehaves while something else happens.
_MOODY = 0.5
# Deliveries acknowledged before the first round, and after the last.
_CALM = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    trouble: str
    """Empty: nothing but what the Event API did."""
    mood: str
    """What the Event API did meanwhile. Empty: it answered."""
    recovery: float | None
    """Seconds from the end of it until every bridge acknowledged again, and all that was acknowledged by then had arrived.
    None: it did not come to that."""

    @property
    def name(self) -> str:
        return self.trouble or self.mood

    @property
    def what(self) -> str:
        return " + ".join(filter(None, (self.trouble, self.mood)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is left when everything is over and nothing is pending any more. Numbers are of deliveries."""

    journal: str
    seed: int
    rounds: Sequence[Round]
    seconds: float
    sent: int
    acknowledged: int
    given_up: int
    arrived: int
    """Of those acknowledged."""
    unacknowledged: int
    """Arrived, and their answer was lost."""
    lost: int
    more_than_once: int
    changed: int
    dead: int
    dead_without_fault: int
    pending: int
    absent: Sequence[str]
    """What can't be tried on this machine."""

    @property
    def is_kept(self) -> bool:
        """The promise."""
        recovered = all(each.recovery is not None for each in self.rounds)
        return recovered and not (self.lost or self.changed or self.dead_without_fault or self.pending)

    @property
    def longest(self) -> Round | None:
        recovered = [each for each in self.rounds if each.recovery is not None]
        return max(recovered, key=lambda each: each.recovery or 0.0, default=None)


def planned(
    troubles: Sequence[Trouble], moods: Sequence[str], *, rounds: int, seed: int, moody: float
) -> Iterator[tuple[Trouble, str]]:
    """What is to happen, and what the Event API is to do meanwhile: the same for a seed. Each comes as often as it weighs."""
    dice = Random(seed)
    bag = _shuffled([each for each in troubles for _ in range(each.weight)], dice)
    gloom = _shuffled(moods, dice)
    for trouble in itertools.islice(bag, rounds):
        yield trouble, next(gloom) if trouble is ALONE or dice.random() < moody else ""


def _shuffled(things: Sequence[T], dice: Random) -> Iterator[T]:
    """For ever: all of them in an order of the dice, and again in another."""
    while True:
        yield from dice.sample(things, len(things))


async def survive(
    world: World,
    troubles: Sequence[Trouble],
    *,
    rounds: int,
    moods: Sequence[str] = tuple(MOODS),
    moody: float = _MOODY,
    connections: int = 8,
    patience: float = 180.0,
    note: Callable[[Round], None] = lambda _: None,
) -> Outcome:
    """`patience`: seconds until what has not recovered is taken not to; the run ends with it. `note` is told of each round."""
    began = now()
    done: list[Round] = []
    async with sending(world.targets, world.ledger, Random(world.seed), connections=connections) as senders:
        await until(lambda: len(world.ledger.acknowledged) >= _CALM)
        for n, (trouble, mood) in enumerate(planned(troubles, moods, rounds=rounds, seed=world.seed, moody=moody)):
            world.dice = Random(f"{world.seed}:{n}")
            done.append(await _round(world, trouble, mood, patience=patience))
            note(done[-1])
            if done[-1].recovery is None:
                break
    return await _reckoned(world, senders, done, seconds=now() - began, patience=patience)


async def _round(world: World, trouble: Trouble, mood: str, *, patience: float) -> Round:
    await world.pause(0.1, 1.0)
    async with MOODS[mood](world) if mood else nullcontext():
        if mood:
            await world.pause(0, 1)  # some of what waits is there when it strikes
        await trouble.befall(world)
    try:
        recovery = await _recovered(world, patience=patience)
    except TimeoutError:
        recovery = None
    return Round(trouble=trouble.name, mood=mood, recovery=recovery)


async def _recovered(world: World, *, patience: float) -> float:
    """Seconds until it was. Raises TimeoutError."""
    over, ledger, names = now(), world.ledger, list(world.targets)
    async with asyncio.timeout(patience):
        await until(lambda: ledger.have_answered(names, since=over), patience=patience)
        owed = set(ledger.waiting)

        def arrived() -> bool:
            owed.intersection_update(ledger.waiting)
            return not owed

        await until(arrived, patience=patience)
    return now() - over


async def _reckoned(
    world: World, senders: Senders, done: Sequence[Round], *, seconds: float, patience: float
) -> Outcome:
    ledger = world.ledger
    with suppress(TimeoutError):
        await until(world.is_settled, patience=patience, every=0.2)
    dead = await world.dead()
    lost = ledger.lost | ((ledger.acknowledged & ledger.at_fault) - dead)
    return Outcome(
        journal=world.journal,
        seed=world.seed,
        rounds=done,
        seconds=seconds,
        sent=len(ledger.sent),
        acknowledged=len(ledger.acknowledged),
        given_up=senders.given_up,
        arrived=len(ledger.acknowledged & ledger.arrived.keys()),
        unacknowledged=len(ledger.arrived.keys() - ledger.acknowledged),
        lost=len(lost),
        more_than_once=ledger.more_than_once,
        changed=len(ledger.changed),
        dead=len(dead),
        dead_without_fault=len(dead - ledger.at_fault),
        pending=await world.pending(),
        absent=() if world.disk is not None else ("power cut", "disk full"),
    )
