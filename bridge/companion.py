"""A process that does one thing for this one, and the channel to it: started when it is needed, ended without a fuss."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping

from bridge.process import command, send

# Seconds an idle one needs to leave by itself, once its channel is closed.
_LEAVING = 0.2


class Companion:
    """Reads and writes bytes. Whoever uses it knows what they mean."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self.reader = reader
        self.writer = writer

    @classmethod
    async def start(cls, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Companion:
        """`python -m module DESCRIPTOR PARENT ARGUMENTS`, in our environment or another. Raises OSError where there is no
        room for one more.

        What it prints belongs beside the log, not into what a command prints.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *command(module, str(theirs.fileno()), str(os.getpid()), *arguments),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=2,
                    env=environment,
                    start_new_session=True,  # what a terminal or an init sends to all is for the supervisor alone
                )
            return cls(process, *await asyncio.open_connection(sock=ours))
        except BaseException:
            ours.close()  # which it notices, and leaves
            raise

    async def stop(self) -> str:
        """End it. How it ended: `ended with exit status 1`, `was ended by signal 9`."""
        self.writer.transport.abort()  # not close(): what a stopped process does not read would hold it open
        try:
            async with asyncio.timeout(_LEAVING):
                await self._process.wait()
        except TimeoutError:
            send(signal.SIGKILL, self._process.pid)
            await self._process.wait()
        code = self._process.returncode or 0
        return f"was ended by signal {-code}" if code < 0 else f"ended with exit status {code}"
