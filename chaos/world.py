"""What chaos happens to: bridges as they are really run, a stand-in for the Event API, and a journal on a disk of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from postgres import Cluster, free_port
from processes import command_line, descendants, kill
from service import Service, service

from bridge.model import Selection, State
from bridge.stand_in import StandIn
from chaos.clock import Clock
from chaos.disk import Disk
from chaos.ledger import Ledger
from chaos.senders import HABITS, UNWANTED

_ROOT = Path(__file__).parent.parent
_CONFIGURATION = """
[event_api]
timeout = 2
"""
# How each process is known: by a word of its command line.
_WORDS = {
    "receiver": "receiver",
    "writer": "bridge.journal.sqlite.writer",
    "forwarder": "forwarder",
    "worker": "bridge.worker",
}
_PAGE = 1000


@dataclass(slots=True, kw_only=True)
class World:
    """All of it. `disk` None: no disk of its own can be had here; `cluster` None: the journal is in SQLite."""

    bridges: list[Service]
    stand_in: StandIn
    clocks: Mapping[str, Clock]
    """By the bridge's name: no two machines agree."""
    disk: Disk | None
    cluster: Cluster | None
    ledger: Ledger
    journal: str
    seed: int
    dice: Random
    """Another in each round, so that what happens in it does not hang on how long the last ones took."""
    folder: Path
    """Where a journal in SQLite is."""

    @property
    def targets(self) -> Mapping[str, str]:
        """The public URL of each bridge, by its name."""
        return {each.folder.name: f"http://127.0.0.1:{each.environment['BRIDGE_PORT']}" for each in self.bridges}

    def victim(self) -> Service:
        """One of the bridges."""
        return self.dice.choice(self.bridges)

    async def pause(self, least: float, most: float) -> None:
        """Seconds, by the dice."""
        await asyncio.sleep(self.dice.uniform(least, most))

    async def dead(self) -> set[str]:
        """The ids of the deliveries given up."""
        found: set[str] = set()
        async with self.bridges[0].journal() as store:
            beyond: int | None = None
            while page := await store.find(Selection(state=State.DEAD), limit=_PAGE, beyond=beyond):
                found |= {entry.id for entry in page}
                beyond = page[-1].seq
        return found

    async def pending(self) -> int:
        async with self.bridges[0].journal() as store:
            return (await store.census()).counts[State.PENDING]

    async def is_settled(self) -> bool:
        """Nothing is pending any more."""
        return not await self.pending()


def processes(bridge: Service, name: str) -> list[int]:
    """Those of this name that live just now; a bridge that has ended has none."""
    if bridge.ended:
        return []
    if name == "supervisor":
        return [bridge.pid]
    return [pid for pid in descendants(bridge.pid) if _WORDS[name] in command_line(pid)]


def everyone(bridge: Service) -> list[int]:
    """All its processes, the supervisor first."""
    return [] if bridge.ended else [bridge.pid, *descendants(bridge.pid)]


async def revive(bridge: Service) -> None:
    """As a service manager does: start it until it runs, which it does not while its journal can't be had."""
    for _ in range(60):
        try:
            await bridge.start(ready=False)
        except AssertionError:
            await asyncio.sleep(0.5)
        else:
            return
    raise AssertionError(bridge.logged)


async def slain(bridge: Service) -> None:
    """All its processes at once, as when a machine loses its power; what they share is as a restart finds it."""
    for pid in everyone(bridge):
        kill(pid)
    await bridge.wait()


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """They do nothing, and do not know it."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def world(journal: str, folder: Path, *, seed: int, fault: str = "") -> AsyncIterator[World]:
    """Running and ready. `journal`: sqlite, with one bridge, or postgresql, with two. `fault`: which to put in."""
    folder.chmod(0o755)  # noqa: ASYNC240 - quick; PostgreSQL runs as somebody else
    async with AsyncExitStack() as stack:
        disk = _disk()
        if disk is not None:
            stack.callback(disk.remove)
        ledger = Ledger()
        stand_in = StandIn(on_event=ledger.arrive)
        stand_in.unwanted = {
            f"{habit.provider}/{UNWANTED}": f"event name is reserved for internal use: {UNWANTED}" for habit in HABITS
        }
        await stand_in.start()
        stack.push_async_callback(stand_in.stop)
        cluster = _cluster(disk) if journal == "postgresql" else None
        if cluster is not None:
            stack.callback(cluster.stop, signal.SIGQUIT)
        more = {
            "PYTHONPATH": f"{_ROOT / 'chaos' / 'inside'}{os.pathsep}{_ROOT}",
            "CHAOS_FAULT": fault,
        }
        url = f"sqlite:///{disk.path if disk else folder}/bridge.db" if cluster is None else cluster.url()
        bridges, clocks = [], {}
        for name in ("a",) if cluster is None else ("a", "b"):
            place = folder / name
            place.mkdir()
            (place / "bridge.toml").write_text(_CONFIGURATION)
            clocks[name] = Clock(place)
            own = {"CHAOS_CLOCK": str(clocks[name].path), "BRIDGE_JOURNAL": url, "BRIDGE_PORT": str(free_port())}
            bridges.append(await stack.enter_async_context(service(place, stand_in.url, more | own)))
        yield World(
            bridges=bridges,
            stand_in=stand_in,
            clocks=clocks,
            disk=disk,
            cluster=cluster,
            ledger=ledger,
            seed=seed,
            dice=Random(seed),
            journal=journal,
            folder=disk.path if disk else folder,
        )


def _disk() -> Disk | None:
    try:
        return Disk()
    except OSError:
        return None


def _cluster(disk: Disk | None) -> Cluster:
    """Where its power may be cut it has to sync."""
    made = Cluster() if disk is None else Cluster(at=disk.path, fsync="on", max_wal_size="64MB")
    made.start()
    os.sync()  # what made it did not
    return made
