"""Where the Event API would be, as a program: prints the events it takes, a line each."""

import asyncio
import sys
from typing import Any

import orjson

from bridge.stand_in import StandIn


def told(event: dict[str, Any]) -> None:
    sys.stdout.write(f"{orjson.dumps(event).decode()}\n")
    sys.stdout.flush()


async def main(port: int, key: str) -> None:
    api = StandIn(key=key, on_event=told)
    await api.start(port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
