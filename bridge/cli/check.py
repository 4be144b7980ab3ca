"""check: tells whether everything is there that `bridge serve` needs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import click
from rich.markup import escape

from bridge import config, journal, log
from bridge.cli.output import console, json_line
from bridge.errors import BridgeError, ConfigInvalid
from bridge.event_api import EventApi, Verdict
from bridge.serve import strays
from bridge.settings import Settings
from bridge.worker.client import Worker, WorkerSettings


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of one thing that was looked at."""

    what: str
    right: bool
    more: str
    faults: Sequence[str] = ()
    away: str = ""
    """Why it can't be told now. Nothing to mend in the configuration: `bridge serve` starts, and waits."""


@click.command(short_help="Tell whether all that `bridge serve` needs is right.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each thing looked at.")
def check(*, as_json: bool) -> None:
    """Check the configuration, secrets, transforms, the journal and the Event API. Sends no event, makes no journal.

    Exit status 2 where something is not right, 1 where all is, but the Event API is away just now.

    \b
    STRIPE_WEBHOOK_SECRET=whsec_... INNGEST_EVENT_KEY=... bridge check
    """
    log.configure()
    settings, faults = config.read(os.environ)
    config.forget_secrets(os.environ)
    sources = ", ".join(settings.sources)
    named = f"{len(settings.sources)} source{'s' if len(settings.sources) > 1 else ''}: {sources}"
    found = [Found("configuration", not faults, named if sources else "no source", faults)]
    found += asyncio.run(_check(settings))
    for each in found:
        _tell(each, as_json=as_json)
    if faults := [fault for each in found for fault in each.faults]:
        raise ConfigInvalid(faults)
    if away := [each.away for each in found if each.away]:
        raise BridgeError("; ".join(away))


async def _check(settings: Settings) -> list[Found]:
    return [await each(settings) for each in (_check_transforms, _check_journal, _check_event_api)]


def _tell(found: Found, *, as_json: bool) -> None:
    if as_json:
        json_line(
            {
                "what": found.what,
                "ok": found.right,
                "detail": found.more,
                "faults": [*found.faults, *filter(None, [found.away])],
            }
        )
        return
    mark = "[green]ok[/]  " if found.right else "[red]FAIL[/]"
    console.print(f"{mark} {found.what:<14} {escape(log.printable(found.more))}", soft_wrap=True)


async def _check_transforms(settings: Settings) -> Found:
    worker = Worker(WorkerSettings.of(settings))
    loaded = await worker.start()
    await worker.stop()
    more = f"built in: {', '.join(loaded.built_in)}; of your own: {', '.join(loaded.own) or 'none'}"
    if unused := strays(settings, loaded):
        more += f"; named after no source and no provider, so not used: {', '.join(unused)}"
    return Found("transforms", not loaded.faults, more, loaded.faults)


async def _check_journal(settings: Settings) -> Found:
    if not settings.journal:
        return Found("journal", right=False, more="not looked at, see below")
    shown = journal.shown(settings.journal)
    try:
        await journal.rehearse(settings.journal)
    except BridgeError as error:
        return Found("journal", right=False, more=shown, faults=[f"journal: {error}"])
    return Found("journal", right=True, more=shown)


async def _check_event_api(settings: Settings) -> Found:
    """What was said of the key and the URL with the configuration's other faults is not said again."""
    api = settings.event_api
    try:
        async with EventApi(api.key, base_url=api.url, dev=api.is_dev, env=api.env, timeout=10) as open_:
            answer = await open_.probe()
    except ValueError:
        return Found("Event API", right=False, more="not asked, see below")
    # Without its path: people paste URLs with the key in them.
    parts = urlsplit(api.url)
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    said = f"event_api: {where}: {answer.error}"
    if answer.verdict is Verdict.ACCEPTED:
        return Found("Event API", right=True, more=where)
    if answer.verdict is Verdict.UNAVAILABLE:
        return Found("Event API", right=False, more=f"{where} is away", away=said)
    return Found("Event API", right=False, more=where, faults=[said])
