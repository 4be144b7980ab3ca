"""send: a signed webhook, as the provider would send it."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from pathlib import Path

import aiohttp
import click
from rich.markup import escape

from bridge import log, providers, samples, webhooks
from bridge.cli.configured import configured, read
from bridge.cli.output import console, json_line
from bridge.cli.running import local_url
from bridge.dev import known_secret, with_every_provider
from bridge.errors import BridgeError
from bridge.event_api import reason
from bridge.model import Source
from bridge.settings import Settings
from bridge.verify import Identity


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
        _list(provider, as_json=as_json)
        return
    settings = with_every_provider(configured())
    signed_as = _source(settings, provider, source)
    try:
        body = read(file) if file else webhooks.sample(provider, type_ or "", unchanged=unchanged)
        url = webhooks.url_of(signed_as.name, base=to or local_url(settings.host, settings.port))
    except LookupError as error:
        raise click.UsageError(str(error.args[0])) from None
    except ValueError:
        raise click.UsageError(f"--to {to}: no address of a bridge, such as https://hooks.example.com") from None
    reply = _post(body, source=signed_as, url=url, is_here=to is None)
    _tell(reply, webhooks.identity(provider, body), url=url, as_json=as_json)
    if reply.status == HTTPStatus.UNAUTHORIZED:
        raise BridgeError(_which_secret(signed_as))
    if not reply.is_accepted:
        raise SystemExit(1)


def _list(provider: str, *, as_json: bool) -> None:
    names = samples.names(provider)
    for name in names:
        json_line({"provider": provider, "type": name}) if as_json else click.echo(name)
    if not names:
        raise BridgeError(f"there are no samples of {provider}: --file sends a body of your own")


def _post(body: bytes, *, source: Source, url: str, is_here: bool) -> webhooks.Reply:
    try:
        return asyncio.run(webhooks.post(body, source=source, url=url))
    except (aiohttp.ClientError, OSError, ValueError) as error:
        hint = ". Is a bridge running there? `bridge dev` starts one" if is_here else ""
        raise BridgeError(f"{url}: {reason(error, timeout=webhooks.TIMEOUT)}{hint}") from None


def _tell(reply: webhooks.Reply, of: Identity, *, url: str, as_json: bool) -> None:
    if as_json:
        told = {"url": url, "id": of.id, "type": of.type, "status": reply.status, "text": reply.text}
        json_line({**told, "seconds": round(reply.seconds, 4)})
        return
    colour = "green" if reply.is_accepted else "red"
    said = " ".join(filter(None, (str(of.type or ""), of.id, *reply.text.split())))
    took = f"[{colour}]{reply.status}[/] in {reply.seconds * 1000:.0f} ms"
    console.print(f"{escape(url)}: {took}  {escape(log.printable(said))}".rstrip(), soft_wrap=True)


def _which_secret(source: Source) -> str:
    """What to do about a 401: the bridge that was asked does not say why."""
    if source.secrets[0] != known_secret(source.provider).encode():
        return "it was signed with the secret configured here, and the bridge there has another"
    variable = providers.load()[source.provider].environment
    return (
        f"it was signed with the secret of `bridge dev`, for none is configured here: set {variable} to that bridge's"
    )


def _source(settings: Settings, provider: str, name: str | None) -> Source:
    fitting = {key: source for key, source in settings.sources.items() if source.provider == provider}
    name = name or next(iter(fitting), provider)
    if name not in fitting:
        known = ", ".join(fitting) or "none"
        raise click.UsageError(f"no source `{name}` of {provider} is configured; there are: {known}")
    return fitting[name].source(name)
