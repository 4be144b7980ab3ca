"""`python attack.py PORT COUNT FIRST THEN`: so many connections that send the first bytes, then the others one by one, for ever.

In a process of its own, which may have as many files as it is allowed. After each change it says how many are open, and
the first lines of what they were answered; it ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import resource
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from service import until

# Seconds between two bytes.
_EVERY = 0.5
# So many from each of our addresses, 127.0.0.2 and on: none has ports without end.
_OF_AN_ADDRESS = 5_000


@dataclass(slots=True)
class Attack:
    """One that goes on."""

    count: int
    opened: int = 0
    """Those that could be opened; `open`: those that still are."""
    open: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    async def until_opened(self) -> None:
        await until(lambda: self.opened == self.count, patience=60)

    async def until_left(self, few: int = 0, *, patience: float = 60) -> None:
        await until(lambda: self.open <= few, patience=patience)


@asynccontextmanager
async def attack(port: int, count: int, *, first: bytes = b"", then: bytes = b"") -> AsyncIterator[Attack]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        *map(str, (port, count)),
        first.hex(),
        then.hex(),
        env={"PYTHONPATH": str(Path(__file__).parent)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    found = Attack(count)
    listening = asyncio.create_task(_listen(process, found))
    try:
        yield found
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
        await listening


async def _listen(process: asyncio.subprocess.Process, found: Attack) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        said: dict[str, Any] = orjson.loads(line)
        found.opened, found.open, found.answers = said["opened"], said["open"], Counter(said["answers"])


def most_connections() -> int:
    """As many as a process may have, less what it needs itself."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200


class _Attacker:
    def __init__(self, port: int, *, first: bytes, then: bytes) -> None:
        self._port, self._first, self._then = port, first, then
        self._sockets: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        self._answers: Counter[str] = Counter()
        self._opened = self._sent = 0
        self._said = ""

    def open(self) -> None:
        address = f"127.0.0.{2 + self._opened // _OF_AN_ADDRESS}"
        self._opened += 1
        with suppress(OSError):  # refused, or closed at once
            opened = socket.create_connection(("127.0.0.1", self._port), timeout=20, source_address=(address, 0))
            self._sockets[opened.fileno()] = opened
            self._poll.register(opened, select.EPOLLIN)
            opened.settimeout(1)
            opened.sendall(self._first)
            opened.settimeout(0)

    def send(self) -> None:
        """The next byte, from each."""
        if self._then:
            byte = self._then[self._sent % len(self._then) :][:1]
            self._sent += 1
            for each in self._sockets.values():
                with suppress(OSError):  # closed meanwhile, which is heard of soon
                    each.send(byte)

    def hear(self, *, until: float) -> None:
        while True:
            for number, _ in self._poll.poll(max(0, until - time.monotonic())):
                self._take(self._sockets[number])
            if time.monotonic() >= until:
                return

    def _take(self, sock: socket.socket) -> None:
        try:
            answer = sock.recv(65_536)
        except OSError:
            answer = b""
        if answer:
            self._answers[answer.partition(b"\r\n")[0].decode()] += 1
            return
        del self._sockets[sock.fileno()]
        sock.close()  # which ends its being polled

    def say(self) -> None:
        saying = json.dumps({"opened": self._opened, "open": len(self._sockets), "answers": self._answers})
        if saying != self._said:
            self._said = saying
            sys.stdout.write(saying + "\n")
            sys.stdout.flush()


def main(port: int, count: int, first: bytes, then: bytes) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    attacker = _Attacker(port, first=first, then=then)
    for n in range(count):
        attacker.open()
        if n % 100 == 0:
            attacker.hear(until=0)
    while not select.select([sys.stdin], [], [], 0)[0]:
        attacker.say()
        attacker.hear(until=time.monotonic() + _EVERY)
        attacker.send()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3]), bytes.fromhex(sys.argv[4]))
