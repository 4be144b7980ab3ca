"""`bridge dev`: a whole bridge for one's own machine, without any configuration.

Sources that are not configured get a secret everybody knows, so it listens on this machine alone. Events go to the dev
server where one runs, else to a stand-in that shows what it gets: never to the real Event API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import aiohttp

from bridge import journal, providers
from bridge.settings import DEV_SERVER, EventApiSettings, Settings, SourceSettings
from bridge.stand_in import StandIn

_PROBE_TIMEOUT = aiohttp.ClientTimeout(total=1)


def known_secret(provider: str) -> str:
    """What signs where no secret is configured. No secret at all: `bridge serve` never takes it."""
    return f"whsec_{provider}_in_development"


def with_every_provider(settings: Settings) -> Settings:
    """A source for each provider that has none, and that secret for each source whose own is not here."""
    configured = {
        name: source if source.secrets else replace(source, secrets=(known_secret(source.provider),))
        for name, source in settings.sources.items()
    }
    had = {source.provider for source in configured.values()}
    added = {
        name: SourceSettings(provider=name, secrets=(known_secret(name),))
        for name in providers.load()
        if name not in had and name not in configured
    }
    return replace(settings, sources={**configured, **added})


# Not the journal of `bridge serve`: what was acknowledged there must not end in a stand-in, nor a sample at Inngest.
JOURNAL = "sqlite:///bridge-dev.db"


def on_this_machine(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """On loopback and with a journal of its own, unless BRIDGE_HOST and BRIDGE_JOURNAL say otherwise."""
    host = settings.host if environment.get("BRIDGE_HOST") else "127.0.0.1"
    named = environment.get("BRIDGE_JOURNAL") or environment.get("BRIDGE_JOURNAL_FILE")
    return replace(settings, host=host, journal=settings.journal if named else JOURNAL)


def journal_at_hand(settings: Settings) -> str:
    """The one that commands look into: as configured; where none is, and there is none, that of `bridge dev`."""
    default = settings.journal == Settings().journal
    return JOURNAL if default and not journal.exists(settings.journal) and journal.exists(JOURNAL) else settings.journal


class Destination:
    """Where events go in development: a dev server where one answers, else a stand-in of ours."""

    def __init__(self, settings: Settings, *, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._settings = settings
        self.stand_in = StandIn(on_event=on_event)
        self.is_stand_in = False
        self.url = self.sought = ""
        """Where events go, and where a dev server was sought."""

    async def open(self) -> Settings:
        """Find the dev server or start the stand-in. The settings that send there."""
        api = self._settings.event_api
        self.sought = api.url if api.is_dev else DEV_SERVER
        if await _answers(self.sought):
            self.url = self.sought
        else:
            await self.stand_in.start()
            self.is_stand_in, self.url = True, self.stand_in.url
        mine = EventApiSettings(dev=self.url, env=api.env, max_event_bytes=api.max_event_bytes)
        return replace(self._settings, event_api=mine)

    async def close(self) -> None:
        if self.is_stand_in:
            await self.stand_in.stop()


async def _answers(url: str) -> bool:
    """Whether a dev server is there. `/dev` is its own page of information: nothing else has it."""
    try:
        async with (
            aiohttp.ClientSession(timeout=_PROBE_TIMEOUT) as session,
            session.get(f"{url.rstrip('/')}/dev", allow_redirects=False) as response,
        ):
            return response.status == HTTPStatus.OK and "json" in response.content_type
    except (aiohttp.ClientError, OSError, ValueError, asyncio.IncompleteReadError):  # ValueError: no URL
        return False
