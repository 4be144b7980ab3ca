"""`python -m bench.sink SECONDS`: an Event API that takes everything and looks at nothing, and answers after so long.

Prints its port; then, for every line it reads with a number, a line of JSON once so many events came in since the last:
seconds from the first of them to the last.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import orjson
from aiohttp import web


class Sink:
    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.count = 0
        self.first = 0.0
        self.goal = 0
        self.reached = asyncio.Event()

    async def take(self, request: web.BaseRequest) -> web.Response:
        if request.method != "POST":
            return web.json_response({})
        found = orjson.loads(await request.read())
        events = len(found) if isinstance(found, list) else 1
        if not self.first:
            self.first = time.perf_counter()
        await asyncio.sleep(self.delay)
        self.count += events
        if self.goal and self.count >= self.goal:
            self.reached.set()
        return web.json_response({"ids": ["01" + "0" * 24] * events, "status": 200})


async def main() -> None:
    sink = Sink(float(sys.argv[1]))
    runner = web.ServerRunner(web.Server(sink.take, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201 - what it is for
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        sink.goal = int(line)
        if sink.count < sink.goal:
            await sink.reached.wait()
        print(json.dumps(time.perf_counter() - sink.first), flush=True)  # noqa: T201 - as above
        sink.count, sink.goal, sink.first = 0, 0, 0.0
        sink.reached.clear()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
