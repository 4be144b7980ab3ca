"""serve: the service itself. Imports nothing that only the other commands need: it is there for as long as it runs."""

from __future__ import annotations

import asyncio
import os

import click

from bridge import log
from bridge.errors import ConfigInvalid
from bridge.serve import Service, configuration
from bridge.settings import Settings


@click.command()
def serve() -> None:
    """Run the bridge: receive, verify, journal, transform, forward. Stops on SIGTERM or Ctrl-C.

    Configured by the environment, and by bridge.toml where it exists; `bridge check` tells whether it is right.

    \b
    STRIPE_WEBHOOK_SECRET=whsec_... INNGEST_EVENT_KEY=... bridge serve
    """
    log.configure("supervisor")
    settings, faults = configuration(os.environ)
    asyncio.run(_serve(settings, faults))


async def _serve(settings: Settings, faults: list[str]) -> None:
    service = Service(settings)
    if faults := [*faults, *await service.prepare()]:
        await service.close()
        raise ConfigInvalid(faults)
    await service.run()
