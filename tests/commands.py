"""Runs the `bridge` command: in this process, as one of its own, or on a terminal, with what it speaks to and looks into."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, chdir, contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from click.testing import CliRunner
from receiving import logging_into

from bridge import journal
from bridge.cli import main
from bridge.model import Attempt, Delivery, Outcome, Settlement, State
from bridge.stand_in import StandIn

T0 = 1_767_225_600_000  # the first moment of 2026
BRIDGE = str(Path(sys.executable).with_name("bridge"))
XTERM = {"TERM": "xterm-256color"}
OUTCOMES = {State.FORWARDED: Outcome.FORWARDED, State.SKIPPED: Outcome.SKIPPED, State.DEAD: Outcome.RAISED}


class Ran(NamedTuple):
    """What a command came to."""

    status: int
    out: str
    err: str = ""


def run(*arguments: str, cwd: Path, **variables: str) -> Ran:
    """In this process: what the command raises and does not turn into a line goes on."""
    ours = {
        name: None for name in os.environ if name.startswith(("BRIDGE_", "INNGEST_", "STRIPE_", "SLACK_", "INTERC"))
    }
    with chdir(cwd), logging_into(io.StringIO()):  # what a command does to it, and this process needs as it was
        result = CliRunner().invoke(main, arguments, env={**ours, **variables}, catch_exceptions=False)
    return Ran(result.exit_code, result.stdout, result.stderr)


class Process:
    """`bridge ...` as a process of its own, on a terminal where TERM says of which kind, else on a pipe.

    What it writes is read as it comes. Used by `with`: does not outlive it.
    """

    def __init__(self, *arguments: str, cwd: Path, **variables: str) -> None:
        self.said = ""
        self._terminal = "TERM" in variables
        self._ours, theirs = pty.openpty() if self._terminal else os.pipe()
        self.process = subprocess.Popen(
            [BRIDGE, *arguments],
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "COLUMNS": "150", **variables},
            stdin=theirs if self._terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def until(self, text: str, *, times: int = 1) -> str:
        """All it has written, once this is in it. Raises EOFError if it ends without."""
        while self.said.count(text) < times:
            chunk = self._read()
            if not chunk:
                raise EOFError(f"no {text!r} in: {self.said}")
            self.said += chunk
        return self.said

    def answer(self, line: str) -> None:
        os.write(self._ours, line.encode())

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, *, within: float = 60) -> Ran:
        """All it wrote, and its exit status."""
        while chunk := self._read():
            self.said += chunk
        return Ran(self.process.wait(within), self.said)

    def _read(self) -> str:
        try:
            return os.read(self._ours, 65_536).decode(errors="replace")
        except OSError:  # how a terminal says that nobody holds it any more
            if self._terminal:
                return ""
            raise


def on_terminal(*arguments: str, cwd: Path, **variables: str) -> Ran:
    with Process(*arguments, cwd=cwd, **XTERM, **variables) as process:
        return process.ended()


@asynccontextmanager
async def standing_in(key: str | None = None, *, port: int = 0) -> AsyncIterator[StandIn]:
    """A stand-in for the Event API: a dev server, or with a key one of production."""
    api = StandIn(key=key)
    await api.start(port)
    try:
        yield api
    finally:
        await api.stop()


@contextmanager
def closed_url() -> Iterator[str]:
    """A URL where nothing listens, and nothing else will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def delivery(
    id: str, *, source: str = "stripe", type: str = "customer.created", received_at: int = T0, body: bytes = b""
) -> Delivery:
    body = body or b'{"id":"%b","object":"event","type":"%b","created":1767225599,"data":{"object":{}}}' % (
        id.encode(),
        type.encode(),
    )
    return Delivery(
        source=source,
        provider="stripe",
        prefix="stripe",
        id=id,
        type=type,
        occurred_at=received_at - 1000,
        received_at=received_at,
        headers={"stripe-signature": "t=1767225600,v1=00"},
        body=body,
        payload={},
    )


def fill(folder: Path, entries: Iterable[tuple[Delivery, State]], *, error: str = "", name: str = "bridge.db") -> None:
    """A journal in this folder, with these. `error`: what is told of the dead."""

    async def filled() -> None:
        store = await journal.open(f"sqlite:///{folder}/{name}")
        for each, state in entries:
            await store.append(each)
            if state is State.PENDING:
                continue
            [claimed] = await store.claim(1, now=each.received_at, lease=1)
            assert claimed.id == each.id, "a pending one is in the way: name those last"
            attempt = Attempt(
                at=each.received_at + 50,
                outcome=OUTCOMES[state],
                error=error if state is State.DEAD else "",
                events=int(state is State.FORWARDED),
            )
            await store.settle([Settlement(seq=claimed.seq, token=claimed.token, state=state, attempt=attempt)])
        await store.close()

    asyncio.run(filled())
