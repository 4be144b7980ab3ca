"""sources, send, transform: to connect a provider, and to try what happens to its webhooks."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import aiohttp
import click
import orjson
from rich.markup import escape

from bridge import config, journal, log, providers, samples, webhooks
from bridge.cli.entries import journal_of, one, open_journal
from bridge.cli.output import console, json_document, json_line
from bridge.clock import wall_clock
from bridge.dev import known_secret, with_every_provider
from bridge.errors import BridgeError
from bridge.event_api import reason
from bridge.model import Delivery, Entry, Outcome, Source, WebhookRequest
from bridge.settings import Settings
from bridge.transform import Result
from bridge.verify import verify
from bridge.worker.client import Worker, WorkerSettings


@click.command()
@click.option("--base", help="The address providers reach this bridge at, such as https://hooks.example.com.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each.")
def sources(*, base: str | None, as_json: bool) -> None:
    """Show the URL of each source, and where in the provider's dashboard it belongs.

    \b
    bridge sources --base https://hooks.example.com
    """
    settings = _settings()
    public = _local(settings) if base is None else base if "://" in base else f"https://{base}"
    for name, source in settings.sources.items():
        provider = providers.load()[source.provider]
        url = f"{public.rstrip('/')}/webhooks/{name}"
        if as_json:
            json_line(
                {
                    "source": name,
                    "provider": provider.name,
                    "url": url,
                    "dashboard": provider.dashboard,
                    "docs": provider.docs,
                }
            )
            continue
        console.print(f"[bold]{name}[/]  {escape(url)}", soft_wrap=True)
        console.print(f"  {provider.dashboard}", soft_wrap=True)
        console.print(f"  [dim]{provider.docs}[/]\n", soft_wrap=True)
    if not as_json and not settings.sources:
        console.print("No source is configured. Each of these variables enables one:")
        for provider in providers.load().values():
            console.print(f"  {provider.environment:<24} {provider.dashboard}", soft_wrap=True)
    elif not as_json and base is None:
        console.print(
            "[dim]Providers need a public https address in front of this one: --base shows the URLs with it.[/]"
        )


@click.command()
@click.argument("provider", type=click.Choice(list(providers.load())))
@click.argument("type_", metavar="[TYPE]", required=False)
@click.option(
    "--file", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Send this body, as it is."
)
@click.option("--to", "to", help="The bridge's address, or the whole URL. Default: this machine, BRIDGE_PORT.")
@click.option("--source", help="Sign as for this source. Default: the first of the provider's.")
@click.option("--unchanged", is_flag=True, help="Keep the sample's own id: a second time it is a duplicate.")
@click.option("--json", "as_json", is_flag=True, help="The answer as a line of JSON.")
def send(
    *,
    provider: str,
    type_: str | None,
    file: Path | None,
    to: str | None,
    source: str | None,
    unchanged: bool,
    as_json: bool,
) -> None:
    """Send a signed webhook, of a recorded sample or a file. Without TYPE: list the samples.

    Signed with the configured secret; without one, with the one `bridge dev` takes. Exit status 1 if it was not accepted.

    \b
    bridge send stripe customer.created
    bridge send slack --file body.json --to https://hooks.example.com
    """
    if type_ is not None and file is not None:
        raise click.UsageError("either a sample's TYPE, or --file with a body of your own")
    if type_ is None and file is None:
        for name in samples.names(provider):
            json_line({"provider": provider, "type": name}) if as_json else click.echo(name)
        return
    settings = _settings()
    signed_as = _source(settings, provider, source)
    try:
        body = _read(file) if file else webhooks.sample(provider, type_ or "", unchanged=unchanged)
        url = webhooks.url_of(signed_as.name, base=to or _local(settings))
    except LookupError as error:
        raise click.UsageError(str(error.args[0])) from None
    except ValueError:
        raise click.UsageError(f"--to {to}: no address of a bridge, such as https://hooks.example.com") from None
    reply = _post(body, source=signed_as, url=url)
    _tell(reply, url=url, as_json=as_json)
    if reply.status == HTTPStatus.UNAUTHORIZED:
        raise BridgeError(_which_secret(settings, provider))
    if not reply.is_accepted:
        raise SystemExit(1)


def _post(body: bytes, *, source: Source, url: str) -> webhooks.Reply:
    try:
        return asyncio.run(webhooks.post(body, source=source, url=url))
    except (aiohttp.ClientError, OSError, ValueError) as error:
        why = reason(error, timeout=webhooks.TIMEOUT)
        raise BridgeError(f"{url}: {why}. Is a bridge running there? `bridge dev` starts one") from None


def _tell(reply: webhooks.Reply, *, url: str, as_json: bool) -> None:
    if as_json:
        json_line({"url": url, "status": reply.status, "text": reply.text, "seconds": round(reply.seconds, 4)})
        return
    colour = "green" if reply.is_accepted else "red"
    said = escape(log.printable(" ".join(reply.text.split())))
    console.print(f"{escape(url)}: [{colour}]{reply.status}[/] in {reply.seconds * 1000:.0f} ms {said}", soft_wrap=True)


def _which_secret(settings: Settings, provider: str) -> str:
    """What to do about a 401: the bridge asked does not say why."""
    if any(source.provider == provider for source in settings.sources.values()):
        return "it was signed with the secret configured here, and the bridge there has another"
    variable = providers.load()[provider].environment
    return (
        f"it was signed with the secret of `bridge dev`, for none is configured here: set {variable} to that bridge's"
    )


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
    settings = _settings()
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
        raise click.UsageError(f"which source would {path} come to? --source {', '.join(known)}")
    secret = b"for this once"
    whose = replace(known[name].source(name), secrets=(secret,))
    provider = providers.load()[whose.provider]
    body, now = _read(path), wall_clock()
    request = WebhookRequest(headers=provider.scheme.sign(body, secret=secret, now=now), body=body, received_at=now)
    delivery = verify(request, source=whose, provider=provider, now=now)
    if not isinstance(delivery, Delivery):
        raise BridgeError(f"{path}: a handshake: answered, and no event")
    return Entry.of(delivery)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BridgeError(f"{path}: {error.strerror}") from None


def _settings() -> Settings:
    log.configure()
    return config.load(os.environ, serving=False)


def _source(settings: Settings, provider: str, name: str | None) -> Source:
    fitting = {key: source for key, source in settings.sources.items() if source.provider == provider}
    if name is not None and name not in fitting:
        raise click.UsageError(
            f"no source `{name}` of {provider} is configured; there are: {', '.join(fitting) or 'none'}"
        )
    for key, source in fitting.items():
        if name in {None, key}:
            return source.source(key)
    return Source(name=provider, provider=provider, prefix=provider, secrets=(known_secret(provider).encode(),))


def _local(settings: Settings) -> str:
    """The bridge on this machine, as one connects to it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
