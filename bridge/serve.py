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
import signal
import socket
from collections.abc import Iterable, Iterator
from dataclasses import fields

from aiohttp import web

from bridge import journal, listeners, log, metrics, providers
from bridge.admin import Admin
from bridge.children import Children
from bridge.clock import wall_clock
from bridge.errors import BridgeError, ConfigInvalid
from bridge.journal import Journal
from bridge.reading import Configuration
from bridge.settings import Settings
from bridge.worker.client import Loaded, Worker, WorkerSettings

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
                self._journal = await _opened(settings)
            except BridgeError as error:
                faults.append(f"journal: {error}")
        loaded = await _loaded(settings)
        self._modules = loaded.files
        return [*faults, *loaded.faults]

    async def run(self) -> None:
        """Serve until `stop`, SIGTERM or SIGINT. Everything `prepare` took hold of is let go of."""
        assert self._public is not None  # noqa: S101 - `prepare` had no fault
        assert self._private is not None  # noqa: S101 - as above
        counted = metrics.Directory()
        children = Children(
            public=self._public, metrics_directory=str(counted.path), ready=self.ready, failed=self.stop
        )
        private = self._admin(children, str(counted.path)).application()
        admin = web.AppRunner(private, access_log=None, handle_signals=False, shutdown_timeout=1)
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self.stop)
        try:
            await admin.setup()
            await web.SockSite(admin, self._private).start()
            children.start((self.settings, self._modules))
            log.info(
                "service.started", public=listeners.address(self._public), private=listeners.address(self._private)
            )
            following = asyncio.create_task(self._follow(children))
            await self._stopping.wait()
            following.cancel()
            log.info("service.stopping")
            # Closed here too, or the kernel would go on taking connections nobody accepts.
            self._public.close()
            await children.stop()
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
            metrics_directory=metrics_directory,
            clock=wall_clock,
        )

    async def _follow(self, children: Children) -> None:
        """For ever: take the configuration as it is by then, all of it, or leave it as it was and say why."""
        while self._configuration is not None:
            asked = await self._configuration.changed()
            try:
                settings, faults = await self._configuration.read()
                changed = [each.name for each in fields(settings) if _differ(self.settings, settings, each.name)]
                if not changed and not faults and not asked:
                    continue
                if faults := [*faults, *_fixed(self.settings, settings, changed)]:
                    raise ConfigInvalid(faults)
                await self._take(settings, children)
            except BridgeError as error:
                for fault in error.faults if isinstance(error, ConfigInvalid) else [str(error)]:
                    log.error("configuration.refused", reason=fault)
            else:
                log.info("configuration.taken", changed=", ".join(changed) or "nothing; transforms are loaded anew")

    async def _take(self, settings: Settings, children: Children) -> None:
        """Raises BridgeError where it can't be taken; then all is as it was."""
        loaded = await _loaded(settings)
        if loaded.faults:
            raise ConfigInvalid(loaded.faults)
        before = self._journal
        after = before if settings.journal == self.settings.journal else await _opened(settings)
        try:
            await children.replace((settings, loaded.files))
        except TimeoutError:
            if after is not None and after is not before:
                await after.close()
            raise BridgeError("no receiver could be started with it") from None
        self.settings, self._modules, self._journal = settings, loaded.files, after
        if before is not None and before is not after:
            await before.close()


async def _opened(settings: Settings) -> Journal:
    """The journal, tried. Raises BridgeError."""
    opened = await journal.open(settings.journal, connections=settings.journal_connections)
    try:
        await opened.reserve()
        await opened.check()
    except BaseException:
        await opened.close()
        raise
    return opened


async def _loaded(settings: Settings) -> Loaded:
    """The transforms, tried."""
    worker = Worker(WorkerSettings.of(settings))
    loaded = await worker.start()
    await worker.stop()
    for name in () if loaded.faults else strays(settings, loaded):
        log.warning("transform.unused", module=name, reason="named after no source and no provider")
    return loaded


def _differ(before: Settings, after: Settings, name: str) -> bool:
    return bool(getattr(before, name) != getattr(after, name))


def _fixed(before: Settings, after: Settings, changed: Iterable[str]) -> Iterator[str]:
    """What can't change while the service lives."""
    for name in changed:
        if name in _BOUND or (name == "journal" and "sqlite:" in {before.journal[:7], after.journal[:7]}):
            yield f"{name}: restart the bridge to change it"


def strays(settings: Settings, loaded: Loaded) -> list[str]:
    """The user's modules that no delivery ever comes to."""
    known = {*settings.sources, *providers.load()}
    return [f"{name}.py" for name in loaded.own if name not in known]
