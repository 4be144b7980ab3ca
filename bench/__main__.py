"""`make bench`, or `PYTHONPATH=tests python -m bench`: prints ratios first, then what they are made of."""

from __future__ import annotations

import asyncio
import os
import platform
import sys

import click
from rich.console import Console
from rich.table import Table

from bench import journals

# Into a pipe nothing is cut off.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


@click.group()
def main() -> None:
    """Measure. Takes minutes; a machine with nothing else to do gives steadier figures."""


@main.command("journals")
@click.option("--rounds", default=5, show_default=True, help="Interleaved; the median counts.")
@click.option("--count", default=20_000, show_default=True, help="Deliveries a round.")
@click.option("--backlog", default=50_000, show_default=True, help="Deliveries in the backlog.")
@click.option("--settled", default=5_000_000, show_default=True, help="Settled entries behind the pending ones.")
def journals_(*, rounds: int, count: int, backlog: int, settled: int) -> None:
    """SQLite and PostgreSQL, one replica and two, a new journal and an old one."""
    table = Table("ratio", "asked", "what", "of", box=None, pad_edge=False, width=140)
    with journals.postgresql() as cluster:
        for measure in (
            journals.acknowledged(cluster, rounds=rounds, count=count, forwarding=False),
            journals.acknowledged(cluster, rounds=rounds, count=count, forwarding=True),
            journals.forwarded(cluster, rounds=rounds, count=backlog, delay=0),
            journals.forwarded(cluster, rounds=rounds, count=backlog, delay=0.2),
            journals.claimed(cluster, rounds=4 * rounds, settled=settled),
        ):
            figure = asyncio.run(measure)
            table.add_row(f"{figure.ratio:.2f}", figure.asked, figure.what, figure.of)
    console.print(table)
    console.print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}", style="dim")


@main.command()
@click.option("--seconds", default=180, show_default=True)
@click.option("--rate", default=1000, show_default=True, help="Deliveries a second.")
def purge(*, seconds: int, rate: int) -> None:
    """What PostgreSQL's tables take while as much is forgotten as comes in: MB, and rows not vacuumed yet."""
    with journals.postgresql(autovacuum_naptime="1s") as cluster:
        rows = asyncio.run(journals.purged(cluster, seconds=seconds, rate=rate))
    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(f"{value:,.1f}" for value in row.values()))
    console.print(table)


main()
