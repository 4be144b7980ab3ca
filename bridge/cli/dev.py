"""dev: a bridge for one's own machine that shows what it does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import aiohttp
import click
from rich.markup import escape
from rich.syntax import Syntax

from bridge import config, log, webhooks
from bridge import dev as development
from bridge.cli.output import console, json_document, json_line
from bridge.errors import ConfigInvalid
from bridge.event_api import reason
from bridge.model import Source
from bridge.serve import Service
from bridge.settings import Settings

# What `dev --try` sends: something everybody knows, of each provider.
_FIRST = (("stripe", "customer.created"), ("slack", "app_mention"), ("intercom", "conversation.user.created"))
_SHOWN_LINES = 12
# Seconds for the events of `dev --try`: the forwarder takes milliseconds, a cold machine more.
_PATIENCE = 15


@click.command()
@click.option("--try", "trying", is_flag=True, help="Send one signed webhook of each provider, and show the events.")
def dev(*, trying: bool) -> None:
    """Run a whole bridge on this machine, with nothing to configure.

    Sources for all providers, the journal in bridge.db, and events shown here, or sent to the Inngest dev server where
    one runs on localhost:8288.

    \b
    bridge dev
    bridge send slack app_mention       in another terminal
    """
    log.configure("supervisor")
    settings, faults = config.read(os.environ, serving=False)
    config.forget_secrets(os.environ)
    asyncio.run(_dev(settings, faults, trying=trying))


async def _dev(settings: Settings, faults: list[str], *, trying: bool) -> None:
    settings = development.on_this_machine(development.with_every_provider(settings), os.environ)
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
                _welcome(service, destination)
        ready.cancel()
        await running
    finally:
        await destination.close()


def _show(event: Mapping[str, Any]) -> None:
    """An event that arrived: to look at on a terminal, a line of JSON otherwise."""
    if not console.is_terminal:
        json_line(event)
        return
    console.print(
        f"\n[bold green]event[/] [bold]{_text(event, 'name')}[/]  [dim]{_text(event, 'id')}[/]", soft_wrap=True
    )
    lines = json_document({name: event[name] for name in ("user", "data") if name in event}).splitlines()
    console.print(Syntax("\n".join(lines[:_SHOWN_LINES]), "json", background_color="default"))
    if len(lines) > _SHOWN_LINES:
        console.print(f"  [dim]... {len(lines) - _SHOWN_LINES} more lines[/]")


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
    if destination.is_stand_in and expected:
        try:
            async with asyncio.timeout(_PATIENCE):
                await destination.stand_in.received(expected)
        except TimeoutError:
            console.print(f"not all of them became events within {_PATIENCE} s: `bridge list` tells why")


async def _post(body: bytes, name: str, source: Source, address: str) -> bool:
    """Whether it was accepted."""
    url = webhooks.url_of(source.name, base=f"http://{address}")
    try:
        reply = await webhooks.post(body, source=source, url=url)
    except (aiohttp.ClientError, OSError) as error:
        console.print(
            f"POST {url}  {source.provider} {name}: {reason(error, timeout=webhooks.TIMEOUT)}", soft_wrap=True
        )
        return False
    took = f"{reply.status} in {reply.seconds * 1000:.0f} ms"
    console.print(f"POST {url}  {source.provider} {name}: {took}", soft_wrap=True)
    return reply.is_accepted


def _welcome(service: Service, destination: development.Destination) -> None:
    public, private = service.public_address, service.private_address
    where = f"sent to the dev server, {destination.url}"
    if destination.is_stand_in:
        where = f"shown here by a stand-in, {destination.url}: no dev server answers at {destination.sought}"
    rows = [(name, f"http://{public}/webhooks/{name}") for name in service.settings.sources]
    rows += [
        ("private", f"http://{private}/readyz  http://{private}/metrics"),
        ("events", where),
        ("journal", service.settings.journal),
    ]
    commands = [
        ("bridge send stripe invoice.paid", "another signed webhook"),
        ("bridge list", "what the journal holds"),
        ("bridge transform ID", "the events of one of them, whole"),
        ("bridge replay --state forwarded", "send it again, with the same event ids"),
        (f"stripe listen --forward-to {public}/webhooks/stripe", "real ones; STRIPE_WEBHOOK_SECRET is what it prints"),
    ]
    console.print("\n[bold]The bridge is running.[/] Ctrl-C stops it.\n")
    for name, value in rows:
        console.print(f"  {name:<10} {escape(value)}", soft_wrap=True)
    console.print("\nNext, in another terminal (with `make run`, the command is .venv/bin/bridge):")
    for command, what in commands:
        console.print(f"  [bold]{escape(command):<36}[/] [dim]{what}[/]", soft_wrap=True)
