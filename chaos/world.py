"""What chaos happens to: bridges as they are really run, a stand-in for the Event API, and a journal on a disk of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from postgres import Cluster, free_port
from processes import command_line, descendants, send
from service import Service, service, until

from bridge.model import Selection, State
from bridge.stand_in import StandIn
from chaos.clock import Clock
from chaos.disk import Disk
from chaos.ledger import Ledger, now
from chaos.senders import HABITS, UNWANTED, expected

_ROOT = Path(__file__).parent.parent
# Seconds the Event API has for an answer.
ANSWER_WITHIN = 2.0
_CONFIGURATION = f"""
[event_api]
timeout = {ANSWER_WITHIN}
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
    over: float = 0.0
    """When the harm of this round had an end, and what it broke began to be started again."""

    @property
    def targets(self) -> Mapping[str, str]:
        """The public URL of each bridge, by its name."""
        return {each.folder.name: f"http://127.0.0.1:{each.environment['BRIDGE_PORT']}" for each in self.bridges}

    @property
    def absent(self) -> Sequence[str]:
        """What can't be tried here."""
        return () if self.disk is not None else ("power cut", "disk full")

    def is_over(self) -> None:
        """The harm is."""
        self.over = now()

    def victim(self) -> Service:
        """One of the bridges."""
        return self.dice.choice(self.bridges)

    async def pause(self, least: float, most: float) -> None:
        """Seconds, by the dice."""
        await asyncio.sleep(self.dice.uniform(least, most))

    async def entries(self) -> dict[State, set[str]]:
        """The ids of all deliveries in the journal, by what became of them."""
        found: dict[State, set[str]] = {state: set() for state in State}
        async with self.bridges[0].journal() as store:
            beyond: int | None = None
            while page := await store.find(Selection(), limit=_PAGE, beyond=beyond):
                for entry in page:
                    found[entry.state].add(entry.id)
                beyond = page[-1].seq
        return found

    async def restore(self) -> None:
        """As it was before a trouble that was cut short."""
        self.stand_in.always = None
        for clock in self.clocks.values():
            clock.set(0)
        if self.disk is not None and not self.disk.is_mounted:
            self.disk.mount()
        if self.disk is not None:
            self.disk.make_room()
        if self.cluster is not None and not self.cluster.is_running:
            await asyncio.to_thread(self.cluster.start)
        for bridge in self.bridges:
            if bridge.ended:
                await revive(bridge)

    def keep(self, folder: Path) -> None:
        """Logs, and a journal in SQLite: for whoever wants to know what went wrong."""
        for bridge in self.bridges:
            (folder / f"{bridge.folder.name}.log").write_text(bridge.logged)
        if self.cluster is not None:
            (folder / "postgresql.log").write_text(self.cluster.log)
        for file in self.folder.glob("bridge.db*"):
            if file.is_file() and file.parent != folder:  # no pipe
                shutil.copy(file, folder)

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


async def present(bridge: Service, name: str) -> list[int]:
    """Those of this name, once there are some: what is lost is being started again."""
    await until(lambda: processes(bridge, name))
    return processes(bridge, name)


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
    send(signal.SIGKILL, everyone(bridge))
    await bridge.wait()


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """They do nothing, and do not know it."""
    try:
        send(signal.SIGSTOP, pids)
        yield
    finally:
        send(signal.SIGCONT, pids)


@asynccontextmanager
async def world(journal: str, folder: Path, *, seed: int, fault: str = "") -> AsyncIterator[World]:
    """Running and ready. `journal`: sqlite, with one bridge, or postgresql, with two. `fault`: which to put in."""
    folder.chmod(0o755)  # noqa: ASYNC240 - quick; PostgreSQL runs as somebody else
    async with AsyncExitStack() as stack:
        disk = _disk()
        if disk is not None:
            stack.callback(disk.remove)
        ledger = Ledger(expected)
        stand_in = StandIn(on_event=ledger.arrive)
        stand_in.unwanted = {
            f"{habit.provider}/{UNWANTED}": f"event name is reserved for internal use: {UNWANTED}" for habit in HABITS
        }
        await stand_in.start()
        stack.push_async_callback(stand_in.stop)
        cluster = _cluster(disk, fault) if journal == "postgresql" else None
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


def _cluster(disk: Disk | None, fault: str) -> Cluster:
    """Where its power may be cut it has to sync."""
    fsync = "off" if fault == "synchronous-off" else "on"
    made = Cluster() if disk is None else Cluster(at=disk.path, fsync=fsync, max_wal_size="64MB")
    made.start()
    os.sync()  # what made it did not
    return made
