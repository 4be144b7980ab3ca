"""sources: which URL to paste where."""

from __future__ import annotations

import click
from rich.markup import escape

from bridge import providers
from bridge.cli.configured import configured, local_url
from bridge.cli.output import console, json_line


@click.command()
@click.option("--base", help="The address providers reach this bridge at, such as https://hooks.example.com.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each.")
def sources(*, base: str | None, as_json: bool) -> None:
    """Show the URL of each source, and where in the provider's dashboard it belongs.

    \b
    bridge sources --base https://hooks.example.com
    """
    settings = configured()
    public = local_url(settings) if base is None else base if "://" in base else f"https://{base}"
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
