"""`bridge serve`: the supervisor. Binds the listeners, starts the processes, starts them again when they end, stops them all.

    supervisor (this)  the private listener: health, readiness, metrics
      receiver         the public listener: steps 1 to 3
        writer         to a SQLite journal alone: what is appended
      forwarder        steps 4 and 5
        worker         the transforms: the user's code

It loads no user's code and speaks to no stranger, so that it is there when the others are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import orjson
from aiohttp import web

from bridge import journal, listeners, log, metrics, providers
from bridge.admin import Admin
from bridge.clock import wall_clock
from bridge.errors import BridgeError
from bridge.journal import Journal
from bridge.process import command
from bridge.settings import Settings
from bridge.worker.client import Loaded, Worker, WorkerSettings

# A service manager kills after 10 s: Docker's default, and what SIGTERM is promised to take at most.
_STOP_WITHIN = 8.0
_FIRST_RESTART, _LONGEST_RESTART = 0.1, 5.0
# One that lived so long did not fall over at once: its next start is not delayed for the last ones.
_SETTLED_AFTER = 30.0


def configuration(environment: MutableMapping[str, str]) -> tuple[Settings, list[str]]:
    """As `bridge.config.read`, in a process of its own; then its secrets are taken out of the environment.

    Raises BridgeError where that process fails.
    """
    ours, theirs = os.pipe()  # not its standard output, on which anything that Python loads may print
    with os.fdopen(ours, "rb") as told:
        try:
            reader = subprocess.Popen(command("bridge.config", str(theirs)), env=environment, pass_fds=[theirs])  # noqa: S603 - our own
        except OSError as error:  # no more processes, or files
            raise BridgeError(f"no process to read the configuration can be started: {error.strerror}") from None
        finally:
            os.close(theirs)
        said = told.read()
    if status := reader.wait():
        raise BridgeError(f"the process that reads the configuration ended with exit status {status}")
    settings, faults, secret = pickle.loads(said)  # noqa: S301 - from a process of ours, over a private pipe
    for name in secret:
        del environment[name]
    return settings, faults


class Service:
    """All processes of one bridge. `prepare`, then `run` until `stop`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._public: socket.socket | None = None
        self._private: socket.socket | None = None
        self._journal: Journal | None = None
        self._metrics_directory = ""
        self._modules: tuple[str, ...] = ()
        self._children: list[Child] = []
        self._stopping = asyncio.Event()
        self._said = {"held": "", "unable": "", "unstored": ""}
        """What the children have to say. `held`, `unable`: why nothing is forwarded, a configuration fault or transforms that
        can't be run. `unstored`: why the receiver can't store deliveries. Empty: it is as it should be."""
        self.ready = asyncio.Event()
        """Set once both children serve."""

    async def prepare(self) -> list[str]:
        """Take hold of everything that is needed, and try it. A line for each thing that can't be had."""
        settings, faults = self.settings, []
        for where, host, port in (
            ("BRIDGE_PORT", settings.host, settings.port),
            ("BRIDGE_ADMIN_PORT", settings.admin_host, settings.admin_port),
        ):
            try:
                bound = listeners.bind(host, port)
            except OSError as error:
                faults.append(f"{where}: {host}:{port}: {listeners.why_not(error, variable=where)}")
                continue
            if where == "BRIDGE_PORT":
                self._public = bound
            else:
                self._private = bound
        if settings.journal:
            try:
                self._journal = await journal.open(settings.journal, connections=settings.journal_connections)
                await self._journal.reserve()
                await self._journal.check()
            except BridgeError as error:
                faults.append(f"journal: {error}")
        worker = Worker(WorkerSettings.of(settings))
        loaded = await worker.start()
        await worker.stop()
        if not loaded.faults:
            self._modules = loaded.files
            for name in strays(self.settings, loaded):
                log.warning("transform.unused", module=name, reason="named after no source and no provider")
        return [*faults, *loaded.faults]

    async def run(self) -> None:
        """Serve until `stop`, SIGTERM or SIGINT. Everything `prepare` took hold of is let go of."""
        assert self._public is not None  # noqa: S101 - `prepare` had no fault
        assert self._private is not None  # noqa: S101 - as above
        counted = metrics.Directory()
        self._metrics_directory = str(counted.path)
        admin = web.AppRunner(self._admin().application(), access_log=None, handle_signals=False, shutdown_timeout=1)
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self.stop)
        try:
            await admin.setup()
            await web.SockSite(admin, self._private).start()
            self._children = [self._child("receiver", self._public), self._child("forwarder")]
            running = [asyncio.create_task(child.run()) for child in self._children]
            log.info(
                "service.started", public=listeners.address(self._public), private=listeners.address(self._private)
            )
            stopping = asyncio.create_task(self._stopping.wait())
            # No child's watch ends by itself; should one fail, half a service is worse than none.
            await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
            log.info("service.stopping")
            # Closed here too, or the kernel would go on taking connections nobody accepts.
            self._public.close()
            await asyncio.gather(*(child.stop(within=_STOP_WITHIN) for child in self._children))
            await asyncio.gather(*running)
        finally:
            await admin.cleanup()
            await self.close()
            counted.close()
        log.info("service.stopped")

    async def close(self) -> None:
        """Let go of what `prepare` took hold of."""
        for bound in (self._public, self._private):
            if bound is not None:
                bound.close()
        if self._journal is not None:
            await self._journal.close()

    def stop(self) -> None:
        """Make `run` come to its end."""
        self._stopping.set()

    @property
    def public_address(self) -> str:
        """`host:port` as it was bound: port 0 means any."""
        return "" if self._public is None else listeners.address(self._public)

    @property
    def private_address(self) -> str:
        return "" if self._private is None else listeners.address(self._private)

    def _admin(self) -> Admin:
        return Admin(
            settings=lambda: self.settings,
            journal=lambda: self._journal,
            unready=self._unready,
            held=lambda: "; ".join(filter(None, (self._said["held"], self._said["unable"]))),
            metrics_directory=self._metrics_directory,
            clock=wall_clock,
        )

    def _unready(self) -> Iterator[str]:
        if self._stopping.is_set():
            yield "the service is stopping"
        for child in self._children:
            if not child.ready:
                yield f"the {child.name} is not running"
        if reason := self._said["unstored"]:
            yield f"deliveries can't be stored: {reason}"

    def _child(self, name: str, *passed: socket.socket) -> Child:
        environment = os.environ | {
            "PROMETHEUS_MULTIPROC_DIR": self._metrics_directory,
            "MALLOC_ARENA_MAX": "2",  # a thread or two each: glibc would reserve an arena a core and thread
        }
        return Child(
            name, told=(self.settings, self._modules), passed=passed, environment=environment, heard=self._heard
        )

    def _heard(self, message: Mapping[str, Any]) -> None:
        for of in self._said.keys() & message.keys():
            self._said[of] = message[of]
        if all(child.ready for child in self._children):
            self.ready.set()


