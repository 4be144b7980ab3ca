"""What happens to it: each trouble as a function that returns when it is over."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from postgres import Cluster
from processes import descendants, kill, send
from service import Service, until

from bridge.forward import Forwarder
from bridge.settings import Settings
from bridge.stand_in import EMPTY, PAGE, Behaviour, CutOff, Hang, Refuse, Reset, Short
from chaos.world import ANSWER_WITHIN, World, everyone, frozen, present, revive, slain

# Seconds until a disk without room has to have refused something.
_FULL_WITHIN = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    name: str
    befall: Callable[[World], Coroutine[Any, Any, None]]
    weight: int = 1
    """How often it comes in a round of all of them."""
    journal: str = ""
    """The only one it happens to."""
    needs_disk: bool = False
    is_long: bool = False


async def _nothing(world: World) -> None:
    """But for what the Event API does."""
    await world.pause(1, 4)


async def _killed(world: World, process: str) -> None:
    send(signal.SIGKILL, await present(world.victim(), process))


async def _supervisor_killed(world: World) -> None:
    victim = world.victim()
    await victim.kill()
    await world.pause(0, 0.5)
    world.is_over()
    await revive(victim)


async def _all_killed(world: World) -> None:
    victim = world.victim()
    await slain(victim)
    await world.pause(0, 0.5)
    world.is_over()
    await revive(victim)


async def _terminated(world: World) -> None:
    victim = world.victim()
    await victim.stop(signal.SIGTERM)
    await world.pause(0, 0.5)
    world.is_over()
    await revive(victim)


async def _child_terminated(world: World, process: str) -> None:
    send(signal.SIGTERM, await present(world.victim(), process))


async def _stopped(world: World, process: str) -> None:
    with frozen(await present(world.victim(), process)):
        await world.pause(1, 5)


async def _stopped_beyond_its_lease(world: World) -> None:
    """While it holds deliveries. Another forwarder, where there is one, has to take them over."""
    lease = _lease()
    world.stand_in.always = Hang()
    await world.pause(1, 2)
    with frozen(await present(world.victim(), "forwarder")):
        owed = set(world.ledger.waiting)
        world.stand_in.always = None
        if world.cluster is None:
            await asyncio.sleep(lease + 2)
        else:
            await until(lambda: owed.isdisjoint(world.ledger.waiting), patience=lease + 20)


def _lease() -> float:
    """Seconds a claim is a forwarder's own, as chaos configures it."""
    nobody: Any = None
    asked = {"journal": nobody, "sender": nobody, "company": nobody, "alone": nobody, "metrics": nobody}
    limit = Settings(sources={}).transform_timeout
    return Forwarder(**asked, time_limit=limit, answer_limit=ANSWER_WITHIN).lease / 1000


async def _everyone_stopped(world: World) -> None:
    """As when a virtual machine is paused."""
    with frozen(everyone(world.victim())):
        await world.pause(1, 5)


async def _power_cut(world: World) -> None:
    disk = world.disk
    assert disk is not None  # noqa: S101 - the trouble asks for one
    # First, and then the disk: what is told to be synced while a disk goes down may not be, and nobody may tell it further.
    if world.cluster is None:
        await slain(world.bridges[0])
    else:
        _kill_postgresql(world.cluster)
    disk.cut_power()
    world.is_over()
    await asyncio.to_thread(disk.unmount)
    await asyncio.to_thread(disk.mount)
    if world.cluster is None:
        await revive(world.bridges[0])
    else:
        await asyncio.to_thread(world.cluster.start)


async def _disk_full(world: World) -> None:
    disk = world.disk
    assert disk is not None  # noqa: S101 - as above
    refused = world.ledger.refused
    await asyncio.to_thread(disk.fill)
    await until(lambda: world.ledger.refused > refused, patience=_FULL_WITHIN)
    await world.pause(1, 4)
    disk.make_room()
    world.is_over()
    if world.cluster is not None and not world.cluster.is_running:  # without room for its log it gives up itself
        await asyncio.to_thread(world.cluster.start)


async def _files_full(world: World) -> None:
    """No file may grow any more: what can be had of a full disk without being root."""
    bridge, refused = world.bridges[0], world.ledger.refused
    log = (world.folder / "bridge.db-wal").stat().st_size
    soft, hard = resource.prlimit(bridge.pid, resource.RLIMIT_FSIZE)
    try:
        _limit(bridge, (log, hard))
        await until(lambda: world.ledger.refused > refused, patience=_FULL_WITHIN)
        await world.pause(1, 4)
    finally:
        _limit(bridge, (soft, hard))


def _limit(bridge: Service, size: tuple[int, int]) -> None:
    """Of all processes it has now."""
    for pid in everyone(bridge):
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, size)


async def _clock_moved(world: World, seconds: float) -> None:
    clock = world.clocks[world.victim().folder.name]
    clock.set(seconds)
    await world.pause(1, 4)
    clock.set(0)


async def _postgresql_killed(world: World) -> None:
    cluster = _cluster(world)
    _kill_postgresql(cluster)
    await world.pause(0, 1)
    world.is_over()
    await asyncio.to_thread(cluster.start)


