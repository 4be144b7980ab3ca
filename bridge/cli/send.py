"""send: a signed webhook, as the provider would send it."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from pathlib import Path

import aiohttp
import click
from rich.markup import escape

from bridge import log, providers, samples, webhooks
from bridge.cli.configured import configured, local_url, read
from bridge.cli.output import console, json_line
from bridge.dev import known_secret
from bridge.errors import BridgeError
from bridge.event_api import reason
from bridge.model import Source
from bridge.settings import Settings


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
    settings = configured()
    signed_as = _source(settings, provider, source)
    try:
        body = read(file) if file else webhooks.sample(provider, type_ or "", unchanged=unchanged)
        url = webhooks.url_of(signed_as.name, base=to or local_url(settings))
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
