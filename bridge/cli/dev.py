"""dev: a bridge for one's own machine that shows what it does."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import click
from rich.highlighter import JSONHighlighter
from rich.markup import escape
from rich.text import Text

from bridge import config, journal, log, webhooks
from bridge import dev as development
from bridge.cli.output import console, json_document, json_line
from bridge.config import checks, traces
from bridge.errors import ConfigInvalid
from bridge.event_api import reason
from bridge.model import Source
from bridge.serve import Service
from bridge.settings import Settings

# What `dev --try` sends: something everybody knows, of each provider.
_FIRST = (("stripe", "customer.created"), ("slack", "app_mention"), ("intercom", "conversation.user.created"))
_SHOWN_LINES = 12
_HIGHLIGHT = JSONHighlighter()
# Seconds for the events of `dev --try`: the forwarder takes milliseconds, a cold machine more.
_PATIENCE = 15


@click.command()
@click.option("--try", "trying", is_flag=True, help="Send one signed webhook of each provider, and show the events.")
def dev(*, trying: bool) -> None:
    """Run a whole bridge on this machine, with nothing to configure.

    Sources for all providers, a journal of its own in bridge-dev.db, and events shown here, or sent to the Inngest dev
    server where one runs on localhost:8288.

    \b
    bridge dev
    bridge send slack app_mention       in another terminal
    """
    log.configure("supervisor")
    configured, faults = config.read(os.environ, serving=False)
    settings = development.on_this_machine(development.with_every_provider(configured), os.environ)
    config.forget_secrets(os.environ)
    faults += checks.exposed(settings, os.environ)
    faults += traces.faults(os.environ)
    asyncio.run(_dev(settings, configured, faults, trying=trying))


async def _dev(settings: Settings, configured: Settings, faults: list[str], *, trying: bool) -> None:
    destination = development.Destination(settings, on_event=_show)
    service = Service(await destination.open())
    try:
        if faults := [*faults, *await service.prepare()]:
            await service.close()
            raise ConfigInvalid(faults)
        running = asyncio.create_task(service.run())
        ready = asyncio.create_task(service.ready.wait())
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            trial = asyncio.create_task(_try(service, destination) if trying else asyncio.sleep(0))
            await asyncio.wait({running, trial}, return_when=asyncio.FIRST_COMPLETED)  # Ctrl-C waits for no trial
            if not trial.cancel():
                await trial
                _welcome(service, destination, configured)
        ready.cancel()
        await running
    finally:
        await destination.close()


def _show(event: Mapping[str, Any]) -> None:
    """An event that arrived: to look at on a terminal, a line of JSON otherwise."""
    if not console.is_terminal:
        json_line(event)
        return
    console.print(f"\n[bold green]event[/] [bold]{_text(event, 'name')}[/]", soft_wrap=True)
    console.print(f"   id [dim]{_text(event, 'id')}[/]", soft_wrap=True)
    lines = json_document({name: event[name] for name in ("user", "data") if name in event}).splitlines()
    for line in lines[:_SHOWN_LINES]:
        console.print(_HIGHLIGHT(Text(line)), no_wrap=True, overflow="ellipsis")
    if len(lines) > _SHOWN_LINES:
        console.print(f"  [dim]... {len(lines) - _SHOWN_LINES} more lines: `{_command()} transform ID` shows all[/]")


@cache
def _command() -> str:
    """How this command is called again: on many systems there is another `bridge` in the PATH."""
    called = Path(sys.argv[0])
    found = shutil.which("bridge")
    if found and Path(found).resolve() == called.resolve():
        return "bridge"
    return os.path.relpath(called) if called.is_relative_to(Path.cwd()) else str(called)


def _text(event: Mapping[str, Any], field: str) -> str:
    return escape(log.printable(str(event.get(field))))


async def _try(service: Service, destination: development.Destination) -> None:
    """Over HTTP, signed with the source's secret: the way a provider comes."""
    expected = 0
    for provider, name in _FIRST:
        sources = service.settings.sources.items()
        source = next((source.source(key) for key, source in sources if source.provider == provider), None)
        if source is not None:
            expected += await _post(webhooks.sample(provider, name), name, source, service.public_address)
    if not expected:
        return
    if not destination.is_stand_in:
        console.print(f"\nTheir events are on their way to the dev server: look for them at {destination.url}")
        return
    try:
        async with asyncio.timeout(_PATIENCE):
            await destination.stand_in.received(expected)
    except TimeoutError:
        console.print(f"not all of them became events within {_PATIENCE} s: `{_command()} list` tells why")


async def _post(body: bytes, name: str, source: Source, address: str) -> bool:
    """Whether it was accepted."""
    url = webhooks.url_of(source.name, base=f"http://{address}")
    what = f"POST /webhooks/{source.name}  {name}"
    try:
        reply = await webhooks.post(body, source=source, url=url)
    except (aiohttp.ClientError, OSError) as error:
        console.print(f"{what}: {reason(error, timeout=webhooks.TIMEOUT)}", soft_wrap=True)
        return False
    console.print(f"{what}: {reply.status} in {reply.seconds * 1000:.0f} ms", soft_wrap=True)
    return reply.is_accepted


def _welcome(service: Service, destination: development.Destination, configured: Settings) -> None:
    public, private = service.public_address, service.private_address
    where = f"sent to the dev server, {destination.url}"
    if destination.is_stand_in:
        where = f"shown here: no dev server answers at {destination.sought}"
    sources = service.settings.sources
    rows = [(name, f"http://{public}/webhooks/{name}") for name in sources]
    rows += [
        ("health", f"http://{private}/readyz"),
        ("metrics", f"http://{private}/metrics"),
        ("events", where),
        ("journal", journal.shown(service.settings.journal)),
    ]
    console.print("\n[bold]The bridge is running.[/] Ctrl-C stops it.\n")
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(f"  {name:<{width}}  {escape(value)}", soft_wrap=True)
    bridge = _command()
    port = service.settings.port
    to = "" if port == Settings().port else f" --to {public}"
    looking = bridge
    if development.journal_at_hand(configured) != service.settings.journal:
        looking = f"BRIDGE_JOURNAL={journal.shown(service.settings.journal)} {bridge}"
    console.print("\nNext, in another terminal:\n")
    for command, what in (
        (f"{bridge} send stripe invoice.paid{to}", "another signed webhook"),
        (f"{looking} list", "what the journal holds"),
        (f"{looking} transform ID", "the events of one of them, whole"),
        (f"{looking} replay ID", "send it again, with the same event ids"),
    ):
        console.print(f"  [bold]{escape(command):<{len(bridge) + len(to) + 26}}[/]  [dim]{what}[/]", soft_wrap=True)
    if name := next((name for name, source in sources.items() if source.provider == "stripe"), ""):
        console.print(
            "\nReal webhooks of Stripe: run this, and start the bridge again with the secret it\n"
            "prints in STRIPE_WEBHOOK_SECRET:\n\n"
            f"  [bold]stripe listen --forward-to {public}/webhooks/{name}[/]",
            soft_wrap=True,
        )
