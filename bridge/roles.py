"""`python -m bridge.roles receiver|forwarder ...`: what the supervisor's two children are.

A child reads what it is told from the channel, says `ready` on it once it serves, and stops on SIGTERM. Until then it says
what ails it: `unstored`, why deliveries can't be stored (the receiver); `held` and `unable`, why nothing is forwarded, a
configuration fault or transforms that can't be run (the forwarder). Empty: it is over.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Protocol

import orjson
import uvloop
from aiohttp import web

from bridge import journal, log, process
from bridge.clock import wall_clock
from bridge.connections import Server
from bridge.errors import BridgeError
from bridge.event_api import Answer, EventApi, Verdict
from bridge.forward import Forwarder
from bridge.gate import Gate
from bridge.journal import Journal
from bridge.metrics import Metrics, continue_counting_as
from bridge.model import Entry
from bridge.receive import Receiver
from bridge.retention import Pruner
from bridge.send import Sender
from bridge.settings import TRACES, Settings, unpacked
from bridge.worker.client import Worker, WorkerSettings

# Seconds for what is on its way when we are stopped; the supervisor kills after 8.
_GRACE = 4.0
# Seconds in which whoever keeps a connection is told, with the answer to a request on it, that it is the last one. To close
# it before would lose the request that is on its way just then, and a proxy keeps dozens.
_LEAVE = 1.0
# Seconds for a sender to notice an answer it got before it had sent everything, such as 413. To close at once would
# reset the connection, and the answer with it; what is sent meanwhile is read and dropped.
_LINGER = 1.0
# Connections at once. An idle one takes 6 KB, and a limit of files may be a million.
_MOST_CONNECTIONS = 20_000
# Characters of a reason that the supervisor is told.
_LONGEST_SAID = 4000
# Files we need beside connections: for the journal, what is counted, the listener.
_OTHER_FILES = 64

Say = Callable[[Mapping[str, object]], None]


class Tracing(Protocol):
    """What `bridge.traces` puts around what there is. Where traces are off it is not loaded."""

    def receiving(self, journal: Journal) -> Journal: ...

    def forwarding(self, journal: Journal) -> Journal: ...

    def transforming(self, worker: Worker) -> Worker: ...

    def asking(self, batch: Sequence[tuple[Entry, str]]) -> Callable[[Answer], None]: ...

    def close(self) -> None: ...


async def receiver(
    settings: Settings, say: Say, stopped: asyncio.Event, public: socket.socket, traces: Tracing | None = None
) -> None:
    """Steps 1 to 3: what is acknowledged is in the journal."""
    most = _allow_many_connections()
    metrics = Metrics()
    metrics.announce_receiving(settings.sources)
    store = journal.at(settings.journal, connections=settings.journal_connections, receiving=True)
    receiving = Receiver(
        sources=[source.source(name) for name, source in settings.sources.items()],
        journal=traces.receiving(store) if traces else store,
        metrics=metrics,
        clock=wall_clock,
        unable=lambda reason: say({"unstored": reason}),
    )
    server = public_server(receiving, most=most)
    runner = web.ServerRunner(server, shutdown_timeout=_LEAVE)
    await runner.setup()
    site = web.SockSite(runner, public, backlog=1024)
    await site.start()
    watching = [asyncio.create_task(server.drop_the_silent()), asyncio.create_task(receiving.watch())]
    say({"ready": True, "unstored": ""})
    await stopped.wait()
    for each in watching:
        each.cancel()
    await site.stop()
    await server.take_leave(idle=_LEAVE, busy=_GRACE)
    await runner.cleanup()
    await store.close()


def _freeze() -> None:
    """All that is there now stays: to look through it for garbage again and again would hold up every answer for 15 ms.
    What comes later holds itself in cycles seldom enough to be looked through by ten thousands.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


