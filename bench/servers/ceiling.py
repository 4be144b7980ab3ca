"""The ceiling: an aiohttp handler as one writes it, which reads the body and does nothing with it."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from aiohttp import web


async def take(request: web.Request) -> web.Response:
    await request.read()
    return web.Response()


async def main(port: int) -> None:
    application = web.Application(client_max_size=32 << 20)
    application.router.add_post("/webhooks/stripe", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
