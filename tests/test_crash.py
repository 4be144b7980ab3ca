"""The promise: what was answered 200 reaches the Event API, with the same id however often, whoever is killed in between."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postgres import free_port
from processes import kill
from service import Service, load, service, until

from bridge.model import Entry, State
from bridge.stand_in import StandIn

VICTIMS = ["receiver"] * 4 + ["forwarder"] * 4 + ["supervisor"] * 4
# Answers, and stores a little later: what many a receiver does, and what ours did with this in its way.
HASTY = """
import asyncio
from bridge.journal.sqlite.journal import SqliteJournal

honest = SqliteJournal.append

async def append(journal, delivery):
    later = lambda: asyncio.ensure_future(honest(journal, delivery))
    asyncio.get_running_loop().call_later(0.1, later)
    return True

SqliteJournal.append = append
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is left when the killing is over and everything that waited was forwarded."""

    acknowledged: set[str]
    arrived: Mapping[str, set[str]]
    """The event ids each delivery arrived with."""
    entries: Mapping[str, Entry]

    @property
    def lost(self) -> set[str]:
        return self.acknowledged - self.arrived.keys()


async def survive(folder: Path, victims: Sequence[str], more: Mapping[str, str] | None = None) -> Outcome:
    """Under load, kill one after the other, each in the midst of it."""
    arrived: dict[str, set[str]] = defaultdict(set)

    def note(event: dict[str, Any]) -> None:
        arrived[event["data"]["id"]].add(event["id"])

    dice = random.Random(20260131)
    stand_in = StandIn(on_event=note)
    await stand_in.start()
    async with service(folder, stand_in.url, {"BRIDGE_PORT": str(free_port()), **(more or {})}) as running:
        async with load(running, connections=6) as acknowledged:
            for victim in dice.sample(victims, len(victims)):
                await grow(acknowledged, dice.randint(20, 120))
                await strike(running, victim)
            await grow(acknowledged, 50)
        entries = await running.until_finished()
    await stand_in.stop()
    return Outcome(acknowledged=acknowledged, arrived=arrived, entries=entries)


async def grow(acknowledged: set[str], count: int) -> None:
    goal = len(acknowledged) + count
    await until(lambda: len(acknowledged) >= goal)


async def strike(running: Service, victim: str) -> None:
    if victim == "supervisor":
        await running.kill()
        await running.start(ready=False)
        return
    await until(lambda: running.child(victim))
    kill(running.child(victim))


async def test_nothing_acknowledged_is_lost_whoever_is_killed(tmp_path: Path) -> None:
    outcome = await survive(tmp_path, VICTIMS)
    assert outcome.lost == set()
    assert len(outcome.acknowledged) > 400
    assert {id_: ids for id_, ids in outcome.arrived.items() if len(ids) != 1} == {}
    assert {id_ for id_, entry in outcome.entries.items() if entry.state is not State.FORWARDED} == set()
    assert outcome.arrived.keys() == outcome.entries.keys(), "also what was stored when its answer was lost"


async def test_a_receiver_that_answers_before_it_has_stored_is_found_out(tmp_path: Path) -> None:
    """So the test above can fail."""
    (tmp_path / "sitecustomize.py").write_text(HASTY)
    outcome = await survive(tmp_path, ["receiver"], {"PYTHONPATH": str(tmp_path)})
    assert outcome.lost