def _allow_many_connections() -> int:
    """How many there may be. The usual soft limit, 1,024, is there for programs that use select()."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems call it infinite, and grant less
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(files - _OTHER_FILES, _MOST_CONNECTIONS)


def public_server(receiving: Receiver, *, most: int = _MOST_CONNECTIONS) -> Server:
    """How what the receiver answers is served. No access log: it would be a line for each delivery."""
    return Server(receiving.answer, most=most, access_log=None, auto_decompress=False, lingering_time=_LINGER)


async def forwarder(
    settings: Settings, modules: tuple[str, ...], say: Say, stopped: asyncio.Event, traces: Tracing | None = None
) -> None:
    """Steps 4 and 5: what is in the journal reaches the Event API. `modules`: the transforms there were at the start."""
    api_settings = settings.event_api
    metrics = Metrics()
    metrics.announce_forwarding(settings.sources, Verdict)
    store = journal.at(settings.journal, connections=settings.journal_connections)
    company, alone = (Worker(WorkerSettings.of(settings, expected=modules)) for _ in range(2))
    api = EventApi(
        api_settings.key,
        base_url=api_settings.url,
        dev=api_settings.is_dev,
        env=api_settings.env,
        timeout=api_settings.timeout,
    )
    async with api:
        sender = Sender(
            api=api,
            gate=Gate(held=lambda reason: say({"held": reason})),
            metrics=metrics,
            max_batch_events=api_settings.max_batch_events,
            max_batch_bytes=api_settings.max_batch_bytes,
            asking=traces.asking if traces else None,
        )
        forwarding = Forwarder(
            journal=traces.forwarding(store) if traces else store,
            sender=sender,
            company=traces.transforming(company) if traces else company,
            alone=traces.transforming(alone) if traces else alone,
            metrics=metrics,
            time_limit=settings.transform_timeout,
            answer_limit=api_settings.timeout,
            unable=lambda reason: say({"unable": reason}),
        )
        say({"ready": True, "held": "", "unable": ""})
        running = asyncio.create_task(forwarding.run(grace=_GRACE))
        pruning = asyncio.create_task(Pruner(journal=store, retention=settings.retention).run())
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait([stopping, running, pruning], return_when=asyncio.FIRST_COMPLETED)
        forwarding.stop()
        pruning.cancel()
        await asyncio.wait([running, pruning])
    await asyncio.gather(company.stop(), alone.stop())
    await store.close()
    _check(running, pruning)


def _check(*tasks: asyncio.Task[None]) -> None:
    """None of them ends by itself. A forwarder that seems to live and forwards nothing would go unseen for days."""
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("process.failed", error=type(error).__name__)  # not its text: it may quote what we forward
            sys.exit(1)


def _traces(name: str) -> Tracing | None:
    """None where they are off, and where they can't be made: no delivery waits for what only tells of it."""
    traces: Tracing | None = None
    if os.environ.get(TRACES):
        try:
            traces = import_module("bridge.traces").Traces(name)
        except Exception as error:  # noqa: BLE001 - what a library raises of variables, or of being half installed, can't be known
            log.error("traces.failed", error=type(error).__name__)  # not its text: it may quote them
    return traces


def main(name: str, counts_as: str, parent: int, channel: int, *passed: int) -> None:
    """Be the child of this name until the supervisor wants no more of us."""
    process.belong_to(parent)
    log.configure(name)
    continue_counting_as(counts_as)
    conversation = process.adopt(channel)
    settings, modules = _told(conversation)
    traces = _traces(name)
    _freeze()
    sockets = [process.adopt(descriptor) for descriptor in passed]

    def say(message: Mapping[str, object]) -> None:
        short = {key: value[:_LONGEST_SAID] if isinstance(value, str) else value for key, value in message.items()}
        conversation.sendall(orjson.dumps(short) + b"\n")

    async def live() -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def abandoned() -> None:
            loop.remove_reader(conversation)
            stopped.set()

        loop.add_signal_handler(signal.SIGTERM, stopped.set)
        loop.add_reader(conversation, abandoned)  # the supervisor says nothing more: only its end can be read
        if name == "receiver":
            await receiver(settings, say, stopped, sockets[0], traces)
        else:
            await forwarder(settings, modules, say, stopped, traces)

    uvloop.run(live())
    if traces:
        traces.close()


def _told(conversation: socket.socket) -> tuple[Settings, tuple[str, ...]]:
    try:
        told: tuple[Settings, tuple[str, ...]] = unpacked(conversation.makefile("rb"))
    except EOFError:  # whoever started us is gone
        sys.exit(0)
    except BridgeError as error:
        log.error("process.failed", error=str(error))
        sys.exit(1)
    return told


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
