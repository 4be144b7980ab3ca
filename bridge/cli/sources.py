"""sources: which URL to paste where."""

from __future__ import annotations

import click
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from bridge import providers
from bridge.cli.configured import configured, local_url
from bridge.cli.output import console, json_line
from bridge.verify import Provider


@click.command(short_help="Show each source's URL, and where it belongs.")
@click.option("--base", metavar="URL", help="The address providers reach this bridge at: https://hooks.example.com")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each.")
def sources(*, base: str | None, as_json: bool) -> None:
    """Show the URL of each source, and where in the provider's dashboard it belongs.

    \b
    bridge sources --base https://hooks.example.com
    """
    settings = configured()
    public = local_url(settings) if base is None else base if "://" in base else f"https://{base}"
    known = providers.load()
    whose = {name: known[source.provider] for name, source in settings.sources.items()}
    if not whose and not as_json:
        console.print("No source is configured yet. These could be, each by the variable with its secret:\n")
    for name, provider in (whose or ({} if as_json else known)).items():
        url = f"{public.rstrip('/')}/webhooks/{name}"
        if as_json:
            json_line({"source": name, "provider": provider.name, "url": url, **_place(provider)})
            continue
        console.print(f"[bold]{name}[/]  {escape(url)}", soft_wrap=True)
        for line in (*_place(provider).values(), *(() if whose else [f"{provider.environment}=..."])):
            console.print(Padding(Text(line), (0, 0, 0, 2), expand=False))
        console.print()
    if not as_json and base is None:
        console.print("[dim]Providers need a public https address in front of this one: --base shows it instead.[/]")


def _place(provider: Provider) -> dict[str, str]:
    return {"dashboard": provider.dashboard, "docs": provider.docs}
