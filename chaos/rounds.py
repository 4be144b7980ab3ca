"""Round after round of trouble under load, and the reckoning at the end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from random import Random
from typing import Any, TypeVar

from service import until

from bridge.model import State
from chaos.ledger import now
from chaos.outcome import Outcome, Round
from chaos.senders import Senders, sending
from chaos.troubles import ALONE, MOODS, Trouble
from chaos.world import World

T = TypeVar("T")

# How often the Event API misbehaves while something else happens.
_MOODY = 0.5
# Deliveries acknowledged before the first round.
_CALM = 50
# Characters of why a round did not recover.
_LONGEST = 400
# Seconds, in the end, until nothing is pending: longer than a lease.
_SETTLED_WITHIN = 60.0


def planned(
    troubles: Sequence[Trouble], moods: Sequence[str], *, rounds: int, seed: int, moody: float
) -> Iterator[tuple[Trouble, str]]:
    """What is to happen, and what the Event API is to do meanwhile: the same for a seed. Each comes as often as it weighs."""
    dice = Random(seed)
    bag = _shuffled([each for each in troubles for _ in range(each.weight)], dice)
    gloom = _shuffled(moods, dice)
    for trouble in itertools.islice(bag, rounds):
        moody_now = trouble is ALONE or (dice.random() < moody and not trouble.is_long)  # which needs one of its own
        yield trouble, next(gloom) if moody_now else ""


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
    patience: float = 45.0,
    note: Callable[[Round], None] = lambda _: None,
) -> Outcome:
    """`patience`: seconds until what has not recovered is taken not to; the run ends with it. `note` is told of each round."""
    began = now()
    done: list[Round] = []
    async with sending(world.targets, world.ledger, Random(world.seed), connections=connections) as senders:
        await until(lambda: len(world.ledger.acknowledged) >= _CALM)
        plan = enumerate(planned(troubles, moods, rounds=rounds, seed=world.seed, moody=moody))
        with _until_interrupted():
            for n, (trouble, mood) in plan:
                world.dice = Random(f"{world.seed}:{n}")
                done.append(await _round(world, trouble, mood, patience=patience))
                note(done[-1])
                if done[-1].recovery is None:
                    break
    return await _reckoned(world, senders, done, seconds=now() - began)


@contextmanager
def _until_interrupted() -> Iterator[None]:
    """The first Ctrl-C ends the rounds, and not what is said of them."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.uncancel():
            raise


async def _round(world: World, trouble: Trouble, mood: str, *, patience: float) -> Round:
    """Whatever goes wrong in it is what came of it: those before it are not to be lost."""
    recovery, why, refused = None, "", world.ledger.refused
    try:
        await world.pause(0.1, 1.0)
        world.over = 0.0
        async with MOODS[mood](world) if mood else nullcontext():
            if mood:
                await world.pause(0, 1)  # some of what waits is there when it strikes
            await _wholly(trouble.befall(world))
        if mood or not world.over:
            world.is_over()
        recovery = await _recovered(world, patience=patience)
    except Exception as error:  # noqa: BLE001 - as above
        why = _said(error)
    refused = world.ledger.refused - refused
    return Round(trouble=trouble.name, mood=mood, recovery=recovery, refused=refused, why=why)


async def _wholly(trouble: Coroutine[Any, Any, None]) -> None:
    """Also where Ctrl-C ends the run: or what is counted then would be what a bridge can't mend."""
    befalling = asyncio.create_task(trouble)
    try:
        await asyncio.shield(befalling)
    except asyncio.CancelledError:
        await befalling
        raise


def _said(error: Exception) -> str:
    """On one line; of a long one, which may be a whole log, the end."""
    text = " ".join(f"{type(error).__name__} {error}".split())
    return text if len(text) <= _LONGEST else f"{type(error).__name__} ... {text[-_LONGEST:]}"


async def _recovered(world: World, *, patience: float) -> float:
    """Seconds until it was. Raises TimeoutError."""
    over, ledger, names = world.over, world.ledger, list(world.targets)
    async with asyncio.timeout(patience):
        await until(lambda: ledger.have_answered(names, since=over), patience=patience)
        owed = set(ledger.waiting)

        def arrived() -> bool:
            owed.intersection_update(ledger.waiting)
            return not owed

        await until(arrived, patience=patience)
    return now() - over


async def _reckoned(world: World, senders: Senders, done: list[Round], *, seconds: float) -> Outcome:
    ledger, pending = world.ledger, -1
    entries: Mapping[State, set[str]] = {state: set() for state in State}
    try:
        await world.restore()
        with suppress(TimeoutError):
            await until(world.is_settled, patience=_SETTLED_WITHIN, every=0.2)
        entries, pending = await world.entries(), await world.pending()
    except Exception as error:  # noqa: BLE001 - what was found before is not to be lost
        why = _said(error)
        done.append(Round(trouble="the end", mood="", recovery=None, why=why))
    dead = entries[State.DEAD]
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
        more_than_once=ledger.more_than_once,
        dead=len(dead),
        pending=pending,
        lost=sorted(ledger.lost(forwarded=entries[State.FORWARDED], dead=dead)),
        changed=sorted(ledger.changed),
        altered=sorted(ledger.altered),
        dead_without_fault=sorted(dead - ledger.at_fault),
        absent=world.absent,
    )
