"""The processes of the service: started, told what to do, watched, started again when they end, and replaced by others.

What one is told it never has to change: for a new configuration there is a new process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TypeAlias

import orjson

from bridge import log
from bridge.process import command, send
from bridge.settings import Settings, packed

_NAMES = ("receiver", "forwarder")
# A service manager kills after 10 s: Docker's default, and what SIGTERM is promised to take at most.
_STOP_WITHIN = 8.0
# Seconds for a new receiver to serve. One that does not must not take the place of one that does.
_START_WITHIN = 15.0
_FIRST_RESTART, _LONGEST_RESTART = 0.1, 5.0
# One that lived so long did not fall over at once: its next start is not delayed for the last ones.
_SETTLED_AFTER = 30.0

# What is new for each: the settings, and the modules with transforms that there are.
Told: TypeAlias = tuple[Settings, tuple[str, ...]]


class Children:
    """A receiver and a forwarder, and for moments two receivers."""

    def __init__(
        self, *, public: socket.socket, metrics_directory: str, ready: asyncio.Event, failed: Callable[[], None]
    ) -> None:
        """`ready` is set once all serve, `failed` called when one can't be watched any more."""
        self._public = public
        self._metrics_directory = metrics_directory
        self._ready = ready
        self._failed = failed
        self._living: dict[Child, asyncio.Task[None]] = {}
        self._replaced = ""
        """The name of the one that gives way just now: that there is none for a moment is no news."""

    def start(self, told: Told) -> None:
        for name in _NAMES:
            self._start(name, told)

    async def replace(self, told: Told) -> None:
        """Have others do what they do. Raises TimeoutError where no other receiver serves; then all is as it was.

        At no moment is there no receiver. Two forwarders at once would send what both of them hold.
        """
        before, receiver = list(self._living), self._start("receiver", told)
        try:
            async with asyncio.timeout(_START_WITHIN):
                await receiver.serving.wait()
        except TimeoutError:
            await self._end(receiver)
            raise
        self._replaced = "forwarder"
        try:
            await asyncio.gather(
                self._exchange_forwarder([child for child in before if child.name == "forwarder"], told),
                *(self._end(child) for child in before if child.name == "receiver"),
            )
        finally:
            self._replaced = ""

    async def _exchange_forwarder(self, before: Sequence[Child], told: Told) -> None:
        await asyncio.gather(*map(self._end, before))
        forwarder = self._start("forwarder", told)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_WITHIN):
                await forwarder.serving.wait()

    async def stop(self) -> None:
        """Returns when none is left, and nothing listens any more. Raises what one failed of."""
        for child in self._living:
            child.stopping.set()
        # Closed here too, or the kernel would go on taking connections nobody accepts.
        self._public.close()
        ended = await asyncio.gather(*map(self._end, tuple(self._living)), return_exceptions=True)
        for failed in ended:  # once all have ended
            if failed is not None:
                raise failed

    def missing(self) -> list[str]:
        """The names of those that do not serve, and should."""
        serving = {child.name for child in self._living if child.serving.is_set()}
        return [name for name in _NAMES if name not in serving and name != self._replaced]

    def said(self, of: str) -> list[str]:
        """What they have to say of it: see `bridge.roles`."""
        return [said for child in self._living if (said := child.said.get(of))]

    def _start(self, name: str, told: Told) -> Child:
        names = {child.counts_as for child in self._living}
        child = Child(
            name,
            counts_as=name if name not in names else f"{name}-2",
            told=told,
            passed=(self._public,) if name == "receiver" else (),
            metrics_directory=self._metrics_directory,
            heard=self._heard,
        )
        self._living[child] = asyncio.create_task(child.run())
        self._living[child].add_done_callback(lambda watched: self._ended(child, watched))
        return child

    async def _end(self, child: Child) -> None:
        watched = self._living.get(child)
        if watched is None:  # it has ended by now
            return
        await child.stop(within=_STOP_WITHIN)
        await asyncio.shield(watched)  # whoever waits may give up, the watch may not

    def _ended(self, child: Child, watched: asyncio.Task[None]) -> None:
        """No watch ends by itself; should one fail, half a service is worse than none."""
        if watched.cancelled() or watched.exception() is not None:
            self._failed()
        else:
            del self._living[child]

    def _heard(self) -> None:
        if not self.missing():
            self._ready.set()


