"""sources: which URL to paste where."""

from __future__ import annotations

import click
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from bridge import providers
from bridge.cli.configured import configured
from bridge.cli.output import console, json_line
from bridge.cli.running import local_url


@click.command(short_help="Show each source's URL, and where it belongs.")
@click.option("--base", metavar="URL", help="The address providers reach this bridge at: https://hooks.example.com")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each.")
def sources(*, base: str | None, as_json: bool) -> None:
    """Show the URL of each source, and where in the provider's dashboard it belongs.

    \b
    bridge sources --base https://hooks.example.com
    """
    settings = configured()
    public = local_url(settings.host, settings.port) if base is None else base if "://" in base else f"https://{base}"
    known = providers.load()
    whose = {name: known[source.provider] for name, source in settings.sources.items()}
    urls = {name: f"{public.rstrip('/')}/webhooks/{name}" for name in (whose or known)}
    if as_json:
        for name, provider in whose.items():
            place = {"dashboard": provider.dashboard, "docs": provider.docs}
            json_line({"source": name, "provider": provider.name, "url": urls[name], **place})
        return
    if not whose:
        console.print("No source is configured yet. These could be, each by the variable with its secret:\n")
    for name, provider in (whose or known).items():
        console.print(f"[bold]{name}[/]  {escape(urls[name])}", soft_wrap=True)
        variable = [] if whose else [f"{provider.environment}=..."]
        for line in (provider.dashboard, provider.docs, *variable):
            console.print(Padding(Text(line), (0, 0, 0, 2), expand=False))
        console.print()
    if base is None:
        console.print("[dim]Providers need a public https address in front of this one: --base shows it instead.[/]")