async def _postgresql_backend_killed(world: World) -> None:
    """It makes the server end all others, and go through its log."""
    kill(world.dice.choice(descendants(_cluster(world).pid)))
    await world.pause(0.5, 1)
    if not _cluster(world).is_running:
        world.is_over()
        await asyncio.to_thread(_cluster(world).start)


async def _postgresql_restarted(world: World) -> None:
    world.is_over()
    await asyncio.to_thread(_cluster(world).restart)


async def _postgresql_hangs(world: World) -> None:
    with _cluster(world).frozen():
        await world.pause(1, 8)


def _cluster(world: World) -> Cluster:
    assert world.cluster is not None  # noqa: S101 - the trouble asks for one
    return world.cluster


def _kill_postgresql(cluster: Cluster) -> None:
    send(signal.SIGKILL, [cluster.pid, *descendants(cluster.pid)])
    cluster.stop()


def _each(verb: str, befall: Callable[..., Coroutine[Any, Any, None]], *names: str, weight: int = 1) -> list[Trouble]:
    return [
        Trouble(
            name=f"{name} {verb}",
            befall=partial(befall, process=name),
            weight=weight,
            journal="sqlite" if name == "writer" else "",
        )
        for name in names
    ]


ALONE = Trouble(name="", befall=_nothing, weight=4)
TROUBLES: Sequence[Trouble] = (
    ALONE,
    *_each("SIGKILL", _killed, "receiver", "writer", "forwarder", "worker", weight=2),
    *_each("SIGTERM", _child_terminated, "receiver", "writer", "forwarder", "worker"),
    *_each("SIGSTOP", _stopped, "receiver", "writer", "forwarder", "worker", "supervisor"),
    Trouble(name="supervisor SIGKILL", befall=_supervisor_killed, weight=2),
    Trouble(name="supervisor SIGTERM", befall=_terminated, weight=2),
    Trouble(name="all processes SIGKILL", befall=_all_killed, weight=2),
    Trouble(name="all processes SIGSTOP", befall=_everyone_stopped),
    Trouble(
        name="forwarder SIGSTOP, longer than its lease",
        befall=_stopped_beyond_its_lease,
        is_long=True,
    ),
    Trouble(name="power cut", befall=_power_cut, weight=2, needs_disk=True),
    Trouble(name="disk full", befall=_disk_full, weight=2, needs_disk=True),
    Trouble(name="files may not grow", befall=_files_full, journal="sqlite"),
    Trouble(name="clock 2 min ahead", befall=partial(_clock_moved, seconds=120)),
    Trouble(name="clock 2 min behind", befall=partial(_clock_moved, seconds=-120)),
    Trouble(name="clock 2 h ahead", befall=partial(_clock_moved, seconds=7200)),
    Trouble(name="clock 2 h behind", befall=partial(_clock_moved, seconds=-7200)),
    Trouble(name="PostgreSQL SIGKILL", befall=_postgresql_killed, weight=2, journal="postgresql"),
    Trouble(name="PostgreSQL backend SIGKILL", befall=_postgresql_backend_killed, weight=2, journal="postgresql"),
    Trouble(name="PostgreSQL restarted", befall=_postgresql_restarted, journal="postgresql"),
    Trouble(name="PostgreSQL SIGSTOP", befall=_postgresql_hangs, weight=2, journal="postgresql"),
)


@asynccontextmanager
async def _misbehaving(behaviour: Behaviour, world: World) -> AsyncIterator[None]:
    world.stand_in.always = behaviour
    try:
        yield
    finally:
        world.stand_in.always = None


@asynccontextmanager
async def _away(world: World) -> AsyncIterator[None]:
    port = int(world.stand_in.url.rpartition(":")[2])
    await world.stand_in.stop()
    try:
        yield
    finally:
        await world.stand_in.start(port)


# What the Event API does meanwhile.
MOODS: dict[str, Callable[[World], AbstractAsyncContextManager[None]]] = {
    "Event API refuses connections": _away,
    "Event API hangs": partial(_misbehaving, Hang()),
    "Event API resets before accepting": partial(_misbehaving, Reset()),
    "Event API resets after accepting": partial(_misbehaving, Reset(accepting=True)),
    "Event API cut off mid-answer": partial(_misbehaving, CutOff()),
    "Event API 429": partial(_misbehaving, Refuse(status=429, headers={"Retry-After": "1"})),
    "Event API 500": partial(_misbehaving, Refuse(status=500)),
    "Event API 503, a page": partial(_misbehaving, Refuse(status=503, body="<html></html>")),
    "Event API 401": partial(_misbehaving, Refuse(status=401)),
    "Event API 200, a page": partial(_misbehaving, PAGE),
    "Event API 200, empty": partial(_misbehaving, EMPTY),
    "Event API 200, too few ids": partial(_misbehaving, Short()),
    "Event API 200, too few taken": partial(_misbehaving, Short(taking=False)),
}


def happening(world: World, *, long: bool) -> list[Trouble]:
    """What can happen here."""
    return [
        trouble
        for trouble in TROUBLES
        if trouble.journal in {"", world.journal}
        and (world.disk is not None or not trouble.needs_disk)
        and (long or not trouble.is_long)
    ]
