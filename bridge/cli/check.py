"""check: tells whether everything is there that `bridge serve` needs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from urllib.parse import urlsplit

import click
from rich.markup import escape

from bridge import config, journal, log
from bridge.cli.output import console
from bridge.errors import BridgeError, ConfigInvalid
from bridge.event_api import EventApi, Verdict
from bridge.settings import Settings
from bridge.worker.client import Worker, WorkerSettings


@click.command()
def check() -> None:
    """Check the configuration, secrets, transforms, the journal and the Event API. Exit status 2 where one is not right.

    Sends no event.

    \b
    STRIPE_WEBHOOK_SECRET=whsec_... INNGEST_EVENT_KEY=... bridge check
    """
    log.configure()
    settings, faults = config.read(os.environ)
    config.forget_secrets(os.environ)
    faults = asyncio.run(_check(settings, faults))
    if faults:
        raise ConfigInvalid(faults)


async def _check(settings: Settings, faults: list[str]) -> list[str]:
    names = ", ".join(settings.sources) or "none"
    _tell("configuration", not faults, f"{len(settings.sources)} sources: {names}")
    found = [await each(settings) for each in (_check_transforms, _check_journal, _check_event_api)]
    return [*faults, *(fault for each in found for fault in each)]


def _tell(what: str, right: bool, more: str) -> None:  # noqa: FBT001 - private, and read at once
    mark = "[green]ok[/]  " if right else "[red]not[/] "
    console.print(f"{mark} {what:<14} {escape(log.printable(more))}", soft_wrap=True)


async def _check_transforms(settings: Settings) -> Sequence[str]:
    worker = Worker(WorkerSettings.of(settings))
    loaded = await worker.start()
    await worker.stop()
    own = ", ".join(loaded.own) or "none"
    _tell("transforms", not loaded.faults, f"built in: {', '.join(loaded.built_in)}; of your own: {own}")
    return loaded.faults


async def _check_journal(settings: Settings) -> Sequence[str]:
    fault = ""
    if settings.journal:
        store = journal.at(settings.journal)
        try:
            await store.check()
        except BridgeError as error:
            fault = f"journal: {error}"
        finally:
            await store.close()
    _tell("journal", not fault and bool(settings.journal), settings.journal or "none, see below")
    return [fault] if fault else []


async def _check_event_api(settings: Settings) -> Sequence[str]:
    """What was said of the key and the URL with the configuration's other faults is not said again."""
    api = settings.event_api
    try:
        async with EventApi(api.key, base_url=api.url, dev=api.is_dev, env=api.env, timeout=10) as open_:
            answer = await open_.probe()
    except ValueError:
        _tell("Event API", right=False, more="not asked, see below")
        return []
    # Without its path: people paste URLs with the key in them.
    parts = urlsplit(api.url)
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    right = answer.verdict is Verdict.ACCEPTED
    _tell("Event API", right, where)
    return [] if right else [f"event_api: {where}: {answer.error}"]
