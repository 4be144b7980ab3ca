"""Takes the place of Inngest's dev server, whose image is in a registry: the project's stand-in for the Event API, on port 8288.

Prints each event as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json

from bridge.stand_in import StandIn


async def main() -> None:
    api = StandIn(on_event=lambda event: print(json.dumps(event), flush=True))  # noqa: T201 - that is how it is looked at
    await api.start(8288, host="0.0.0.0")  # noqa: S104 - of a container
    await asyncio.Event().wait()


asyncio.run(main())