class Child:
    """What `bridge.roles` is, under a name. `run` it, until `stop`."""

    def __init__(
        self,
        name: str,
        *,
        counts_as: str,
        told: Told,
        passed: tuple[socket.socket, ...],
        metrics_directory: str,
        heard: Callable[[], None],
    ) -> None:
        """`counts_as`: two that live at the same time must not count under one name. `heard` is called when it said something."""
        self.name = name
        self.counts_as = counts_as
        self.said: dict[str, str] = {}
        """What it had to say last."""
        self.serving = asyncio.Event()
        self._told = told
        self._passed = passed
        self._metrics_directory = metrics_directory
        self._heard = heard
        self._process: asyncio.subprocess.Process | None = None
        self.stopping = asyncio.Event()
        """Once it is set no other life of it begins."""

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        delay = _FIRST_RESTART
        while not self.stopping.is_set():
            started = loop.time()
            status = await self._live()
            self.serving.clear()
            if self.stopping.is_set():
                return
            log.error("process.ended", ended=self.name, status=status, next_start_in_seconds=delay)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self.stopping.wait()
            delay = _FIRST_RESTART if loop.time() - started > _SETTLED_AFTER else min(delay * 2, _LONGEST_RESTART)

    async def stop(self, *, within: float) -> None:
        """SIGTERM, and SIGKILL to one that has not ended `within` seconds."""
        self.stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        send(signal.SIGTERM, process.pid)
        try:
            async with asyncio.timeout(within):
                await process.wait()
        except TimeoutError:
            log.error("process.killed", killed=self.name, reason="did not stop in time")
            send(signal.SIGKILL, process.pid)
            await process.wait()

    async def _live(self) -> int | str:
        """One life of the process. Its exit status, or why there was none."""
        try:
            process, channel = await self._start()
        except OSError as error:  # the machine has no room for one more
            return error.strerror or str(error)
        self._process = process
        if self.stopping.is_set():  # `stop` was called meanwhile, and knew of no process
            send(signal.SIGKILL, process.pid)
        reader, writer = await asyncio.open_connection(sock=channel)
        # Over a private channel from us to a process of ours: secrets stand in no argument and no environment.
        writer.write(packed(self._told))
        # It was killed before it had read them, or says more than a line may hold: it is started again then.
        with contextlib.suppress(ConnectionError, ValueError):
            async for line in reader:
                message: dict[str, str] = orjson.loads(line)
                if message.pop("ready", ""):
                    self.serving.set()
                self.said |= message
                self._heard()
        writer.close()
        return await process.wait()

    async def _start(self) -> tuple[asyncio.subprocess.Process, socket.socket]:
        """The process, and our end of a channel whose other end it alone has: each sees the other's end on it."""
        ours, theirs = socket.socketpair()
        passed = [theirs.fileno(), *(sock.fileno() for sock in self._passed)]
        try:
            process = await asyncio.create_subprocess_exec(
                *command("bridge.roles", self.name, self.counts_as, str(os.getpid()), *map(str, passed)),
                pass_fds=passed,
                stdin=asyncio.subprocess.DEVNULL,
                env=os.environ  # as it is by now: with no secret that was read since the last start
                | {
                    "PROMETHEUS_MULTIPROC_DIR": self._metrics_directory,
                    "MALLOC_ARENA_MAX": "2",  # a thread or two each: glibc would reserve an arena a core and thread
                },
                start_new_session=True,  # the terminal's Ctrl-C comes to us alone, and we stop them in order
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return process, ours
