"""The real `bridge serve` in a folder of its own, for the tests of the service: what one starts, asks, kills, and looks into."""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from processes import children, command_line, die_with_parent, environment, kill
from receiving import samples

from bridge import journal as journals
from bridge import providers
from bridge.clock import wall_clock
from bridge.journal import Journal
from bridge.model import Attempt, Entry, Selection, State

SECRETS = {
    "STRIPE_WEBHOOK_SECRET": "whsec_of_the_tests",
    "SLACK_SIGNING_SECRET": "slack_of_the_tests",
    "INTERCOM_CLIENT_SECRET": "intercom_of_the_tests",
}
BRIDGE = Path(sys.executable).with_name("bridge")
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str


def delivery(n: int | str, type_: str = "customer.created") -> bytes:
    """A Stripe event with an id of its own."""
    return orjson.dumps(
        {"id": f"evt_{n}", "object": "event", "type": type_, "created": 1_767_225_600, "data": {"object": {"n": n}}}
    )


class Service:
    """One `bridge serve`. `start` it, and again after it has ended: the folder stays."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self.public = self.private = ""
        self.logged = ""
        """All that it ever wrote to standard error."""
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self, *, ready: bool = True) -> None:
        """Return once `/readyz` answers 200, or else once it is being served."""
        await self._spawn()
        await until(lambda: self.public or self.ended)
        assert not self.ended, self.logged
        if ready:
            await self.until_ready()

    async def refuses_to_start(self) -> str:
        """What it says."""
        await self._spawn()
        assert await self.wait() == 2
        return self.logged

    async def _spawn(self) -> None:
        self.public = self.private = ""
        self._session = self._session or aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True), timeout=aiohttp.ClientTimeout(total=PATIENCE)
        )
        self._process = await asyncio.create_subprocess_exec(
            BRIDGE,
            "serve",
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # so that it can have a Ctrl-C of its own
            preexec_fn=partial(die_with_parent, signal.SIGKILL),
        )
        self._listening = asyncio.create_task(self._listen())
        atexit.register(self._end)  # where it does not die with us

    def _end(self) -> None:
        if not self.ended:
            kill(self.pid)

    async def _listen(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        async for line in self._process.stderr:
            self.logged += line.decode()
            if b'"service.started"' in line:
                started = orjson.loads(line)
                self.private = f"http://{started['private']}"
                self.public = f"http://{started['public']}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process is not None and self._process.returncode is not None

    def send_signal(self, number: int) -> None:
        """SIGINT as a terminal sends it: to all who have not left its session."""
        (os.killpg if number == signal.SIGINT else os.kill)(self.pid, number)

    async def wait(self) -> int:
        """Its exit status, once it and all who could write to its log have ended."""
        assert self._process is not None and self._listening is not None
        try:
            async with asyncio.timeout(PATIENCE):
                status = await self._process.wait()
                await self._listening
        except TimeoutError:
            kill(self._process.pid)
            raise
        return status

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit status. All of it is gone when this returns."""
        if not self.ended:
            self.send_signal(number)
        return await self.wait()

    async def kill(self) -> None:
        """The supervisor alone, and what it can then no longer tidy up. Returns when nobody writes to its log any more."""
        left = {environment(child).get("PROMETHEUS_MULTIPROC_DIR", "") for child in children(self.pid)} - {""}
        kill(self.pid)
        await self.wait()
        for directory in left:
            shutil.rmtree(directory, ignore_errors=True)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._process is not None and not self.ended:
            await self.stop()

    async def ask(
        self, method: str, url: str, *, session: aiohttp.ClientSession | None = None, **arguments: Any
    ) -> Answer:
        """Status 0: nobody answered. Without a `session`, over a connection of its own."""
        session = session or self._session
        assert session is not None
        try:
            async with session.request(method, url, allow_redirects=False, **arguments) as response:
                return Answer(response.status, await response.text())
        except (aiohttp.ClientError, ConnectionError):
            return Answer(0, "")

    async def post(
        self, body: bytes, *, source: str = "stripe", session: aiohttp.ClientSession | None = None
    ) -> Answer:
        """Signed as the provider signs."""
        provider = providers.load()[source]
        secret = SECRETS[provider.environment].encode()
        headers = provider.scheme.sign(body, secret=secret, now=wall_clock())
        return await self.ask("POST", f"{self.public}/webhooks/{source}", session=session, data=body, headers=headers)

    async def ready(self) -> Answer:
        return await self.ask("GET", f"{self.private}/readyz")

    async def until_ready(self) -> None:
        async def is_ready() -> bool:
            return (await self.ready()).status == 200

        try:
            await until(is_ready, every=0.1)  # each time stores something
        except TimeoutError:
            raise AssertionError(f"{(await self.ready()).text}\n{self.logged}") from None

    async def metrics(self) -> dict[tuple[str, ...], float]:
        return samples((await self.ask("GET", f"{self.private}/metrics")).text)

    async def until_counted(self, count: int, outcome: str, source: str = "stripe") -> None:
        """A receiver writes down what requests came to after it has answered them, unless it is killed in between."""

        async def counted() -> float:
            return (await self.metrics())["bridge_deliveries_total", outcome, source]

        async def is_so() -> bool:
            return await counted() == count

        try:
            await until(is_so)
        except TimeoutError:
            raise AssertionError(f"{outcome}: {await counted()}, not {count}") from None

    async def until_gauge(self, name: str, value: float) -> None:
        async def is_so() -> bool:
            return (await self.metrics())[name,] == value

        await until(is_so)

    def log(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.logged.splitlines()]

    def child(self, name: str) -> int:
        """The pid of the receiver or the forwarder; 0: there is none just now."""
        return next((pid for pid in children(self.pid) if name in command_line(pid)), 0)

    @asynccontextmanager
    async def journal(self) -> AsyncIterator[Journal]:
        store = journals.at(self.environment["BRIDGE_JOURNAL"], connections=1)
        yield store
        await store.close()

    async def entries(self) -> dict[str, Entry]:
        async with self.journal() as store:
            return {entry.id: entry for entry in await store.find(Selection(), limit=100_000)}

    async def attempts(self, id_: str) -> list[Attempt]:
        async with self.journal() as store:
            [entry] = await store.find(Selection(id=id_), limit=2)
            return list(await store.attempts(entry.seq))

    async def until_finished(self, count: int = 1, *, patience: float = PATIENCE) -> dict[str, Entry]:
        """The entries, once there are so many and none is pending."""
        async with self.journal() as store:

            async def finished() -> bool:
                counts = (await store.census()).counts
                return sum(counts.values()) >= count and not counts[State.PENDING]

            try:
                await until(finished, patience=patience)
            except TimeoutError:
                raise AssertionError(f"{await store.census()}\n{self.logged}") from None
        return await self.entries()

    async def run(self, *arguments: str) -> str:
        """What another `bridge` command prints."""
        process = await asyncio.create_subprocess_exec(
            BRIDGE,
            *arguments,
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0, arguments
        return printed.decode()


@asynccontextmanager
async def service(
    folder: Path, api: str, more: Mapping[str, str] | None = None, *, start: bool = True
) -> AsyncIterator[Service]:
    """Running and ready, with events going to `api`; nothing of it is left at the end. `more`: of its environment."""
    usual = {
        **SECRETS,
        "INNGEST_DEV": api,
        "BRIDGE_HOST": "127.0.0.1",
        "BRIDGE_PORT": "0",
        "BRIDGE_ADMIN_PORT": "0",
        "BRIDGE_JOURNAL": f"sqlite:///{folder}/bridge.db",
        "TMPDIR": str(folder),
    }
    found = Service(folder, usual | dict(more or {}))
    try:
        if start:
            await found.start()
        yield found
    finally:
        await found.close()


async def until(
    wanted: Callable[[], object | Awaitable[object]], *, patience: float = PATIENCE, every: float = 0.02
) -> None:
    """Look again and again until it is so."""
    async with asyncio.timeout(patience):
        while True:
            found = wanted()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(every)


def elapsed() -> Callable[[], float]:
    """Seconds since now."""
    started = time.monotonic()
    return lambda: time.monotonic() - started
