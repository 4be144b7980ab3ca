"""serve: the service itself. Imports nothing that only the other commands need: it is there for as long as it runs."""

from __future__ import annotations

import asyncio
import os

import click

from bridge import log
from bridge.errors import ConfigInvalid
from bridge.reading import Configuration
from bridge.serve import Service


@click.command()
def serve() -> None:
    """Run the bridge: receive, verify, journal, transform, forward. Stops on SIGTERM or Ctrl-C; SIGHUP has it read its
    configuration again.

    Configured by the environment, and by bridge.toml where it exists; `bridge check` tells whether it is right.

    \b
    STRIPE_WEBHOOK_SECRET=whsec_... INNGEST_EVENT_KEY=... bridge serve
    """
    log.configure("supervisor")
    asyncio.run(_serve())


async def _serve() -> None:
    configuration = Configuration(os.environ)
    configuration.listen()
    settings, faults = await configuration.read()
    service = Service(settings, configuration=configuration)
    if faults := [*faults, *await service.prepare()]:
        await service.close()
        raise ConfigInvalid(faults)
    await service.run()