class Child:
    """A process of the service: started, told what to do, watched, and started again when it ends."""

    def __init__(
        self,
        name: str,
        *,
        told: object,
        passed: tuple[socket.socket, ...],
        environment: Mapping[str, str],
        heard: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self.name = name
        self.ready = False
        self._told = told
        self._passed = passed
        self._environment = environment
        self._heard = heard
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        delay = _FIRST_RESTART
        while not self._stopping.is_set():
            started = loop.time()
            status = await self._live()
            self.ready = False
            if self._stopping.is_set():
                return
            log.error("process.ended", ended=self.name, status=status, next_start_in_seconds=delay)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            delay = _FIRST_RESTART if loop.time() - started > _SETTLED_AFTER else min(delay * 2, _LONGEST_RESTART)

    async def stop(self, *, within: float) -> None:
        """SIGTERM, and SIGKILL to one that has not ended `within` seconds."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(within):
                await process.wait()
        except TimeoutError:
            log.error("process.killed", killed=self.name, reason="did not stop in time")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _live(self) -> int | str:
        """One life of the process. Its exit status, or why there was none."""
        try:
            process, channel = await self._start()
        except OSError as error:  # the machine has no room for one more
            return error.strerror or str(error)
        self._process = process
        if self._stopping.is_set():  # `stop` was called meanwhile, and knew of no process
            process.kill()
        reader, writer = await asyncio.open_connection(sock=channel)
        # Over a private channel from us to a process of ours: secrets stand in no argument and no environment.
        writer.write(pickle.dumps(self._told))
        with contextlib.suppress(ConnectionError):  # it was killed before it had read them
            async for line in reader:
                message = orjson.loads(line)
                self.ready = message.get("ready", self.ready)
                self._heard(message)
        writer.close()
        return await process.wait()

    async def _start(self) -> tuple[asyncio.subprocess.Process, socket.socket]:
        """The process, and our end of a channel whose other end it alone has: each sees the other's end on it."""
        ours, theirs = socket.socketpair()
        passed = [theirs.fileno(), *(sock.fileno() for sock in self._passed)]
        try:
            process = await asyncio.create_subprocess_exec(
                *command("bridge.roles", self.name, str(os.getpid()), *map(str, passed)),
                pass_fds=passed,
                stdin=asyncio.subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,  # the terminal's Ctrl-C comes to us alone, and we stop them in order
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return process, ours


def strays(settings: Settings, loaded: Loaded) -> list[str]:
    """The user's modules that no delivery ever comes to."""
    known = {*settings.sources, *providers.load()}
    return [f"{name}.py" for name in loaded.own if name not in known]
