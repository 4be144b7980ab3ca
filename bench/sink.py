"""`python -m bench.sink SECONDS`: an Event API that takes everything, looks at nothing but ids, and answers after so long.

Prints its port. Then reads lines: for a number it answers, once so many events came in since the last, with a line of JSON:
when each of them came in, by the delivery's id; and begins anew.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import uvloop
from aiohttp import web

# Seconds until what was acknowledged has to have arrived.
_PATIENCE = 300.0


class _Sink:
    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.arrived: dict[str, float] = {}
        self.goal = 0
        self.reached = asyncio.Event()

    async def take(self, request: web.BaseRequest) -> web.Response:
        if request.method != "POST":
            return web.json_response({})
        body = await request.read()
        await asyncio.sleep(self.delay)
        found = orjson.loads(body)
        events = found if isinstance(found, list) else [found]
        now = time.monotonic()
        for event in events:
            self.arrived.setdefault(event["data"]["id"], now)
        if self.goal and len(self.arrived) >= self.goal:
            self.reached.set()
        return web.json_response({"ids": ["01" + "0" * 24] * len(events), "status": 200})


class Sink:
    """The process, from outside."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{port}"

    async def arrivals(self, count: int) -> dict[str, float]:
        """When each delivery arrived, once so many have: seconds of the machine's monotonic clock. Then it begins anew."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - pipes
        self._process.stdin.write(b"%d\n" % count)
        try:
            async with asyncio.timeout(_PATIENCE):
                arrived: dict[str, float] = json.loads(await self._process.stdout.readline())
        except TimeoutError:
            raise AssertionError(f"not all of {count:,} deliveries arrived within {_PATIENCE:.0f} s") from None
        return arrived

    async def seconds_for(self, count: int) -> float:
        """From the first of so many to the last."""
        arrived = await self.arrivals(count)
        return max(arrived.values()) - min(arrived.values())


@asynccontextmanager
async def sink(*, delay: float = 0) -> AsyncIterator[Sink]:
    """`delay`: seconds until it answers."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.sink", str(delay)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 30,
        start_new_session=True,  # a terminal's Ctrl-C is for who measures
    )
    assert process.stdout is not None  # noqa: S101 - a pipe
    try:
        yield Sink(process, int(await process.stdout.readline()))
    finally:
        process.kill()
        await process.wait()


async def main() -> None:
    found = _Sink(float(sys.argv[1]))
    runner = web.ServerRunner(web.Server(found.take, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201 - what it is for
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        found.goal = int(line)
        if len(found.arrived) < found.goal:
            await found.reached.wait()
        print(json.dumps(found.arrived), flush=True)  # noqa: T201 - as above
        found.arrived, found.goal = {}, 0
        found.reached.clear()
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(main())
