"""`bridge serve`: the supervisor. Binds the listeners, starts the processes, starts them again when they end, stops them all.

    supervisor (this)  the private listener: health, readiness, metrics
      receiver         the public listener: steps 1 to 3
        writer         to a SQLite journal alone: what is appended
      forwarder        steps 4 and 5
        worker         the transforms: the user's code

It loads no user's code and speaks to no stranger, so that it is there when the others are not. When the configuration may
have changed it is read again; where all of it is right, new processes take over.
"""

from __future__ import annotations

import asyncio
import math
import signal
import socket
from collections.abc import Iterable, Iterator
from dataclasses import fields

from aiohttp import web

from bridge import journal, listeners, log, providers, runtime
from bridge.admin import Admin
from bridge.children import Children
from bridge.clock import wall_clock
from bridge.connections import Runner
from bridge.errors import BridgeError, ConfigInvalid
from bridge.journal import Journal
from bridge.reading import Configuration
from bridge.settings import Settings
from bridge.worker.client import Loaded, Worker, WorkerSettings

# Connections to the private listener: whoever watches us has a few. More would take files that our processes need.
_MOST_PRIVATE = 100
# Seconds until what could not be taken is tried again.
_FIRST_RETRY, _LONGEST_RETRY = 5.0, 60.0
_ANOTHER_JOURNAL = "journal: restart the bridge to change it; what is pending stays in this one"
# Taken hold of at the start, for as long as the service lives.
_BOUND = ("host", "port", "admin_host", "admin_port")


class Service:
    """All processes of one bridge. `prepare`, then `run` until `stop`."""

    def __init__(self, settings: Settings, *, configuration: Configuration | None = None) -> None:
        """`configuration`: where the settings are from, and others may come from. None: they stay as they are."""
        self.settings = settings
        self._configuration = configuration
        self._public: socket.socket | None = None
        self._private: socket.socket | None = None
        self._journal: Journal | None = None
        self._identity = ""
        self._modules: tuple[str, ...] = ()
        self._stopping = asyncio.Event()
        self.ready = asyncio.Event()
        """Set once receiver and forwarder serve."""

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
                self._journal, self._identity = await _opened(settings)
            except BridgeError as error:
                faults.append(f"journal: {error}")
        loaded = await _loaded(settings)
        self._modules = loaded.files
        return [*faults, *loaded.faults]

    async def run(self) -> None:
        """Serve until `stop`, SIGTERM or SIGINT. Everything `prepare` took hold of is let go of."""
        assert self._public is not None  # noqa: S101 - `prepare` had no fault
        assert self._private is not None  # noqa: S101 - as above
        directory = runtime.Directory()
        children = Children(
            public=self._public, metrics_directory=str(directory.path), ready=self.ready, failed=self.stop
        )
        application = self._admin(children, str(directory.path)).application()
        admin = Runner(application, most=_MOST_PRIVATE, access_log=None, shutdown_timeout=1)
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self.stop)
        try:
            await admin.setup()
            await web.SockSite(admin, self._private).start()
            directory.announce(self._public, self._private)
            children.start((self.settings, self._modules))
            log.info("service.started", public=self.public_address, private=self.private_address)
            following = asyncio.create_task(self._follow(children))
            await self._stopping.wait()
            log.info("service.stopping")
            following.cancel()
            await asyncio.wait([following])
            # Beside it: a database that hangs would take its time after theirs.
            await asyncio.gather(children.stop(), *([self._journal.close()] if self._journal else []))
        finally:
            await admin.cleanup()
            await self.close()
            directory.close()
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

    def _admin(self, children: Children, metrics_directory: str) -> Admin:
        def unready() -> Iterator[str]:
            if self._stopping.is_set():
                yield "the service is stopping"
            for name in children.missing():
                yield f"the {name} is not running"
            for reason in children.said("unstored"):
                yield f"deliveries can't be stored: {reason}"

        return Admin(
            settings=lambda: self.settings,
            journal=lambda: self._journal,
            unready=unready,
            held=lambda: "; ".join((*children.said("held"), *children.said("unable"))),
            receiving=lambda: "receiver" not in children.missing() and not children.said("unstored"),
            metrics_directory=metrics_directory,
            clock=wall_clock,
        )

    async def _follow(self, children: Children) -> None:
        """For ever: take the configuration as it is by then, all of it, or leave it as it was and say why.

        What was refused is tried again, and told once: secrets come in before their database knows them, and transforms are
        mended.
        """
        asked, faults, delay = False, list[str](), math.inf
        while self._configuration is not None:
            now = await self._configuration.changed(within=delay)
            asked, before = asked or now, [] if now else faults
            try:
                changed = await self._read_again(self._configuration, children, asked=asked)
            except ConfigInvalid as invalid:
                faults = list(invalid.faults)
            except BridgeError as error:
                faults = [str(error)]
            except Exception as error:  # noqa: BLE001 - a bridge that takes no rotated secret any more would go unseen
                faults = [type(error).__name__]
            else:
                if asked or changed or faults:
                    log.info("configuration.taken", changed=_told(changed, asked=asked))
                asked, faults, delay = False, [], math.inf
                continue
            delay = min(delay * 2, _LONGEST_RETRY) if faults == before else _FIRST_RETRY
            for fault in faults if faults != before else ():
                log.error("configuration.refused", reason=fault)

    async def _read_again(self, configuration: Configuration, children: Children, *, asked: bool) -> list[str]:
        """The names of the settings that are others now. Raises BridgeError, and then all is as it was."""
        settings, faults = await configuration.read()
        changed = [each.name for each in fields(settings) if _differ(self.settings, settings, each.name)]
        if not faults:
            faults = [*_fixed(self.settings, settings, changed), *(() if asked else _lost(self.settings, settings))]
        if faults:
            raise ConfigInvalid(faults)
        if changed or asked:
            await self._take(settings, children)
        return changed

    async def _take(self, settings: Settings, children: Children) -> None:
        """Raises BridgeError where it can't be taken; then all is as it was."""
        loaded = await _loaded(settings)
        if loaded.faults:
            raise ConfigInvalid(loaded.faults)
        before = after = self._journal
        if settings.journal != self.settings.journal and journal.file_of(settings.journal) is None:
            after, identity = await _opened(settings, create=False)
            if identity != self._identity:
                await after.close()
                raise ConfigInvalid([_ANOTHER_JOURNAL])
        try:
            await children.replace((settings, loaded.files))
        except BaseException as error:
            if after is not None and after is not before:
                await after.close()
            if isinstance(error, TimeoutError):
                raise BridgeError("no receiver could be started with it") from None
            raise
        self.settings, self._modules, self._journal = settings, loaded.files, after
        if before is not None and before is not after:
            await before.close()


