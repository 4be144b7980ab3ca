"""transform: the events a delivery would become."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import click
import orjson
from rich.markup import escape

from bridge import config, journal, providers
from bridge.cli.configured import configured, read
from bridge.cli.entries import journal_of, one, open_journal
from bridge.cli.output import console, json_document, json_line
from bridge.clock import wall_clock
from bridge.dev import with_every_provider
from bridge.errors import BridgeError
from bridge.model import Delivery, Entry, Outcome, WebhookRequest
from bridge.settings import Settings
from bridge.transform import Result
from bridge.verify import verify
from bridge.worker.client import Worker, WorkerSettings


@click.command()
@click.argument("what", metavar="FILE|ID")
@click.option("--source", help="The source it came to, or would come to. Default: for a file, by its folder's name.")
@click.option("--json", "as_json", is_flag=True, help="The events as a JSON array.")
def transform(*, what: str, source: str | None, as_json: bool) -> None:
    """Show the events a delivery would become. Sends nothing. FILE: a body; ID: of a delivery in the journal.

    Exit status 1 where it becomes none because of a mistake.

    \b
    bridge transform evt_1PXq2Kd
    bridge transform body.json --source stripe
    """
    settings = configured()
    config.forget_secrets(os.environ)
    result, how = asyncio.run(_transform(settings, what, source))
    if result is None:
        raise BridgeError(how)
    if as_json:
        json_line([orjson.loads(event) for event in result.events])
    for event in () if as_json else result.events:
        console.print(escape(json_document(orjson.loads(event))), soft_wrap=True)
    if result.outcome is Outcome.SKIPPED and not as_json:
        console.print(f"skipped: {result.error}")
    elif result.outcome is Outcome.POSTPONED:
        raise BridgeError(f"postponed by {result.after:g} s: {result.error}")
    elif result.outcome is not None and result.outcome is not Outcome.SKIPPED:
        raise BridgeError(f"{result.outcome.value}: {result.error}")


async def _transform(settings: Settings, what: str, source: str | None) -> tuple[Result | None, str]:
    entry = _entry_of(what, settings, source) if os.path.isfile(what) else await _entry_in(settings, what, source)  # noqa: ASYNC240, PTH113 - nothing else runs here
    worker = Worker(WorkerSettings.of(settings))
    try:
        [result], how = await worker.run([entry], now=wall_clock())
    finally:
        await worker.stop()
    return result, how


async def _entry_in(settings: Settings, id_: str, source: str | None) -> Entry:
    url = journal_of(settings)
    if not journal.exists(url):
        raise BridgeError(f"{id_}: no such file, and there is no journal at {url}")
    async with open_journal(url) as store:
        found = await one(store, id_, source, unknown="no such file, and not in the journal")
        return await store.load(found.seq) or found


def _entry_of(file: str, settings: Settings, source: str | None) -> Entry:
    """As if it had come, signed, to the source: only verification makes a delivery."""
    path = Path(file)
    name = source or path.resolve().parent.name
    known = with_every_provider(settings).sources
    if name not in known:
        raise click.UsageError(f"which source would {path} come to? Say --source, and one of {', '.join(known)}")
    secret = b"for this once"
    whose = replace(known[name].source(name), secrets=(secret,))
    provider = providers.load()[whose.provider]
    body, now = read(path), wall_clock()
    request = WebhookRequest(headers=provider.scheme.sign(body, secret=secret, now=now), body=body, received_at=now)
    delivery = verify(request, source=whose, provider=provider, now=now)
    if not isinstance(delivery, Delivery):
        raise BridgeError(f"{path}: a handshake: answered, and no event")
    return Entry.of(delivery)