async def _opened(settings: Settings, *, create: bool = True) -> tuple[Journal, str]:
    """The journal, tried, and what tells it from another. Raises BridgeError."""
    opened = await journal.open(settings.journal, connections=settings.journal_connections, create=create)
    try:
        await opened.reserve()
        await opened.check()
        return opened, await opened.identity()
    except BaseException:
        await opened.close()
        raise


async def _loaded(settings: Settings) -> Loaded:
    """The transforms, tried."""
    worker = Worker(WorkerSettings.of(settings))
    try:
        loaded = await worker.start()
    finally:
        await worker.stop()
    for name in () if loaded.faults else strays(settings, loaded):
        log.warning("transform.unused", module=name, reason="named after no source and no provider")
    return loaded


def _differ(before: Settings, after: Settings, name: str) -> bool:
    return bool(getattr(before, name) != getattr(after, name))


def _fixed(before: Settings, after: Settings, changed: Iterable[str]) -> Iterator[str]:
    """What can't change while the service lives."""
    for name in changed:
        if name in _BOUND:
            yield f"{name}: restart the bridge to change it"
        elif name == "journal" and journal.file_of(before.journal) != journal.file_of(after.journal):
            yield _ANOTHER_JOURNAL


def _lost(before: Settings, after: Settings) -> Iterator[str]:
    """What nobody asked to be without: a directory of secrets may be gone for a moment."""
    for name in before.sources:
        if name not in after.sources:
            yield f"sources.{name}: not configured any more; on SIGHUP the bridge does without"
    if before.admin_token and not after.admin_token:
        yield "admin_token: not configured any more; on SIGHUP the bridge does without"


def _told(changed: Iterable[str], *, asked: bool) -> str:
    return ", ".join(changed) or ("nothing; transforms are loaded anew" if asked else "nothing; it is as it was")


def strays(settings: Settings, loaded: Loaded) -> list[str]:
    """The user's modules that no delivery ever comes to."""
    known = {*settings.sources, *providers.load()}
    return [f"{name}.py" for name in loaded.own if name not in known]
